"""Tests of clue/data and of clue/prepare.py."""
