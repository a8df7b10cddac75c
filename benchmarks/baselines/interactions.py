"""What a linear model reads of a user and an item: [u, i, u * i], by block how near they are."""

from collections.abc import Mapping

import numpy as np

from benchmarks.baselines.concatenated import whole_items
from benchmarks.protocols import Model, has_items

SIMILARITY = "similarity"


def bounded(blocks: Mapping[str, slice], width: int) -> dict[str, slice]:
    """Return the blocks of a vector (width,) by their first column and the one after their last."""
    return {name: slice(*columns.indices(width)[:2]) for name, columns in blocks.items()}


def pair_features(
    model: Model, users: np.ndarray, rows: np.ndarray, *, with_users: bool = True
) -> tuple[np.ndarray, dict[str, slice]]:
    """Return the features (n, F) float32 of n pairs by a frozen model, and their blocks.

    `users` (n, E) are the vectors of the pairs' users, `rows` (n,) the items of the catalogue. Of a
    model without items they are `users` alone. `with_users` false leaves u out, which is the same
    for all items of a ranking, and has room for i in all its blocks: on MIND's valid users .674
    against .667 with i in the one block that ranks.
    """
    users = users.astype(np.float32)
    if not has_items(model):
        return users, bounded(model.blocks, users.shape[1])
    x, blocks = interactions(users, model.items(), rows, model.blocks)
    near = similarities(users, whole_items(model), rows, model.blocks)
    blocks[SIMILARITY] = slice(x.shape[1], x.shape[1] + near.shape[1])
    x = np.concatenate([x, near], axis=1)
    if with_users:
        return x, blocks
    return _without_users(x, blocks, model, rows)


def _without_users(
    x: np.ndarray, blocks: Mapping[str, slice], model: Model, rows: np.ndarray
) -> tuple[np.ndarray, dict[str, slice]]:
    """Return the features of `pair_features` (n, F) with i in all blocks for u and i."""
    items, parts, made, start = whole_items(model), list[np.ndarray](), dict[str, slice](), 0
    several, width = len(model.blocks) > 1, items.shape[1]
    for name, columns in bounded(model.blocks, width).items():
        if (items[:, columns] != 0).any():
            parts.append(items[rows, columns])
            stop = start + parts[-1].shape[1]
            made[f"item: {name}" if several else "item"] = slice(start, stop)
            start = stop
    first = blocks["item"].stop
    for name, columns in blocks.items():
        if columns.start >= first:
            made[name] = slice(start + columns.start - first, start + columns.stop - first)
    return np.concatenate([*parts, x[:, first:]], axis=1, dtype=np.float32), made


def interactions(
    users: np.ndarray, items: np.ndarray, rows: np.ndarray, blocks: Mapping[str, slice]
) -> tuple[np.ndarray, dict[str, slice]]:
    """Return [u, i, u * i] (n, F) float32 of n pairs, and the blocks of its columns.

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


def similarities(
    users: np.ndarray, items: np.ndarray, rows: np.ndarray, blocks: Mapping[str, slice]
) -> np.ndarray:
    """Return the inner product and the cosine (n, 2 B) of n pairs in each block that items have.

    A probe could sum u * i up, but not over the 1,300 columns of a universal vector, of which it
    reads the products of one block. The cosine is 0 where either vector is.
    """
    made: list[np.ndarray] = []
    for columns in blocks.values():
        i, u = items[:, columns], users[:, columns]
        if not (i != 0).any():
            continue
        product = np.einsum("ij,ij->i", u, i[rows], dtype=np.float64)
        lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(i, axis=1)[rows]
        cosine = np.divide(product, lengths, out=np.zeros(len(rows)), where=lengths > 0)
        made += [product, cosine]
    return np.stack(made, axis=1).astype(np.float32) if made else np.zeros((len(rows), 0), "f4")
