"""What a model made of the texts that it read lately, so that a text is read once."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import torch

from clue.data.ragged import Ragged

Item: TypeAlias = tuple[str, str, str | None]  # service, text, and id where one is said

KEY_BYTES = 16
ENTRY_BYTES = 256  # of Python's for an item: its key, its entry in a dict and its row's number
FREED = 16  # the part of the rows that a full cache frees in one go


@dataclass(frozen=True)
class ItemsRead:
    """What was made of I items alone: `tokens`, `rows` (I,) of the catalogue, -1 for one outside
    it, and their `vectors` (I, any) by name.
    """

    tokens: Ragged
    rows: np.ndarray
    vectors: Mapping[str, torch.Tensor]


class ItemCache:
    """The items that were read lately, the longest unread leave first; any thread may read.

    It belongs to one model, whose weights must not change. No text is kept: an item is known by 128
    bits of BLAKE2b of its service, text and id.
    """

    def __init__(
        self,
        max_bytes: int,
        max_tokens: int,
        observe: Callable[[int, int], None] | None = None,
    ) -> None:
        """Take at most `max_bytes`, as they are filled; an item has at most `max_tokens` tokens.

        `observe` is told of the hits and misses of each read. Raises ValueError for no bytes.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; give a positive count of bytes")
        self._max_bytes, self._max_tokens, self._observe = max_bytes, max_tokens, observe
        self._lock = threading.Lock()
        self._row_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._free: list[int] = []
        self._clock = 0
        self._arrays: dict[str, np.ndarray] = {}
        self.capacity = self.row_bytes = 0

    def __len__(self) -> int:
        """Return how many items are kept."""
        return len(self._row_of)

    @property
    def num_bytes(self) -> int:
        """What the items kept take."""
        return len(self) * self.row_bytes

    def read(
        self, items: Sequence[Item], encode: Callable[[Sequence[Item]], ItemsRead]
    ) -> ItemsRead:
        """Return what `encode` makes of distinct `items`, encoding those alone that are not kept.

        A vector may differ from that of one pass over all items by the rounding of a matrix product
        of another size, below 1e-6.
        """
        keys = [_key(item) for item in items]
        with self._lock:
            rows = np.array([self._row_of.get(key, -1) for key in keys], np.int64)
            hits, misses = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
            kept = self._taken(rows[hits])
        if self._observe is not None:
            self._observe(len(hits), len(misses))
        if not len(misses):
            return _items_of(kept)
        made = encode([items[number] for number in misses.tolist()])
        new = self._as_arrays(made)
        with self._lock:
            self._keep([keys[number] for number in misses.tolist()], new)
        if not len(hits):
            return made
        back = np.argsort(np.concatenate([hits, misses]), kind="stable")
        return _items_of({name: np.concatenate([kept[name], new[name]])[back] for name in new})

    def _taken(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return copies of what lies in `rows`, which count as read now."""
        self._clock += 1
        taken = {name: array[rows] for name, array in self._arrays.items() if name != "read_at"}
        if len(rows):
            self._arrays["read_at"][rows] = self._clock
        return taken

    def _as_arrays(self, read: ItemsRead) -> dict[str, np.ndarray]:
        """Return items as arrays of one row each."""
        lengths = read.tokens.lengths
        tokens = np.zeros((len(lengths), self._max_tokens), np.int32)
        tokens[np.arange(self._max_tokens) < lengths[:, None]] = read.tokens.values
        vectors = {f"vectors of {name}": each.numpy() for name, each in read.vectors.items()}
        return {"tokens": tokens, "lengths": lengths, "rows": read.rows, **vectors}

    def _keep(self, keys: Sequence[bytes], new: Mapping[str, np.ndarray]) -> None:
        """Keep new items, of more than there may be the last ones."""
        if not self._arrays:
            self._allocate(new)
        # another thread may have read the same text meanwhile
        numbers = [n for n, key in enumerate(keys) if key not in self._row_of][-self.capacity :]
        if len(numbers) > len(self._free):
            self._evict(max(len(numbers) - len(self._free), self.capacity // FREED))
        rows = [self._free.pop() for _ in numbers]
        for number, row in zip(numbers, rows, strict=True):
            self._row_of[keys[number]] = row
            self._key_of[row] = keys[number]
        for name, each in new.items():
            self._arrays[name][rows] = each[numbers]
        self._arrays["read_at"][rows] = self._clock

    def _allocate(self, new: Mapping[str, np.ndarray]) -> None:
        like = {**new, "read_at": np.zeros(0, np.int64)}
        bytes_of = [each.itemsize * int(np.prod(each.shape[1:])) for each in like.values()]
        self.row_bytes = sum(bytes_of) + ENTRY_BYTES
        self.capacity = max(1, self._max_bytes // self.row_bytes)
        # memory that nobody has written is none yet
        shapes = {name: (self.capacity, *each.shape[1:]) for name, each in like.items()}
        self._arrays = {name: np.empty(shapes[name], each.dtype) for name, each in like.items()}
        self._free = list(range(self.capacity))[::-1]

    def _evict(self, count: int) -> None:
        """Free the `count` rows that nobody has read for longest."""
        used = np.fromiter(self._key_of, np.int64, len(self._key_of))
        oldest = np.argsort(self._arrays["read_at"][used], kind="stable")[:count]
        for row in used[oldest].tolist():
            del self._row_of[self._key_of.pop(row)]
            self._free.append(row)


def _items_of(arrays: Mapping[str, np.ndarray]) -> ItemsRead:
    """Return the items of arrays of one row each."""
    lengths, tokens = arrays["lengths"], arrays["tokens"]
    values = tokens[np.arange(tokens.shape[1]) < lengths[:, None]]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vectors = {
        name.removeprefix("vectors of "): torch.from_numpy(each)
        for name, each in arrays.items()
        if name.startswith("vectors of ")
    }
    return ItemsRead(Ragged(values, offsets), arrays["rows"], vectors)


def _key(item: Item) -> bytes:
    service, text, item_id = item
    known = "" if item_id is None else f"{len(item_id)}:{item_id}"
    whole = f"{len(service)}:{service}{known};{text}"
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
