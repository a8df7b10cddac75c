"""Scaling laws: runs over sizes, data and compute, the laws through them, and how far they hold."""
