"""Public data sets, from the publisher's files to logs that `clue/prepare.py` reads."""
