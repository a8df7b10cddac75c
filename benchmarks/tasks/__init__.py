"""The tasks of a suite."""
