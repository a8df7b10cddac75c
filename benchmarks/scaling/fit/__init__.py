"""Laws fitted to the records of runs."""
