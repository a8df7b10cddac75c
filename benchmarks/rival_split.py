"""The leave-one-out split as the rival is handed it: a row per event, and who is asked what."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import Sequences, SequencesConfig


@dataclass(frozen=True)
class LeaveOneOut:
    """The histories (users, oldest event first) whose last two events are held out.

    Items are rows of `catalogue`, the item indices of the corpus that occur in them.
    """

    histories: Ragged
    catalogue: np.ndarray

    def part(self) -> np.ndarray:
        """Says of every event: 0 training, 1 validation (the last but one), 2 test (the last)."""
        found = np.zeros(len(self.histories.values), dtype=np.int8)
        ends = self.histories.offsets[1:]
        found[ends - 2], found[ends - 1] = 1, 2
        return found

    def table(self) -> pa.Table:
        """Return a row per event: user, item, order (its place in the history), part."""
        lengths = self.histories.lengths
        first = np.repeat(self.histories.offsets[:-1], lengths)
        columns = {
            "user": np.repeat(np.arange(len(lengths)), lengths),
            "item": self.histories.values,
            "order": np.arange(len(first)) - first,
            "part": self.part(),
        }
        return pa.table(columns)

    def question(self, part: int) -> tuple[np.ndarray, Ragged]:
        """Return the targets (users,) of part 1 or 2 and the items of the history before each."""
        left = 3 - part
        targets = self.histories.values[self.histories.offsets[1:] - left]
        kept = self.part() < part
        sizes = np.concatenate([[0], np.cumsum(self.histories.lengths - left)])
        return targets, Ragged(self.histories.values[kept], sizes)


def leave_one_out(corpus: Corpus, users: int = 0) -> LeaveOneOut:
    """Return the split of the users with at least three events, the first `users` of them (0: all).

    Raises ValueError for a corpus of several services and for one that leaves nothing to ask.
    """
    if len(corpus.services) != 1:
        raise ValueError(
            f"{corpus.path} has the services {', '.join(corpus.services)}; leave-one-out is for "
            "one: prepare a corpus of that service alone"
        )
    sequences = Sequences(corpus, SequencesConfig())  # the very split of the next-item models
    asked = np.flatnonzero(sequences.test_at >= 0)[: users or None]
    histories = sequences.rows.take(asked)
    catalogue, rows = np.unique(histories.values, return_inverse=True)
    return LeaveOneOut(Ragged(rows, histories.offsets), sequences.catalogue.items[catalogue])
