"""Rows of different lengths in one flat array, and every operation on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths in one flat array: row i is `values[offsets[i]:offsets[i + 1]]`.

    `offsets` is int64 with one more entry than there are rows.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """Return a view of one row, counted from 0; IndexError beyond the last."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a Ragged with {len(self)} rows")
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64, the length of each row."""
        return np.diff(self.offsets)

    @staticmethod
    def from_lists(rows: Sequence[Sequence[int]]) -> "Ragged":
        """Return the rows in one flat int64 array."""
        flat = np.fromiter((value for row in rows for value in row), np.int64)
        return Ragged(flat, _offsets(np.array([len(row) for row in rows], np.int64)))

    @staticmethod
    def slices(starts: np.ndarray, lengths: np.ndarray) -> "Ragged":
        """Return the indices starts[i], starts[i] + 1, … (lengths[i] of them) of each row, flat."""
        offsets = _offsets(lengths)
        flat = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Ragged(flat, offsets)

    @staticmethod
    def concat(parts: "Sequence[Ragged]") -> "Ragged":
        """Return the rows of all parts, one after the other."""
        values = np.concatenate([part.values for part in parts])
        return Ragged(values, _offsets(np.concatenate([part.lengths for part in parts])))

    @staticmethod
    def merge_by_time(parts: "Sequence[tuple[Ragged, Ragged]]") -> "tuple[Ragged, Ragged]":
        """Return users' (items, times) of several services as one (items, times), oldest first.

        Row i of each part is of one user. Ties stay in the order of the services, then as logged.
        """
        if len(parts) == 1:
            return parts[0]
        lengths = np.sum([items.lengths for items, _ in parts], axis=0)
        owner = [np.repeat(np.arange(len(lengths)), items.lengths) for items, _ in parts]
        values = np.concatenate([items.values for items, _ in parts])
        times = np.concatenate([when.values for _, when in parts])
        # stable: what is equal in user and time stays as the services come
        order = np.lexsort((times, np.concatenate(owner)))
        offsets = _offsets(lengths)
        return Ragged(values[order], offsets), Ragged(times[order], offsets)

    def take(self, rows: np.ndarray) -> "Ragged":
        """Return the rows of these numbers (n,), in the order asked for."""
        indices = Ragged.slices(self.offsets[rows], self.lengths[rows])
        return Ragged(self.values[indices.values], indices.offsets)

    def mask(self, mask: np.ndarray) -> "Ragged":
        """Return the rows with only the values where `mask`, boolean over `values`, is true."""
        return Ragged(self.values[mask], _offsets(mask)[self.offsets])

    def last(self, count: int) -> "Ragged":
        """Return the last `count` values of each row."""
        size = np.minimum(self.lengths, count)
        indices = Ragged.slices(self.offsets[1:] - size, size)
        return Ragged(self.values[indices.values], indices.offsets)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
