"""Columns of a task's queries: some of their rows, the slices of its scores, lists of numbers."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

Columns = TypeVar("Columns")

HISTORY = ((0, "0"), (1, "1-4"), (5, "5-19"), (20, "20-99"), (100, "100+"))


def take(columns: Columns, rows: np.ndarray) -> Columns:
    """Return the rows of a dataclass of columns (n,), or of mappings of columns."""

    def some(values: Any) -> Any:
        each = isinstance(values, Mapping)
        return {key: of[rows] for key, of in values.items()} if each else values[rows]

    return type(columns)(**{name: some(values) for name, values in vars(columns).items()})


def history_slice(lengths: np.ndarray) -> pa.Array:
    """Return the slice of each history length (n,), for a column "slice history"."""
    starts = np.array([start for start, _ in HISTORY])
    names = pa.array([name for _, name in HISTORY])
    return names.take(pa.array(np.searchsorted(starts, lengths, side="right") - 1))


def popularity_slice(counts: np.ndarray) -> pa.Array:
    """Return "head", "mid" or "tail" of each target's count of training events (n,).

    The head holds a third of the queries' targets by count, and so do the others, ties together.
    """
    low, high = np.quantile(counts, [1 / 3, 2 / 3]) if len(counts) else (0, 0)
    names = pa.array(["tail", "mid", "head"])
    return names.take(pa.array((counts > low).astype(int) + (counts > high)))


def seen_slice(split: np.ndarray) -> pa.Array:
    """Return "seen" for users of the training split (n,), whom pretraining read, else "unseen"."""
    return pa.array(["seen", "unseen"]).take(pa.array((split > 0).astype(int)))


def matrix(values: np.ndarray) -> pa.FixedSizeListArray:
    """Return (n, k) values as a column of lists."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
