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
from serving.generation import is_unit
from serving.index import Index, Search, unit_or_zero
from serving.problems import invalid

# A search of 200,000 vectors costs about as much as encoding this many tokens.
SEARCH_TOKENS = 64

# (service, text or item id, or a mapping of all that is known of the event), oldest first
History = Sequence[tuple[str, Described]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Query:
    """Users to encode, or one `vector` of what the index compares, and a search with the first.

    `as_of` are the users' moments, infinite or none for that of the last event. Instead of users it
    may be an `item` that is searched with: its text, and the service that it is of, if one.
    """

    histories: Sequence[History] = ()
    as_of: Sequence[float] = ()
    vector: np.ndarray | None = None
    item: tuple[str, str | None] | None = None
    search: Search | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The vectors (n, E) of the query's users, and the hits when it searched.

    `started` is when its batch was begun (perf_counter), `seconds` what each stage of it took.
    """

    vectors: np.ndarray
    hits: Hits | None
    started: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])


class BadVector(RuntimeError):
    """The model gave a vector that is none: a fault, never an answer.

    It is not finite or, without blocks, not of length one.
    """


class Engine:
    """The frozen encoder and the index made with it. Only the model thread may call `run`."""

    def __init__(self, encoder: Encoder, index: Index, *, threads: int) -> None:
        """`threads` bounds what one encode and one search may use."""
        self.encoder = encoder
        self.index = index
        self._threads = threads

    def run(self, queries: Sequence[Query]) -> list[Answer | Exception]:
        """Return the answer of each query; BadVector stands for one whose vector is none."""
        # FAISS and torch keep this setting per thread, and this is the thread that counts.
        faiss.omp_set_num_threads(self._threads)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        started = time.perf_counter()
        vectors = self._vectors(queries)
        encoded = time.perf_counter()
        good = [self._is_good(own) for own in vectors]
        wanted = [(n, query.search) for n, query in enumerate(queries) if good[n] and query.search]
        firsts = [
            searched(self.encoder, vectors[n][0], search.kind, search.blocks)
            if queries[n].vector is None
            else vectors[n][0]
            for n, search in wanted
        ]
        hits: dict[int, Hits] = {}
        blank = {  # such as the aligned block of a user of unknown services
            n
            for (n, search), first in zip(wanted, firsts, strict=True)
            if search.blocks and not first.any()
        }
        pairs = zip(wanted, firsts, strict=True)
        sound = [(n, search, first) for (n, search), first in pairs if n not in blank]
        if sound:
            nearest = self.index.search([f for _, _, f in sound], [s for _, s, _ in sound])
            hits = {n: hit for (n, _, _), hit in zip(sound, nearest, strict=True)}
        seconds = {"encode": encoded - started}
        if wanted:
            seconds["search"] = time.perf_counter() - encoded
        # one exception a query: each raise of a shared one would lengthen its traceback
        return [
            BadVector("the model gave a vector that is not finite and of length one")
            if not good[n]
            else invalid([("/blocks", "are zero for what is searched with; leave blocks out")])
            if n in blank
            else Answer(own, hits.get(n), started, seconds)
            for n, own in enumerate(vectors)
        ]

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
