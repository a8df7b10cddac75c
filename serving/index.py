"""The vectors of a generation in this process. FAISS is kept in; torch is kept out."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from serving.base_index import BaseIndex, Built, Choice, Hits
from serving.catalogue import TEXT_BLOCKS, Catalogue
from serving.contents import Contents
from serving.generation import read
from serving.population import PopulationMap, map_of
from serving.vectors import KnownUser, Search, require, unit_or_zero

PROBES = 256  # users whose vectors the recall of an index is measured with
MOST_WAYS = 4  # other choices of blocks whose vectors are kept at hand


class Index:
    """Items and users of one generation, searchable by vectors of what `Contents` compares.

    Each service has a base index of its own, so that "the best of one service" needs no filter and
    "the best of all" merges a few short lists. `choice` says of which structure they are.
    """

    remote = False

    def __init__(self, name: str, contents: Contents, choice: Choice | None = None) -> None:
        """Build the base indexes of checked `contents`."""
        self.catalogue = Catalogue(name, contents)
        self.num_users = len(contents.user_ids)
        self.store, self.store_seq = contents.store, contents.store_seq
        self._user_ids = contents.user_ids
        self._user_states = contents.user_states
        self._seen_values = contents.seen_values
        self._seen_offsets = contents.seen_offsets
        self._item_block_vectors = contents.item_blocks
        self._user_vectors = contents.user_vectors
        self._alive = np.ones(self.num_users, bool)
        probes = np.random.default_rng(0).permutation(self.num_users)[:PROBES]
        self._users = _Shard(
            np.arange(self.num_users),
            BaseIndex(contents.user_vectors, choice, contents.user_vectors[probes], probes),
        )
        states = contents.user_vectors if self.catalogue.is_cosine else contents.user_states
        assert states is not None
        self._choice = choice
        self._map: PopulationMap | None = None
        self._ways: dict[tuple[str, ...], list[_Shard]] = {}
        self._ways[()] = self._shards(contents.item_vectors, choice, states[probes])
        if self.catalogue.item_blocks.keys() >= set(TEXT_BLOCKS):
            self._ways[TEXT_BLOCKS] = self._by_blocks(TEXT_BLOCKS, choice)

    def _shards(
        self, vectors: np.ndarray, choice: Choice | None, probes: np.ndarray | None
    ) -> list["_Shard"]:
        of_item, services = self.catalogue.item_service, self.catalogue.services
        shards = [np.flatnonzero(of_item == s) for s in range(len(services))]
        return [_Shard(rows, BaseIndex(vectors[rows], choice, probes)) for rows in shards]

    def _by_blocks(self, blocks: tuple[str, ...], choice: Choice | None) -> list["_Shard"]:
        """Return the items of each service, comparable by the mean cosine of some blocks."""
        vectors = self._item_block_vectors
        assert vectors is not None
        columns = self.catalogue.item_blocks
        parts = [unit_or_zero(vectors[:, slice(*columns[name])]) for name in blocks]
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
            of_services = zip(self.catalogue.services, self._ways.get(blocks, []), strict=False)
            shards |= {f"items of {name}{by}": shard for name, shard in of_services}
        return {name: shard.base.built for name, shard in shards.items()}

    def nearest_items(
        self, queries: Sequence[np.ndarray], searches: Sequence[Search]
    ) -> list[Hits]:
        """Return for each query the item rows of the search beside it; see `Vectors`."""
        return self.search(queries, searches)

    def nearest_users(
        self,
        queries: Sequence[np.ndarray],
        searches: Sequence[Search],
        without: Sequence[str | None],
        left_out: np.ndarray,
    ) -> list[list[tuple[str, float]]]:
        """Return for each query the nearest users; see `Vectors`."""
        rows = [None if user_id is None else self.user_row(user_id) for user_id in without]
        own = [
            replace(search, exclude=left_out if row is None else np.union1d(left_out, [row]))
            for search, row in zip(searches, rows, strict=True)
        ]
        return [
            [
                (self.user_id(row), score)
                for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)
            ]
            for hits in self.search(queries, own)
        ]

    def search(self, queries: Sequence[np.ndarray], searches: Sequence[Search]) -> list[Hits]:
        """Return for each query the rows, of items or users, of the search beside it.

        Without those in its `exclude`. A result is shorter than `k` only when fewer remain. Raises
        ValueError as `require` does.
        """
        require(queries, searches, self.catalogue)
        parts: list[list[Hits]] = [[] for _ in searches]
        groups: dict[tuple[object, ...], list[int]] = {}  # searches of one batch
        for n, search in enumerate(searches):
            key = (search.kind, search.blocks, search.service, search.filter)
            groups.setdefault(key, []).append(n)
        for group in groups.values():
            first = searches[group[0]]
            mask = None if first.filter is None else self.catalogue.filters.mask(first.filter)
            together = np.stack([queries[n] for n in group])
            for shard in self._read_by(first):
                hits = shard.nearest(together, [searches[n] for n in group], mask)
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

    def user(self, user_id: str) -> KnownUser | None:
        """Return what is known of a user, None of one the index does not hold."""
        row = self.user_row(user_id)
        return None if row is None else self._known(row)

    def _known(self, row: int) -> KnownUser:
        vector = self._user_vectors[row]
        return KnownUser(
            user_id=self.user_id(row),
            vector=vector,
            state=vector if self._user_states is None else self._user_states[row],
            seen=self._seen_values[self._seen_offsets[row] : self._seen_offsets[row + 1]],
            events=self.catalogue.filters.events_of(row),
        )

    def ids_from(self, prefix: str, limit: int) -> list[str]:
        """Return the first `limit` ids that begin with `prefix`, ascending."""
        first = bisect_left(range(self.num_users), prefix, key=self.user_id)
        ids = (self.user_id(row) for row in range(first, min(first + limit, self.num_users)))
        return [user_id for user_id in ids if user_id.startswith(prefix)]

    def some_users(self, limit: int) -> list[KnownUser]:
        """Return `limit` users, those with events in several services first: always the same."""
        drawn = np.random.default_rng(0).permutation(self.num_users)[: 20 * limit]
        events_of = self.catalogue.filters.events_of
        several = np.array([np.count_nonzero(events_of(row)) for row in drawn])
        rows = np.sort(drawn[np.argsort(-several, kind="stable")][:limit])
        return [self._known(row) for row in rows.tolist()]

    def leave_out(self, user_id: str) -> None:
        """Keep a user out of what is nearest from now on."""
        row = self.user_row(user_id)
        if row is not None:
            self._alive[row] = False

    def left_out(self, written: Collection[str]) -> np.ndarray:
        """Return the rows of those who are left out, whom a generation in memory never takes in."""
        return np.flatnonzero(~self._alive)

    @property
    def num_left_out(self) -> int:
        """How many users are left out."""
        return len(self._alive) - int(self._alive.sum())

    def map(self) -> PopulationMap:
        """Return the users on two axes."""
        if self._map is None:
            self._map = map_of(self._user_vectors)
        return self._map


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
