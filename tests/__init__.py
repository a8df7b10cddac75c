"""Tests mirror the tree: `clue/data/corpus.py` is tested by `tests/data/test_corpus.py`."""
