"""A scaling law of one's own logs, by one command."""
