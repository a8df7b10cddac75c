"""The base index: the nearest of a fixed set of vectors, by inner product, whatever their number.

What is promised does not depend on the structure below: k results or all that there are, scores
from the vectors themselves, the best first and equal ones by row. The structure only finds
candidates, and its recall is measured when it is built.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np

from serving import gpu
from serving.structures import AnyKind, CpuStructure, Structure, chosen_by_size

log = logging.getLogger("clue.serving")

AUTO = "auto"
Device = Literal["auto", "cpu", "cuda"]
# Rows that pass a filter are gathered and compared one by one up to this many: 3 ms of one core at
# width 256, less than a filtered search of a graph or of many lists costs.
MOST_GATHERED = 20_000
RECALL_AT = 10


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What an operator may say of the structure: its kind, where, and the least recall@10.

    With "auto" the number of vectors decides, and a GPU is used where FAISS has one.
    """

    kind: AnyKind = AUTO
    device: Device = AUTO
    recall: float = 0.99


@dataclass(frozen=True, kw_only=True)
class Built:
    """What was built: kind, vectors, bytes beside them, and what a search spends for what recall.

    `effort` is nprobe or efSearch, 0 where nothing is left out; `recall` is recall@10 against the
    exact search on real queries, None where the search is exact or no query was known. `fallback`
    says why it is not what was wanted.
    """

    kind: str
    rows: int
    width: int
    bytes: int
    effort: int
    recall: float | None
    fallback: str = ""


@dataclass(frozen=True, eq=False)
class Hits:
    """Rows (int64) and scores (float32, inner product), best first; equal scores by row."""

    rows: np.ndarray
    scores: np.ndarray


NOTHING = np.empty(0, np.int64)


class BaseIndex:
    """Vectors (n, E), float32 and finite, searched by inner product; of unit ones, the cosine."""

    def __init__(
        self,
        vectors: np.ndarray,
        choice: Choice | None = None,
        probes: np.ndarray | None = None,
        own: np.ndarray | None = None,
    ) -> None:
        """Build the structure that `choice` names or the size asks for.

        `probes` (p, E) are real queries, by which the effort of a search is chosen: the least one
        tried that reaches the recall. `own` (p,) are their own rows, which are no answers. Raises
        ValueError for vectors that are not float32 (n, E) or not finite.
        """
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ValueError(f"vectors must be float32 (n, E), got {vectors.dtype} {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError("a vector is not finite; embed it again")
        choice = choice or Choice()
        self.vectors = np.ascontiguousarray(vectors)
        self._structure, fallback = _structure(self.vectors, choice)
        self._effort = 0
        recall: float | None = None
        if self._structure is not None:
            self._effort = self._structure.efforts[-1] if self._structure.efforts else 0
            if probes is not None and len(probes):
                recall = self._tune(probes, own, choice.recall)
        self.built = Built(
            kind="flat" if self._structure is None else self._structure.kind,
            rows=len(vectors),
            width=int(vectors.shape[1]),
            bytes=0 if self._structure is None else self._structure.bytes,
            effort=self._effort,
            recall=recall,
            fallback=fallback,
        )

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.vectors)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        excluded: Sequence[np.ndarray] = (),
        allowed: np.ndarray | None = None,
    ) -> list[Hits]:
        """Return the `k` best rows of each query (m, E), or all where fewer remain.

        Rows in the query's own `excluded` (int64) are left out, and so are those that the mask
        `allowed` (n,) has not. Raises ValueError for queries that are not float32 (m, E) or not
        finite and for k below 1: FAISS would answer them with rows of -1, or not at all.
        """
        self._require(queries, k, excluded, allowed)
        without = excluded or [NOTHING] * len(queries)
        room = len(self.vectors) if allowed is None else int(np.count_nonzero(allowed))
        if room == 0 or not len(queries):
            return [Hits(NOTHING, np.empty(0, np.float32)) for _ in queries]
        if allowed is not None and (room <= MOST_GATHERED or self._structure is None):
            rows = np.flatnonzero(allowed)
            scores = queries @ self.vectors[rows].T
            pairs = zip(scores, without, strict=True)
            return [_best(rows, score, k, out) for score, out in pairs]
        if self._structure is None:
            return self._exact(queries, k, without)
        return self._approximate(queries, k, without, allowed, room)

    def exact(self, queries: np.ndarray, k: int) -> list[Hits]:
        """Return what `search` would, had every vector been compared."""
        self._require(queries, k, (), None)
        return self._exact(queries, k, [NOTHING] * len(queries))

    def _exact(self, queries: np.ndarray, k: int, without: Sequence[np.ndarray]) -> list[Hits]:
        # excluded rows may be the very best, so as many more are fetched
        deep = min(len(self.vectors), k + max(map(len, without)))
        by_product = faiss.METRIC_INNER_PRODUCT
        scores, rows = faiss.knn(queries, self.vectors, deep, metric=by_product)
        return [_best(*each[:2], k, each[2]) for each in zip(rows, scores, without, strict=True)]

    def _approximate(
        self,
        queries: np.ndarray,
        k: int,
        without: Sequence[np.ndarray],
        allowed: np.ndarray | None,
        room: int,
    ) -> list[Hits]:
        """Widen until every query has its k, at last by the exact search."""
        assert self._structure is not None
        structure = self._structure
        deep = min(room, (k + max(map(len, without))) * structure.candidates)
        # A filter thins out what a probe meets, so as much more is looked at.
        effort = self._within(int(self._effort * len(self.vectors) / room))
        hits: list[Hits] = [Hits(NOTHING, np.empty(0, np.float32))] * len(queries)
        enough = [min(k, room - _within_mask(out, allowed)) for out in without]
        left = list(range(len(queries)))
        for _ in range(3):
            positions = structure.nearest(queries[left], deep, effort, allowed)
            for number, candidates in zip(left, positions, strict=True):
                rows = candidates[candidates >= 0].astype(np.int64)
                scores = self.vectors[rows] @ queries[number]
                hits[number] = _best(rows, scores, k, without[number])
            left = [n for n in left if len(hits[n].rows) < enough[n]]
            if not left:
                return hits
            deep, effort = min(room, deep * 4), self._within(effort * 4)
        for number in left:
            rows = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
            scores = self.vectors[rows] @ queries[number]
            hits[number] = _best(rows, scores, k, without[number])
        return hits

    def _within(self, effort: int) -> int:
        assert self._structure is not None
        efforts = self._structure.efforts
        return min(max(effort, self._effort), efforts[-1]) if efforts else 0

    def _tune(self, probes: np.ndarray, own: np.ndarray | None, wanted: float) -> float:
        """Set the least effort that reaches the recall, and return what it reaches."""
        assert self._structure is not None
        k = RECALL_AT
        without = [NOTHING] * len(probes) if own is None else list(own[:, None])
        truth = [hits.rows for hits in self._exact(probes, k, without)]
        recall = 0.0
        for effort in self._structure.efforts or (0,):
            self._effort = effort
            hits = self.search(probes, k, without)
            recall = recall_of([each.rows for each in hits], truth)
            if recall >= wanted:
                break
        return recall

    def _require(
        self,
        queries: np.ndarray,
        k: int,
        excluded: Sequence[np.ndarray],
        allowed: np.ndarray | None,
    ) -> None:
        width = self.vectors.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width or queries.dtype != np.float32:
            raise ValueError(
                f"queries must be float32 (m, {width}), got {queries.dtype} {queries.shape}"
            )
        if not np.isfinite(queries).all():
            raise ValueError("a query vector is not finite")
        if k < 1:
            raise ValueError(f"k is at least 1, got {k}")
        if excluded and len(excluded) != len(queries):
            raise ValueError(f"{len(queries)} queries need as many excluded, got {len(excluded)}")
        if allowed is not None and allowed.shape != (len(self.vectors),):
            raise ValueError(f"allowed must be ({len(self.vectors)},), got {allowed.shape}")


def _within_mask(rows: np.ndarray, allowed: np.ndarray | None) -> int:
    distinct = np.unique(rows)
    return len(distinct) if allowed is None else int(np.count_nonzero(allowed[distinct]))


def recall_of(rows: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Return the share of the true rows of all queries that are among the rows."""
    hit = sum(len(np.intersect1d(one, true)) for one, true in zip(rows, truth, strict=True))
    return hit / max(1, sum(map(len, truth)))


def _structure(vectors: np.ndarray, choice: Choice) -> tuple[Structure | None, str]:
    """Return the structure, None for the exact search, and why it is not what was wanted."""
    fallback = ""
    wanted = choice.kind
    on_gpu = wanted.startswith("gpu_") or choice.device == "cuda"
    worth_it = wanted == AUTO and choice.device == AUTO and len(vectors) >= gpu.LEAST_ROWS
    if on_gpu or (worth_it and gpu.reason() is None):
        made = gpu.build(vectors, None if wanted == AUTO else wanted)
        if not isinstance(made, str):
            return made, ""
        fallback = made
        log.warning("no GPU index of %d vectors: %s; the processor searches", len(vectors), made)
    if wanted == AUTO or wanted.startswith("gpu_"):
        kind: Any = chosen_by_size(len(vectors))
    else:
        kind = wanted
    if kind == "flat" or len(vectors) < 2:
        return None, fallback
    return CpuStructure(vectors, kind), fallback


def _best(rows: np.ndarray, scores: np.ndarray, k: int, excluded: np.ndarray) -> Hits:
    if len(excluded):
        kept = ~np.isin(rows, excluded)
        rows, scores = rows[kept], scores[kept]
    if len(rows) > 4 * k:  # a sort of all would cost more than their products
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return Hits(rows[order].astype(np.int64), scores[order].astype(np.float32))
