"""What a generation of an index holds: items and users as one model sees them."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

UNIT_TOLERANCE = 1e-3  # float32 rounding of a unit vector of any width is below 1e-5

Strings: TypeAlias = Any  # an Arrow array of large_string; pyarrow ships no types


class BrokenIndex(ValueError):
    """What is on disk is not what was written; the message names the file, never its path."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """I items and N users of one corpus as one model sees them.

    `user_vectors` (N, S) are unit float32 rows, by whose cosine users are compared. Items rank by
    the inner product of `item_vectors` (I, R) and a user's `user_states` (N, R); without those, of
    a model whose vectors are one, items are unit rows and users' vectors are their states.
    `item_service` (I,) indexes `services`; `item_content` (I,) is `content_of` service and what the
    model reads (the encoder's `input_keys`), `item_key` (I,) of service and item id. `templates`
    say how the texts of a service were made. `item_blocks` (I, E) are the whole vectors of a model
    with blocks, whose columns are `item_block_columns`. `user_ids` is sorted by UTF-8 bytes; user n
    has seen the items `seen_values[seen_offsets[n]:seen_offsets[n + 1]]` and has `user_events`
    (N, services), or where there is none so many; items were met `item_events` (I,) times, or
    where there is none so often. What the store of this name wrote up to the write
    `store_seq` is in it.
    """

    model_fingerprint: str
    corpus_fingerprint: str
    corpus_name: str
    templates: dict[str, str]
    services: list[str]
    item_ids: Strings
    item_texts: Strings
    item_service: np.ndarray
    item_content: np.ndarray
    item_key: np.ndarray
    item_vectors: np.ndarray
    user_ids: Strings
    user_vectors: np.ndarray
    seen_values: np.ndarray
    seen_offsets: np.ndarray
    user_states: np.ndarray | None = None
    user_events: np.ndarray | None = None
    item_events: np.ndarray | None = None
    store: str = ""
    store_seq: int = 0
    item_blocks: np.ndarray | None = None
    item_block_columns: dict[str, tuple[int, int]] = field(
        default_factory=dict[str, tuple[int, int]]
    )


def content_of(service: str, what: str) -> int:
    """Return the 64-bit hash by which an event finds its catalogue items.

    `what` is what the model reads of it, or its item id.
    """
    digest = hashlib.blake2b(f"{service}\0{what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def is_unit(vectors: np.ndarray) -> np.ndarray:
    """Return for each vector (..., E) whether it is finite and of length one."""
    with np.errstate(over="ignore", invalid="ignore"):  # 1e300 squared is inf, which is not one
        lengths = np.sqrt(np.einsum("...j,...j->...", vectors, vectors, dtype=np.float64))
    return np.abs(lengths - 1) < UNIT_TOLERANCE


def check(contents: Contents) -> None:
    """Raise BrokenIndex unless counts and widths agree and every vector is as `Contents` says."""
    states = contents.user_states
    width = contents.user_vectors.shape[-1]
    ranking = width if states is None else states.shape[-1]
    kinds = [
        ("user", contents.user_vectors, (len(contents.user_ids), width), True),
        ("item", contents.item_vectors, (len(contents.item_ids), ranking), states is None),
    ]
    if states is not None:
        kinds.append(("state", states, (len(contents.user_ids), ranking), False))
    if contents.item_blocks is not None:
        columns = max(stop for _, stop in contents.item_block_columns.values())
        kinds.append(("item block", contents.item_blocks, (len(contents.item_ids), columns), False))
    for kind, vectors, shape, unit in kinds:
        if vectors.shape != shape or vectors.dtype != np.float32:
            raise BrokenIndex(f"{kind} vectors: {vectors.dtype} {vectors.shape}, not {shape}")
        if not (is_unit(vectors) if unit else np.isfinite(vectors)).all():
            length = " and of length one" if unit else ""
            raise BrokenIndex(f"a {kind} vector is not finite{length}")
    users, offsets = len(contents.user_ids), len(contents.seen_offsets)
    if offsets != users + 1:
        raise BrokenIndex(f"{users} users need {users + 1} offsets, found {offsets}")
