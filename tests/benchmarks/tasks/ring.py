"""A world that is a ring, item i + 1 after item i: who knows it, and who knows nothing."""

import numpy as np

from clue.data.ragged import Ragged
from clue.data.sequences import EvalQueries


class Ring:
    """The oracle: the state after item i scores i + 1 with one, all else with zero."""

    def __init__(self, items: int) -> None:
        self.table: np.ndarray = np.eye(items)
        self.read: list[Ragged] = []

    def states(self, histories: Ragged) -> np.ndarray:
        self.read.append(histories)
        last = histories.values[histories.offsets[1:] - 1]
        return self.table[(last + 1) % len(self.table)]


class Constant:
    """Scores all alike."""

    def __init__(self, items: int) -> None:
        self.table: np.ndarray = np.ones((items, 1))

    def states(self, histories: Ragged) -> np.ndarray:
        return np.ones((len(histories), 1))


def ragged(*rows: list[int]) -> Ragged:
    return Ragged(
        np.array([item for row in rows for item in row], np.int64),
        np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
    )


def walk(begin: int, length: int, items: int) -> list[int]:
    return [(begin + step) % items for step in range(length)]


def questions(items: int, lengths: list[int]) -> EvalQueries:
    """One user a length, who began at her own number: the target is what the ring has next."""
    histories = ragged(*(walk(n, length, items) for n, length in enumerate(lengths)))
    targets = [(n + length) % items for n, length in enumerate(lengths)]
    return EvalQueries(np.arange(len(lengths)), histories, np.array(targets))
