"""What the model thread does with a batch: encode all its users at once, then search."""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import torch

from clue.inference.encoder import Encoder
from serving.generation import is_unit
from serving.index import Hits, Index, Search

# A search of 200,000 vectors costs about as much as encoding this many tokens.
SEARCH_TOKENS = 64

History = Sequence[tuple[str, str]]  # (service, text or item id), oldest first


@dataclass(frozen=True, eq=False, kw_only=True)
class Query:
    """Users to encode or one ready unit vector (E,), and what to search with the first vector."""

    histories: Sequence[History] = ()
    vector: np.ndarray | None = None
    search: Search | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """Unit vectors (n, E) of the query's users, and the hits when it searched."""

    vectors: np.ndarray
    hits: Hits | None


class BadVector(RuntimeError):
    """The model gave a vector that is not finite and of length one: a fault, never an answer."""


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
        vectors = self._vectors(queries)
        good = [bool(is_unit(own).all()) for own in vectors]
        wanted = [(n, query.search) for n, query in enumerate(queries) if good[n] and query.search]
        hits: dict[int, Hits] = {}
        if wanted:
            firsts = np.stack([vectors[n][0] for n, _ in wanted])
            hits_of_all = self.index.search(firsts, [search for _, search in wanted])
            hits = {n: hit for (n, _), hit in zip(wanted, hits_of_all, strict=True)}
        # one exception a query: each raise of a shared one would lengthen its traceback
        return [
            Answer(own, hits.get(n))
            if good[n]
            else BadVector("the model gave a vector that is not finite and of length one")
            for n, own in enumerate(vectors)
        ]

    def _vectors(self, queries: Sequence[Query]) -> list[np.ndarray]:
        users = [history for query in queries for history in query.histories]
        encoded = self.encoder.encode_events(users) if users else np.empty((0, 0), np.float32)
        vectors: list[np.ndarray] = []
        start = 0
        for query in queries:
            if query.vector is not None:
                vectors.append(query.vector[None])
                continue
            vectors.append(encoded[start : start + len(query.histories)])
            start += len(query.histories)
        return vectors


def cost_of(query: Query, encoder: Encoder) -> int:
    """Estimate a query's work in tokens; byte-level BPE makes a token of about four bytes.

    An item id is one token.
    """
    most = 1 if encoder.reads == "item_id" else encoder.max_item_tokens
    read = (what for history in query.histories for _, what in history)
    tokens = sum(min(1 + len(what) // 4, most) for what in read)
    return tokens + (SEARCH_TOKENS if query.search else 0)
