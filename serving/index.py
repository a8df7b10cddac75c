"""Nearest items and users over one generation. FAISS is kept in; torch is kept out."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from serving.base_index import BaseIndex, Built, Choice, Hits
from serving.contents import Contents, content_of, is_unit
from serving.filters import Filter, Filters
from serving.generation import read
from serving.population import PopulationMap, map_of

PROBES = 256  # users whose vectors the recall of an index is measured with
# What a text is compared by: 10 nearest items of the same topic in a synthetic world of 40 topics
# were .99 within and .97 across services, by contrastive alone .86 and .81, by lexical .98 and .95.
TEXT_BLOCKS = ("contrastive", "lexical")
MOST_WAYS = 4  # other choices of blocks whose vectors are kept at hand


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """The `k` nearest items or users, without the rows in `exclude`.

    `service` restricts items to one service (an index into `Index.services`), `filter` items or
    users to those that it keeps. With `blocks` items are compared by the mean of the cosines of
    these blocks, and else by what ranks them.
    """

    kind: str  # "items" or "users"
    k: int
    exclude: np.ndarray
    service: int | None = None
    filter: Filter | None = None
    blocks: tuple[str, ...] = ()


class Index:
    """Items and users of one generation, searchable by vectors of what `Contents` compares.

    A search for users has a unit vector of `width`, one for items a state of `ranking_width`; where
    `is_cosine` the two are one and the same.

    Each service has a base index of its own, so that "the best of one service" needs no filter and
    "the best of all" merges a few short lists. `choice` says of which structure they are.
    """

    def __init__(self, name: str, contents: Contents, choice: Choice | None = None) -> None:
        """Build the base indexes of checked `contents`."""
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
        self.filters = Filters(contents)
        self.item_blocks = contents.item_block_columns
        self._item_block_vectors = contents.item_blocks
        self._by_content = _Lookup(contents.item_content)
        self._by_key = _Lookup(contents.item_key)
        self._user_vectors = contents.user_vectors
        probes = np.random.default_rng(0).permutation(self.num_users)[:PROBES]
        self._users = _Shard(
            np.arange(self.num_users),
            BaseIndex(contents.user_vectors, choice, contents.user_vectors[probes], probes),
        )
        states = contents.user_vectors if self.is_cosine else contents.user_states
        assert states is not None
        self._choice = choice
        self._ways: dict[tuple[str, ...], list[_Shard]] = {}
        self._ways[()] = self._shards(contents.item_vectors, choice, states[probes])
        if self.item_blocks.keys() >= set(TEXT_BLOCKS):
            self._ways[TEXT_BLOCKS] = self._by_blocks(TEXT_BLOCKS, choice)

    def _shards(
        self, vectors: np.ndarray, choice: Choice | None, probes: np.ndarray | None
    ) -> list["_Shard"]:
        services = [np.flatnonzero(self._item_service == s) for s in range(len(self.services))]
        return [_Shard(rows, BaseIndex(vectors[rows], choice, probes)) for rows in services]

    def _by_blocks(self, blocks: tuple[str, ...], choice: Choice | None) -> list["_Shard"]:
        """Return the items of each service, comparable by the mean cosine of some blocks."""
        vectors = self._item_block_vectors
        assert vectors is not None
        parts = [unit_or_zero(vectors[:, slice(*self.item_blocks[name])]) for name in blocks]
        joined = np.concatenate(parts, axis=1)
        probes = joined[np.random.default_rng(0).permutation(len(joined))[:PROBES]]
        return self._shards(joined, choice, probes / len(blocks))

    def _items_by(self, blocks: tuple[str, ...]) -> list["_Shard"]:
        if blocks not in self._ways:
            # compared whole: a structure for a choice that may not come again is not worth building
            if len(self._ways) > 1 + MOST_WAYS:
                del self._ways[next(b for b in self._ways if b not in ((), TEXT_BLOCKS))]
            self._ways[blocks] = self._by_blocks(blocks, Choice(kind="flat", device="cpu"))
        return self._ways[blocks]

    @classmethod
    def load(cls, out: Path, choice: Choice | None = None) -> "Index":
        """Return the current generation in `out`; raises as `generation.read` does."""
        return cls(*read(out), choice)

    @property
    def built(self) -> dict[str, Built]:
        """What the base indexes are: of "users", of each service's items, and of these by text."""
        shards = {"users": self._users}
        for blocks, by in (((), ""), (TEXT_BLOCKS, " by text")):
            of_services = zip(self.services, self._ways.get(blocks, []), strict=False)
            shards |= {f"items of {name}{by}": shard for name, shard in of_services}
        return {name: shard.base.built for name, shard in shards.items()}

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
        groups: dict[tuple[object, ...], list[int]] = {}  # searches of one batch
        for n, search in enumerate(searches):
            key = (search.kind, search.blocks, search.service, search.filter)
            groups.setdefault(key, []).append(n)
        for group in groups.values():
            first = searches[group[0]]
            mask = None if first.filter is None else self.filters.mask(first.filter)
            queries = np.stack([vectors[n] for n in group])
            for shard in self._read_by(first):
                hits = shard.nearest(queries, [searches[n] for n in group], mask)
                for n, own in zip(group, hits, strict=True):
                    parts[n].append(own)
        return [_best(own, search.k) for own, search in zip(parts, searches, strict=True)]

    def _read_by(self, search: Search) -> list["_Shard"]:
        if search.kind == "users":
            return [self._users]
        shards = self._items_by(search.blocks)
        return shards if search.service is None else [shards[search.service]]

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
        return self._user_vectors[row]

    def user_state(self, row: int) -> np.ndarray:
        """Return the vector (ranking_width,) by which items rank for a user row."""
        return self.user_vector(row) if self._user_states is None else self._user_states[row]

    def seen_by(self, row: int) -> np.ndarray:
        """Return the item rows in a user's history."""
        return self._seen_values[self._seen_offsets[row] : self._seen_offsets[row + 1]]

    def seen_in(self, row: int, service: int) -> np.ndarray:
        """Return the item rows of a user's history in a service, oldest first."""
        seen = self.seen_by(row)
        return seen[self._item_service[seen] == service]

    def rows_from(self, prefix: str, limit: int) -> range:
        """Return the rows of the `limit` users from the first id on that is not below `prefix`."""
        first = bisect_left(range(self.num_users), prefix, key=self.user_id)
        return range(first, min(first + limit, self.num_users))

    @cached_property
    def map(self) -> PopulationMap:
        """The users on two axes."""
        return map_of(self._user_vectors)

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

    def width_of(self, search: Search) -> int:
        """Return the width of the query that a search compares."""
        if search.kind == "users":
            return self.width
        columns = [self.item_blocks[name] for name in search.blocks]
        return sum(stop - start for start, stop in columns) if columns else self.ranking_width

    def _require(self, vector: np.ndarray, search: Search) -> None:
        width = self.width_of(search)
        if vector.shape != (width,) or vector.dtype != np.float32:
            raise ValueError(
                f"a search for {search.kind} needs float32 ({width},), "
                f"got {vector.dtype} {vector.shape}"
            )
        cosine = search.kind == "users" or (self.is_cosine and not search.blocks)
        if not (is_unit(vector) if cosine else np.isfinite(vector)).all():
            length = " or not of length one; normalise it" if cosine else ""
            raise ValueError(f"a query vector is not finite{length}")
        if search.k < 1:
            raise ValueError(f"k is at least 1, got {search.k}")


def unit_or_zero(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of (n, E) at unit length; zero ones, which have no direction, stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


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
    """Some rows, ascending, and the base index of their vectors."""

    def __init__(self, rows: np.ndarray, base: BaseIndex) -> None:
        self.rows = rows
        self.base = base

    def nearest(
        self, queries: np.ndarray, searches: Sequence[Search], mask: np.ndarray | None
    ) -> list[Hits]:
        """Return the hits of searches under one mask, rows numbered as the index does."""
        if not len(self.rows):
            return [Hits(self.rows, np.empty(0, np.float32)) for _ in searches]
        allowed = None if mask is None else mask[self.rows]
        excluded = [self._own(search.exclude) for search in searches]
        most = max(search.k for search in searches)
        hits = self.base.search(queries, most, excluded, allowed)
        return [Hits(self.rows[each.rows], each.scores) for each in hits]

    def _own(self, rows: np.ndarray) -> np.ndarray:
        positions = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return positions[self.rows[positions] == rows]


def _best(parts: Sequence[Hits], k: int) -> Hits:
    rows = np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)])
    scores = np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)])
    order = np.lexsort((rows, -scores))[:k]
    return Hits(rows[order], scores[order])
