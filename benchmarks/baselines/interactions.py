"""What a linear model reads of a user and an item: [u, i, u * i] of their frozen vectors."""

from collections.abc import Mapping

import numpy as np


def bounded(blocks: Mapping[str, slice], width: int) -> dict[str, slice]:
    """Return the blocks of a vector (width,) by their first column and the one after their last."""
    return {name: slice(*columns.indices(width)[:2]) for name, columns in blocks.items()}


def interactions(
    users: np.ndarray, items: np.ndarray, rows: np.ndarray, blocks: Mapping[str, slice]
) -> tuple[np.ndarray, dict[str, slice]]:
    """Return features (n, F) float32 of n pairs, and their blocks.

    `users` (n, E) are the vectors of the pairs, `items` (num_items, E) those of the catalogue in
    the same space, `rows` (n,) the items of the pairs. Columns that are zero for every item are
    left out of i and of u * i. The blocks are those of the user's vector (`blocks`), "item", and
    "block * item" for each of them that items have columns of.
    """
    used = np.flatnonzero((items != 0).any(0))
    u, i = users.astype(np.float32), items[rows][:, used].astype(np.float32)
    made = bounded(blocks, u.shape[1])
    start, width = u.shape[1], len(used)
    made["item"] = slice(start, start + width)
    start += width
    for name, columns in bounded(blocks, u.shape[1]).items():
        first, last = np.searchsorted(used, [columns.start, columns.stop])
        if first < last:
            made[f"{name} * item"] = slice(start + int(first), start + int(last))
    return np.concatenate([u, i, u[:, used] * i], axis=1), made
