"""Exact nearest items and users over one generation. FAISS is kept in; torch is kept out."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from serving.generation import BrokenIndex, Contents, content_of, is_unit, read


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """The `k` nearest items or users, without the rows in `exclude`.

    `service` restricts items to one service (an index into `Index.services`).
    """

    kind: str  # "items" or "users"
    k: int
    exclude: np.ndarray
    service: int | None = None


@dataclass(frozen=True, eq=False)
class Hits:
    """Rows (int64) and scores (float32, inner product), best first; equal scores by row."""

    rows: np.ndarray
    scores: np.ndarray


class Index:
    """Items and users of one generation, searchable by vectors of what `Contents` compares.

    A search for users has a unit vector of `width`, one for items a state of `ranking_width`; where
    `is_cosine` the two are one and the same.

    Each service has a FAISS index of its own, so that "the best of one service" needs no filter and
    "the best of all" merges a few short lists. Search is exact: at 200,000 vectors of width 256 it
    costs 10 ms of one core, below what encoding a user costs.
    """

    def __init__(self, name: str, contents: Contents) -> None:
        """Copy the vectors of checked `contents` into FAISS; they need not be kept."""
        self.name = name
        self.model_fingerprint = contents.model_fingerprint
        self.corpus_fingerprint = contents.corpus_fingerprint
        self.corpus_name = contents.corpus_name
        self.services = tuple(contents.services)
        self.width = int(contents.user_vectors.shape[1])
        self.ranking_width = int(contents.item_vectors.shape[1])
        self.is_cosine = contents.user_states is None
        self.num_items = len(contents.item_ids)
        self.num_users = len(contents.user_ids)
        self._item_ids = contents.item_ids
        self._item_texts = contents.item_texts
        self._item_service = contents.item_service
        self._user_ids = contents.user_ids
        self._user_states = contents.user_states
        self._seen_values = contents.seen_values
        self._seen_offsets = contents.seen_offsets
        self.templates = contents.templates
        self.store, self.store_seq = contents.store, contents.store_seq
        self._by_content = _Lookup(contents.item_content)
        self._by_key = _Lookup(contents.item_key)
        self._users = _Shard(np.arange(self.num_users), contents.user_vectors)
        self._items = [
            _Shard(rows, contents.item_vectors[rows])
            for rows in (
                np.flatnonzero(contents.item_service == s) for s in range(len(self.services))
            )
        ]

    @classmethod
    def load(cls, out: Path) -> "Index":
        """Return the current generation in `out`; raises as `generation.read` does."""
        return cls(*read(out))

    def search(self, vectors: Sequence[np.ndarray], searches: Sequence[Search]) -> list[Hits]:
        """Return for each of `vectors` the hits of the search beside it.

        A result is shorter than `k` only when fewer remain. Raises ValueError for a wrong width, a
        vector that is not finite and, for a cosine, of length one, or k below 1: FAISS would answer
        these with rows of -1, or not at all.
        """
        if len(vectors) != len(searches):
            raise ValueError(f"{len(searches)} searches need as many vectors, got {len(vectors)}")
        for vector, search in zip(vectors, searches, strict=True):
            self._require(vector, search)
        parts: list[list[Hits]] = [[] for _ in searches]
        for shard, service in [(self._users, -1), *((s, i) for i, s in enumerate(self._items))]:
            wanted = [n for n, search in enumerate(searches) if _reads(search, service)]
            if wanted and len(shard.rows):
                # Excluded rows may be the very best, so as many more are asked for.
                deep = max(searches[n].k + len(searches[n].exclude) for n in wanted)
                for n, hits in zip(
                    wanted, shard.nearest(np.stack([vectors[n] for n in wanted]), deep), strict=True
                ):
                    parts[n].append(hits)
        return [_best(per_shard, search) for per_shard, search in zip(parts, searches, strict=True)]

    def user_row(self, user_id: str) -> int | None:
        """Return the row of a user, or None for one the index does not hold."""
        # The ids are sorted as UTF-8 bytes, which is how Python compares strings too.
        row = bisect_left(range(self.num_users), user_id, key=self.user_id)
        return row if row < self.num_users and self.user_id(row) == user_id else None

    def user_id(self, row: int) -> str:
        """Return the id of a user row."""
        return self._user_ids[row].as_py()

    def user_vector(self, row: int) -> np.ndarray:
        """Return the unit vector (width,) of a user row."""
        return np.asarray(self._users.faiss.reconstruct(row))

    def user_state(self, row: int) -> np.ndarray:
        """Return the vector (ranking_width,) by which items rank for a user row."""
        return self.user_vector(row) if self._user_states is None else self._user_states[row]

    def seen_by(self, row: int) -> np.ndarray:
        """Return the item rows in a user's history."""
        return self._seen_values[self._seen_offsets[row] : self._seen_offsets[row + 1]]

    def rows_read(self, events: Iterable[tuple[str, str]]) -> np.ndarray:
        """Return the rows of items that the model reads as it reads the events (service, key)."""
        return self._by_content.rows(events)

    def rows_of(self, events: Iterable[tuple[str, str]]) -> np.ndarray:
        """Return the rows of the items (service, item id); without those the index lacks."""
        return self._by_key.rows(events)

    def item(self, row: int) -> tuple[str, str, str]:
        """Return the id, the service and the text of an item row."""
        service = self.services[self._item_service[row]]
        return self._item_ids[row].as_py(), service, self._item_texts[row].as_py()

    def _require(self, vector: np.ndarray, search: Search) -> None:
        width = self.width if search.kind == "users" else self.ranking_width
        if vector.shape != (width,) or vector.dtype != np.float32:
            raise ValueError(
                f"a search for {search.kind} needs float32 ({width},), "
                f"got {vector.dtype} {vector.shape}"
            )
        cosine = search.kind == "users" or self.is_cosine
        if not (is_unit(vector) if cosine else np.isfinite(vector)).all():
            length = " or not of length one; normalise it" if cosine else ""
            raise ValueError(f"a query vector is not finite{length}")
        if search.k < 1:
            raise ValueError(f"k is at least 1, got {search.k}")


class _Lookup:
    """Rows by a hash that several of them may share."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def rows(self, events: Iterable[tuple[str, str]]) -> np.ndarray:
        wanted = np.array([content_of(*event) for event in set(events)], dtype=np.uint64)
        first = np.searchsorted(self._hashes, wanted, side="left")
        last = np.searchsorted(self._hashes, wanted, side="right")
        parts = [self._rows[a:b] for a, b in zip(first, last, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *parts])


class _Shard:
    """Some rows and the FAISS index of their vectors."""

    def __init__(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        self.rows = rows
        self.faiss = faiss.IndexFlatIP(vectors.shape[1])
        self.faiss.add(np.ascontiguousarray(vectors))
        if self.faiss.ntotal != len(rows):
            raise BrokenIndex(f"FAISS holds {self.faiss.ntotal} of {len(rows)} vectors")

    def nearest(self, vectors: np.ndarray, k: int) -> list[Hits]:
        scores, positions = self.faiss.search(vectors, min(k, len(self.rows)))
        return [Hits(self.rows[row], score) for row, score in zip(positions, scores, strict=True)]


def _reads(search: Search, service: int) -> bool:
    if search.kind == "users":
        return service == -1
    return service >= 0 and search.service in (None, service)


def _best(parts: Sequence[Hits], search: Search) -> Hits:
    rows = np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)])
    scores = np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)])
    order = np.lexsort((rows, -scores))
    order = order[~np.isin(rows[order], search.exclude)][: search.k]
    return Hits(rows[order], scores[order])
