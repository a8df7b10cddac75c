"""A generation whose vectors Milvus searches. The items' names and texts are in this process."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clue.evaluation.encode import normalised
from clue.inference.encoder import Encoder
from serving.base_index import Built, Hits
from serving.catalogue import Catalogue
from serving.contents import BrokenIndex
from serving.filters import UserFilter
from serving.milvus.asks import MOST_HITS, Asks
from serving.milvus.link import done
from serving.milvus.tables import (
    BOUNDED,
    STRONG,
    Record,
    Tables,
    key_of,
    user_row,
)
from serving.population import MOST_SHOWN, PopulationMap, map_of
from serving.rows import StoredUser, StoredVector, events_by_service
from serving.vectors import KnownUser, Search, require

MOST_LISTED = 4096  # keys in an expression; where more remain, more is fetched and sifted here
# Searches are at the level Bounded, which may miss the writes of the last five seconds: Strong
# waits for Milvus's next time tick, .2 s by default. Who was written is the delta's for so long;
# whom another process wrote a moment before this one began is not, so it begins with Strong.
HOLD_SECONDS = 10.0


class MilvusIndex:
    """See `Vectors`: here it is what users and items of one generation Milvus holds."""

    remote = True

    def __init__(
        self, tables: Tables, catalogue: Catalogue, *, hold_seconds: float = HOLD_SECONDS
    ) -> None:
        """Read the record; raises BrokenIndex where Milvus has not the vectors of this model."""
        self._tables, self._link, self.catalogue = tables, tables.link, catalogue
        self._hold_seconds = hold_seconds
        self._asks, self._opened = Asks(tables, catalogue), time.monotonic()
        self._map: PopulationMap | None = None
        self._record = self._checked()
        self._written: list[tuple[float, int]] = []  # when the record said which write, ascending
        self._settled = self._record.store_seq

    def _checked(self) -> Record:
        record, catalogue = self._tables.record(self.catalogue.name), self.catalogue
        if record is None:
            raise BrokenIndex(
                "Milvus has not this generation; python -m serving.milvus.publish brings it there"
            )
        if record.model_fingerprint != catalogue.model_fingerprint:
            raise BrokenIndex("Milvus has vectors of another model for this generation; publish it")
        if record.num_items != catalogue.num_items:
            raise BrokenIndex("Milvus has other items for this generation; publish it")
        return record

    @property
    def store(self) -> str:
        """The store that wrote some of its users, "" for none."""
        return self._record.store

    @property
    def store_seq(self) -> int:
        """The last write of the store that is in it."""
        return self._record.store_seq

    @property
    def num_users(self) -> int:
        """How many users it had when it was published."""
        return self._record.num_users

    @property
    def num_left_out(self) -> int:
        """0: Milvus itself removes the dead."""
        return 0

    @property
    def built(self) -> Mapping[str, Built]:
        """What Milvus searches by, and the recall that was measured when it was published."""
        record, catalogue = self._record, self.catalogue
        sizes = {
            "users": (record.num_users, catalogue.width),
            "items": (record.num_items, catalogue.ranking_width),
        }
        return {
            what: Built(
                kind=f"milvus {record.kind}",
                rows=rows,
                width=width,
                bytes=0,
                effort=record.effort,
                recall=record.recall.get(what),
            )
            for what, (rows, width) in sizes.items()
        }

    def nearest_items(
        self, queries: Sequence[np.ndarray], searches: Sequence[Search]
    ) -> list[Hits]:
        """Return for each query the item rows of the search beside it; see `Vectors`."""
        require(queries, searches, self.catalogue)
        return [
            self._nearest(query, search) for query, search in zip(queries, searches, strict=True)
        ]

    def nearest_users(
        self,
        queries: Sequence[np.ndarray],
        searches: Sequence[Search],
        without: Sequence[str | None],
        left_out: tuple[str, ...],
    ) -> list[list[tuple[str, float]]]:
        """Return for each query the nearest users; see `Vectors`."""
        require(queries, searches, self.catalogue)
        made: list[list[tuple[str, float]]] = []
        for query, search, own in zip(queries, searches, without, strict=True):
            gone = {*left_out, *(() if own is None else (own,))}
            terms = _user_terms(search)
            deep = min(MOST_HITS, search.k + len(gone))
            if len(gone) > MOST_LISTED or search.k + len(gone) > MOST_HITS:
                terms.append(f"id not in {_listed(map(key_of, gone))}")
                deep = min(MOST_HITS, search.k)
            hits = self._asks.users(query, terms, deep, **self._how(deep))
            kept = [hit for hit in hits if hit[0] not in gone]
            made.append(sorted(kept, key=lambda hit: (-hit[1], hit[0]))[: search.k])
        return made

    def user(self, user_id: str) -> KnownUser | None:
        """Return what is known of a user, None of one it does not hold."""

        keys = [key_of(user_id)]
        known = self._asks.known("get", ids=keys, consistency_level=STRONG)
        return next((user for user in known if user.user_id == user_id), None)

    def ids_from(self, prefix: str, limit: int) -> list[str]:
        """Return at most `limit` ids that begin with `prefix`, ascending."""
        least = key_of(prefix)
        return sorted(self._asks.ids(f'id >= "{least}" and id < "{least}g"', limit))

    def some_users(self, limit: int) -> list[KnownUser]:
        """Return at most `limit` users, those with events in several services first."""
        known = self._asks.known("query", filter="num_services > 1", limit=limit)
        if len(known) < limit:
            left = limit - len(known)
            known += self._asks.known("query", filter="num_services <= 1", limit=left)
        return known

    def map(self) -> PopulationMap:
        """Return a map of the users that Milvus returns first."""
        if self._map is None:
            known = self._asks.known("query", filter='id >= ""', limit=MOST_SHOWN)
            vectors = [user.vector for user in known]
            self._map = map_of(np.array(vectors, np.float32).reshape(-1, self.catalogue.width))
        return self._map

    def leave_out(self, user_id: str) -> None:
        """Do nothing: `left_out` is given all of them."""

    def left_out(self, written: Collection[str]) -> tuple[str, ...]:
        """Return them all."""
        return tuple(written)

    def refresh(self) -> None:
        """Read the record again: another worker has perhaps had it take in what the store holds."""
        record = self._checked()
        if record.store_seq < self._record.store_seq:  # read before this process wrote it
            return
        now = time.monotonic()
        if record.store_seq > max((seq for _, seq in self._written), default=self._settled):
            self._written.append((now, record.store_seq))
        while self._written and self._written[0][0] <= now - self._hold_seconds:
            self._settled = self._written.pop(0)[1]
        self._record = record

    @property
    def settled(self) -> int:
        """The last write of the store that every search sees."""
        return self._settled

    def take_in(
        self,
        changes: Sequence[tuple[StoredUser, StoredVector | None]],
        encoder: Encoder,
        store: str,
    ) -> None:
        """Write the next changes of a store, and then up to which write they are.

        One process alone may: an older write after a newer one would undo it.
        """
        services = self.catalogue.services
        rows: list[dict[str, Any]] = []
        gone: list[str] = []
        dead: list[str] = []
        for user, made in changes:
            if user.events is None:
                dead.append(user.user_id)
            elif made is None or not len(made.vector):  # of whom the model reads nothing
                gone.append(user.user_id)
            else:
                counts = events_by_service(user.events, services)
                unit = normalised(made.vector[None, encoder.similarity_columns])[0]
                state = unit if self.catalogue.is_cosine else made.vector[encoder.ranking_columns]
                rows.append(user_row(user.user_id, unit, state, np.empty(0, np.int32), counts))
        if rows:
            self._link.call("upsert", self._tables.users(self.catalogue.name), rows, read=done)
        self._tables.forget([self.catalogue.name], [*gone, *dead])
        others = [name for name in self._tables.names() if name != self.catalogue.name]
        self._tables.forget(others, dead)
        last = max(user.seq for user, _ in changes)
        self._record = replace(self._record, store=store, store_seq=last)
        self._tables.note(self.catalogue.name, self._record)

    def _nearest(self, query: np.ndarray, search: Search) -> Hits:
        """Fetch deeper until `k` rows are left that the search allows, or there are no more."""
        allowed = self._allowed(search)
        room = int(np.count_nonzero(allowed))
        field, vector = self._compared(query, search)
        wanted = min(search.k, room)
        if not wanted:
            return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
        terms = [] if search.service is None else [f"service == {search.service}"]
        deep = wanted + len(search.exclude)
        while search.filter is None or room > MOST_LISTED:
            deep = min(deep, MOST_HITS)
            hits = self._asks.items(field, vector, terms, deep, **self._how(deep))
            kept = [hit for hit in hits if allowed[hit[0]]]
            if len(kept) >= wanted or len(hits) < deep:
                return _sorted(kept, search.k)
            if deep == MOST_HITS:
                break
            deep *= 4
        terms, deep = [f"row in {np.flatnonzero(allowed).tolist()}"], min(wanted, MOST_HITS)
        hits = self._asks.items(field, vector, terms, deep, **self._how(deep))
        return _sorted(hits, search.k)

    def _allowed(self, search: Search) -> np.ndarray:
        catalogue = self.catalogue
        allowed = np.ones(catalogue.num_items, bool)
        if search.filter is not None:
            allowed &= catalogue.filters.mask(search.filter)
        if search.service is not None:
            allowed &= catalogue.item_service == search.service
        allowed[search.exclude] = False
        return allowed

    def _compared(self, query: np.ndarray, search: Search) -> tuple[str, np.ndarray]:
        """Return which vectors of items a query is compared with, and the query as wide as they."""
        if not search.blocks:
            return "ranking", query
        columns = self.catalogue.item_blocks
        whole = np.zeros(max(stop for _, stop in columns.values()), np.float32)
        start = 0
        for name in search.blocks:  # the columns of all others add nothing to the product
            first, stop = columns[name]
            whole[first:stop] = query[start : start + stop - first]
            start += stop - first
        return "blocks", whole

    def _how(self, limit: int) -> dict[str, Any]:
        """Return how much a search may miss, of the graph and of the latest writes."""
        young = time.monotonic() < self._opened + self._hold_seconds
        how: dict[str, Any] = {"consistency_level": STRONG if young else BOUNDED}
        if self._record.kind == "HNSW":
            how["search_params"] = {"params": {"ef": max(self._record.effort, limit)}}
        return how


def _user_terms(search: Search) -> list[str]:
    wanted = search.filter
    if not isinstance(wanted, UserFilter):
        return []
    terms = [f"num_events >= {wanted.min_events}"] if wanted.min_events > 0 else []
    if wanted.services:
        terms.append(f"array_contains_all(services, {list(wanted.services)})")
    return terms


def _listed(keys: Any) -> str:
    return "[" + ", ".join(f'"{key}"' for key in keys) + "]"


def _sorted(hits: Sequence[tuple[int, float]], k: int) -> Hits:
    rows = np.array([row for row, _ in hits], np.int64)
    scores = np.array([score for _, score in hits], np.float32)
    order = np.lexsort((rows, -scores))[:k]
    return Hits(rows[order], scores[order])
