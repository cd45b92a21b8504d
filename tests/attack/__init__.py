"""What people, files and networks do to the tool, kept as tables: input, exit code, words."""
