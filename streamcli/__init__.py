"""The tool: flags, the results database, tables and figures, around ``core``."""

__version__ = "0.1.0"
