"""Clocks, memory, floors, benchmarks and profiles."""
