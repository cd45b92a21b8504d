"""One file a step, run by Alembic in the order of their numbers; none is ever edited."""
