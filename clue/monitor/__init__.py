"""Watching a run: log, throughput, console, alerts."""
