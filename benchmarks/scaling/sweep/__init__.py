"""Runs of a study: sizes, costs, launches, records."""
