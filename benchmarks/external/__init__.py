"""Other projects' code, run in environments of its own."""
