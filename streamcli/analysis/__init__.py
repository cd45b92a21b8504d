"""What frames and vectors of recorded runs say: no SQL, no rendering."""
