"""Tests on several hosts and engines; each says what it needs and is skipped without."""
