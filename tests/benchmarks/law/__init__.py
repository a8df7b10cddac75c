"""Tests of a law of one's own logs."""
