"""The work of the commands: what is parsed comes in, what is shown goes out."""
