"""Tests of clue/nn."""
