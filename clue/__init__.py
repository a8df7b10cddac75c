"""CLUE: user representations learned from behaviour logs of many services."""
