"""The database of every recorded run: its tables, the one way in (``Store``) and its queries."""
