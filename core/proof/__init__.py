"""What is claimed, held against the obvious loop."""
