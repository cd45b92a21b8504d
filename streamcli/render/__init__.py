"""Frames in, text out. Never opens the database."""
