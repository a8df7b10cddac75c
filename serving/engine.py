"""What the model thread does with a batch: encode all its users at once, then search."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import faiss
import numpy as np
import torch

from clue.evaluation.encode import normalised
from clue.inference.encoder import Encoder
from clue.inference.events import Described, text_of
from serving.base_index import Hits
from serving.contents import is_unit
from serving.delta import Delta
from serving.precision import FP32, Precision, computing
from serving.problems import invalid
from serving.vectors import Search, Vectors, unit_or_zero

# A search of 200,000 vectors costs about as much as encoding this many tokens.
SEARCH_TOKENS = 64

# (service, text or item id, or a mapping of all that is known of the event), oldest first
History = Sequence[tuple[str, Described]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Query:
    """Users to encode, or one `vector` of what the index compares, and a search with the first.

    `as_of` are the users' moments, infinite or none for that of the last event. Instead of users it
    may be an `item` that is searched with: its text, and the service that it is of, if one.
    `without` is a user to leave out of the users nearest to them.
    """

    histories: Sequence[History] = ()
    as_of: Sequence[float] = ()
    vector: np.ndarray | None = None
    item: tuple[str, str | None] | None = None
    search: Search | None = None
    without: str | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The vectors (n, E) of the query's users, and the hits when it searched.

    A search for items gives `hits`, one for users `users`, their ids and scores, best first.
    `started` is when its batch was begun (perf_counter), `seconds` what each stage of it took.
    `sought` is what is still to be searched with, where the vectors are on another machine.
    """

    vectors: np.ndarray
    hits: Hits | None = None
    users: Sequence[tuple[str, float]] | None = None
    started: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    sought: np.ndarray | None = None


class BadVector(RuntimeError):
    """The model gave a vector that is none: a fault, never an answer.

    It is not finite or, without blocks, not of length one.
    """


class Engine:
    """The frozen encoder, the index made with it, and the users written since.

    One thread alone, that of the model, may call `run`. `stamp` is what every answer says about its
    origin: all that it holds comes from this model and this generation.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: Vectors,
        *,
        threads: int,
        delta: Delta | None = None,
        precision: Precision = FP32,
    ) -> None:
        """`threads` bounds what one encode and one search may use."""
        self.encoder = encoder
        self.index = index
        self.delta = Delta(encoder, index, after=0) if delta is None else delta
        self.precision = precision
        self.stamp: dict[str, str] = {"model": encoder.fingerprint, "index": index.catalogue.name}
        self._threads = threads

    def run(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        """Return the answer of each query; BadVector stands for one whose vector is none."""
        # FAISS and torch keep this setting per thread, and this is the thread that counts.
        faiss.omp_set_num_threads(self._threads)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        started = time.perf_counter()
        with computing(self.precision):
            vectors = self._vectors(queries)
        encoded = time.perf_counter()
        good = [self._is_good(own) for own in vectors]
        firsts = {
            n: searched(self.encoder, vectors[n][0], query.search.kind, query.search.blocks)
            if query.vector is None
            else vectors[n][0]
            for n, query in enumerate(queries)
            if good[n] and query.search
        }
        blank = {  # such as the aligned block of a user of unknown services
            n
            for n, first in firsts.items()
            if (search := queries[n].search) and search.blocks and not first.any()
        }
        sound = {n: first for n, first in firsts.items() if n not in blank}
        # another machine is not waited for on this thread
        here, later = ({}, sound) if self.index.remote else (sound, {})
        items, users = self._items(queries, here), self._users(queries, here)
        seconds = {"encode": encoded - started}
        if here:
            seconds["search"] = time.perf_counter() - encoded
        # one exception a query: each raise of a shared one would lengthen its traceback
        return [
            BadVector("the model gave a vector that is not finite and of length one")
            if not good[n]
            else invalid([("/blocks", "are zero for what is searched with; leave blocks out")])
            if n in blank
            else Answer(own, items.get(n), users.get(n), started, seconds, later.get(n))
            for n, own in enumerate(vectors)
        ]

    def search(
        self, query: Query, sought: np.ndarray
    ) -> tuple[Hits | None, Sequence[tuple[str, float]] | None]:
        """Return the hits and the users of one query, of which one is None; for any thread.

        Raises VectorsAway where another machine has them and does not answer.
        """
        one = {0: sought}
        return self._items([query], one).get(0), self._users([query], one).get(0)

    def samples(self, tokens: int) -> list[Query]:
        """Return queries of the smallest and of the largest shape: one event, and full histories.

        Those of the largest have about so many `tokens` together. The first encode of each is slow.
        """
        encoder = self.encoder
        catalogue = self.index.catalogue
        items = [catalogue.item(row) for row in range(min(catalogue.num_items, 4096))]
        events = [
            (service, item_id if encoder.reads == "item_id" else text)
            for item_id, service, text in items
        ]
        least = Query(histories=[events[:1]])
        full = [events[n % len(events)] for n in range(encoder.max_events)]
        count = tokens // cost_of(Query(histories=[full]), encoder)
        return [least, Query(histories=[full] * max(1, count))]

    def _items(
        self, queries: Sequence[Query], vectors: Mapping[int, np.ndarray]
    ) -> dict[int, Hits]:
        """Return the items nearest to each of `vectors`, by the query's number."""
        searches = {n: search for n in vectors if (search := queries[n].search)}
        wanted = [n for n, search in searches.items() if search.kind == "items"]
        if not wanted:
            return {}
        nearest = self.index.nearest_items(
            [vectors[n] for n in wanted], [searches[n] for n in wanted]
        )
        return dict(zip(wanted, nearest, strict=True))

    def _users(
        self, queries: Sequence[Query], vectors: Mapping[int, np.ndarray]
    ) -> dict[int, list[tuple[str, float]]]:
        """Return the users nearest to each of `vectors`, of the base and of the delta together."""
        searches = {n: search for n in vectors if (search := queries[n].search)}
        wanted = [n for n, search in searches.items() if search.kind == "users"]
        if not wanted:
            return {}
        sought, own = [vectors[n] for n in wanted], [searches[n] for n in wanted]
        without = [queries[n].without for n in wanted]
        seen = self.delta.seen(np.stack(sought), own, without)
        base = self.index.nearest_users(sought, own, without, seen.left_out)
        return {
            n: merged(known, written, searches[n].k)
            for n, known, written in zip(wanted, base, seen.nearest, strict=True)
        }

    def _is_good(self, vectors: np.ndarray) -> bool:
        check = np.isfinite if self.encoder.blocks else is_unit
        return bool(check(vectors).all())

    def _vectors(self, queries: Sequence[Query]) -> list[np.ndarray]:
        users = [history for query in queries for history in query.histories]
        as_of = [
            moment for query in queries for moment in query.as_of or [np.inf] * len(query.histories)
        ]
        encoded = np.empty((0, 0), np.float32)
        if users:
            encoded = self.encoder.encode_events(users, as_of=as_of)
        vectors: list[np.ndarray] = []
        start = 0
        for query in queries:
            if query.vector is not None:
                vectors.append(query.vector[None])
                continue
            if query.item is not None:
                text, service = query.item
                vectors.append(self.encoder.encode_items([text], service=service))
                continue
            vectors.append(encoded[start : start + len(query.histories)])
            start += len(query.histories)
        return vectors


def run_all(work: Sequence[tuple[Engine, Query]]) -> list[Answer | Exception]:
    """Return the answer of each query by its own engine: while one gives way to the next, both."""
    answers: dict[int, Answer | Exception] = {}
    for engine in dict.fromkeys(engine for engine, _ in work):
        numbers = [n for n, (own, _) in enumerate(work) if own is engine]
        answers |= zip(numbers, engine.run([work[n][1] for n in numbers]), strict=True)
    return [answers[n] for n in range(len(work))]


def merged(
    base: Sequence[tuple[str, float]], written: Sequence[tuple[str, float]], k: int
) -> list[tuple[str, float]]:
    """Return the k best of both, (id, score), equal scores by id."""
    return sorted([*base, *written], key=lambda hit: (-hit[1], hit[0]))[:k]


def searched(
    encoder: Encoder, vector: np.ndarray, kind: str, blocks: Sequence[str] = ()
) -> np.ndarray:
    """Return the part of a vector (E,) that a search for "items" or "users" compares.

    Items of `blocks` are compared by the mean of their cosines. Users are compared by the cosine of
    all similarity columns, or of `blocks` among them: the others of the query are zero.
    """
    if kind == "items":
        if not blocks:
            return vector[encoder.ranking_columns]
        parts = [unit_or_zero(vector[encoder.blocks[name]]) for name in blocks]
        return np.concatenate(parts) / np.float32(len(parts))
    if blocks:
        kept = np.zeros_like(vector)
        for name in blocks:
            kept[encoder.blocks[name]] = vector[encoder.blocks[name]]
        vector = kept
    return normalised(vector[None, encoder.similarity_columns])[0]


def is_comparable(encoder: Encoder, vector: np.ndarray) -> bool:
    """Return whether a vector (E,) has a direction in the columns that compare users."""
    return bool(np.isfinite(vector).all() and is_unit(searched(encoder, vector, "users")))


def chosen(
    vectors: np.ndarray, blocks: Mapping[str, slice], names: Sequence[str] | None
) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """Return the `names` among the blocks of vectors (n, E), all without, and their columns."""
    if names is None:
        return vectors, columns_of(blocks)
    parts = {name: vectors[:, columns] for name, columns in blocks.items() if name in names}
    ends = np.cumsum([part.shape[1] for part in parts.values()]).tolist()
    places = zip(parts, [0, *ends], ends, strict=False)
    whole = np.concatenate(list(parts.values()), axis=1)
    return whole, {name: (start, stop) for name, start, stop in places}


def columns_of(blocks: Mapping[str, slice]) -> dict[str, tuple[int, int]]:
    """Return the first column of each block and the one after its last."""
    return {name: (columns.start, columns.stop) for name, columns in blocks.items()}


def cost_of(query: Query, encoder: Encoder) -> int:
    """Estimate a query's work in tokens; byte-level BPE makes a token of about four bytes.

    An item id is one token.
    """
    most = 1 if encoder.reads == "item_id" else encoder.max_item_tokens
    read = (text_of(event) for history in query.histories for _, event in history)
    tokens = sum(min(1 + len(what) // 4, most) for what in read)
    tokens += 0 if query.item is None else min(1 + len(query.item[0]) // 4, most)
    return tokens + (SEARCH_TOKENS if query.search else 0)
