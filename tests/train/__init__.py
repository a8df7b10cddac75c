"""Tests of clue/train."""
