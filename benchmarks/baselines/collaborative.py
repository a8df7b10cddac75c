"""The collaborative baselines item-kNN, EASE, iALS, tuned as popularity.py says."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy.linalg import LinAlgError, inv
from threadpoolctl import threadpool_limits

from benchmarks.baselines.popularity import Fold, Matrix, rows_of, some
from benchmarks.snapshot import Snapshot


class ItemKNN:
    """The summed cosine of an item to those met, among the k nearest of each; shrunk by h.

    cos(i, j) = users of both / (sqrt(users of i * users of j) + h). Tuned: h of 0, 10, 30, 100,
    300, 1000 by k of 10, 20, 50, 100, 200; 30 models.
    """

    name, seed = "item-kNN", 0
    SHRINKAGES = (0.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    NEIGHBOURS = (10, 20, 50, 100, 200)

    def __init__(self, *, filter_seen: bool) -> None:
        """`filter_seen`: the questions leave out what was met."""
        self.filter_seen, self.chosen = filter_seen, dict[str, Any]()
        self.fingerprint = f"item-knn-{self.SHRINKAGES}-{self.NEIGHBOURS}-{filter_seen}"

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Choose h and k."""
        fold = Fold.of(train, valid, targets, service, filter_seen=self.filter_seen)
        best = -1.0
        for shrinkage in self.SHRINKAGES:
            cosines = shrunk_cosines(fold.met, shrinkage)
            rank = place_in_row(cosines)
            for count in self.NEIGHBOURS:
                kept = cosines.copy()
                kept.data[rank >= count] = 0
                kept.eliminate_zeros()
                ndcg = fold.ndcg(self._products(fold.past, kept))
                if ndcg > best:
                    best, self._kept = ndcg, kept
                    self.chosen = {"shrinkage": shrinkage, "neighbours": count}
        self.chosen["valid NDCG@10"] = best
        self._items, self._service = fold.items, service

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the sums (b, m)."""
        yield from self._products(rows_of(past, self._service, self._items, items), self._kept)

    def _products(self, pasts: Matrix, kept: Matrix) -> Iterator[np.ndarray]:
        for block in some(*pasts.shape):
            yield (pasts[block] @ kept).toarray()


def shrunk_cosines(met: Matrix, shrinkage: float) -> Matrix:
    """Return the shrunk cosines (m, m) of the columns of `met`, zero on the diagonal."""
    both: Matrix = (met.T @ met).tocsr()
    norms = np.sqrt(both.diagonal().astype(np.float64))
    row = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
    both.data = (both.data / (norms[row] * norms[both.indices] + shrinkage)).astype(np.float32)
    both.data[row == both.indices] = 0
    both.eliminate_zeros()
    return both


def place_in_row(values: Matrix) -> np.ndarray:
    """Return the place of every stored value in its row, the greatest 0; ties by column."""
    row = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
    order = np.lexsort((values.indices, -values.data, row))
    rank = np.empty(len(row), np.int64)
    rank[order] = np.arange(len(row)) - values.indptr[row]
    return rank


class Ease:
    """EASE (Steck 2019), float32: the closed-form linear map of what was met, zero on its diagonal.

    Tuned: the ridge of 10, 30, 100, 300, 1e3, 3e3, 1e4, on the TUNED_ON items of most events where
    there are more, since one inverse of 12,100 items costs as much as 15 of 5,000. Items beyond the
    LIMIT of most events have score 0: at 20,000 the two matrices take 3.2 GB.
    """

    name, seed = "EASE", 0
    RIDGES = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4)
    TUNED_ON = 5_000
    LIMIT = 20_000

    def __init__(self, *, filter_seen: bool) -> None:
        """`filter_seen`: the questions leave out what was met."""
        self.filter_seen, self.chosen = filter_seen, dict[str, Any]()
        limits = f"{self.RIDGES}-{self.TUNED_ON}-{self.LIMIT}"
        self.fingerprint = f"ease-{limits}-{filter_seen}"

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Choose the ridge and invert."""
        fold = Fold.of(train, valid, targets, service, filter_seen=self.filter_seen)
        frequent = np.argsort(-fold.counts, kind="stable")
        known = np.sort(frequent[: self.TUNED_ON])
        gram, best = gram_of(fold.met[:, known]), -1.0
        for ridge in self.RIDGES:
            weights = ease_weights(gram, ridge)
            ndcg = fold.ndcg(self._products(fold.past, known, weights))
            if ndcg > best:
                best, self._weights = ndcg, weights
                self.chosen = {"ridge": ridge, "valid NDCG@10": ndcg, "tuned on": len(known)}
        self._known = np.sort(frequent[: self.LIMIT])
        if len(self._known) > len(known):
            self._weights = ease_weights(gram_of(fold.met[:, self._known]), self.chosen["ridge"])
        self._items, self._service = fold.items, service

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the scores (b, m)."""
        pasts = rows_of(past, self._service, self._items, items)
        yield from self._products(pasts, self._known, self._weights)

    def _products(
        self, pasts: Matrix, known: np.ndarray, weights: np.ndarray
    ) -> Iterator[np.ndarray]:
        for block in some(*pasts.shape):
            scores = np.zeros((block.stop - block.start, pasts.shape[1]), np.float32)
            scores[:, known] = pasts[block][:, known] @ weights
            yield scores


def gram_of(met: Matrix) -> np.ndarray:
    """Return how many users met both of two items, (m, m) float32."""
    return (met.T @ met).toarray()


def ease_weights(gram: np.ndarray, ridge: float) -> np.ndarray:
    """Return B (m, m), B_ij = -P_ij / P_jj and B_jj = 0 for P the inverse of gram + ridge."""
    work = gram.T.copy(order="F")
    work[np.diag_indices_from(work)] += ridge
    try:
        inverse = inv(work, overwrite_a=True, check_finite=False, assume_a="pos", lower=True)
    except LinAlgError:
        raise ValueError(
            f"EASE: no inverse of {len(gram)} items at ridge {ridge:g}; raise it"
        ) from None
    inverse /= -np.diagonal(inverse).copy()
    inverse[np.diag_indices_from(inverse)] = 0
    return np.ascontiguousarray(inverse)


class ImplicitALS:
    """iALS (Hu et al. 2008), `implicit`'s, 15 iterations; pasts are folded in by its own solver.

    Tuned: regularisation of 1, 10, 100 by alpha of 0.3, 1, 3, 10, 30 at 64 factors, then 128 and
    256 factors at the best of them, and at 3 times its regularisation; 19 models. All 45 would
    take beauty 4 times as long, nearly all of it at 256 factors.
    """

    name, seed = "iALS", 0
    FACTORS = (64, 128, 256)
    REGULARISATIONS = (1.0, 10.0, 100.0)
    ALPHAS = (0.3, 1.0, 3.0, 10.0, 30.0)

    def __init__(self, *, filter_seen: bool) -> None:
        """`filter_seen`: the questions leave out what was met."""
        self.filter_seen, self.chosen = filter_seen, dict[str, Any]()
        grid = f"{self.FACTORS}-{self.REGULARISATIONS}-{self.ALPHAS}"
        self.fingerprint = f"ials-{grid}-{filter_seen}"

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Choose all three."""
        fold = Fold.of(train, valid, targets, service, filter_seen=self.filter_seen)
        first, *larger = self.FACTORS
        ndcg_of: dict[tuple[int, float, float], float] = {}
        for ridge, alpha in product(self.REGULARISATIONS, self.ALPHAS):
            self._try((first, ridge, alpha), fold, ndcg_of)
        _, ridge, alpha = max(ndcg_of, key=lambda setting: ndcg_of[setting])
        for factors, times in product(larger, (1, 3)):
            self._try((factors, times * ridge, alpha), fold, ndcg_of)
        factors, ridge, alpha = max(ndcg_of, key=lambda setting: ndcg_of[setting])
        self.chosen = {"factors": factors, "regularisation": ridge, "alpha": alpha}
        self.chosen["valid NDCG@10"] = max(ndcg_of.values())
        self._items, self._service = fold.items, service

    def _try(
        self,
        setting: tuple[int, float, float],
        fold: Fold,
        ndcg_of: dict[tuple[int, float, float], float],
    ) -> None:
        """Note the NDCG@10 of (factors, regularisation, alpha), and keep the best model."""
        with threadpool_limits(limits=1):  # it warns of a BLAS with more, ten times slower
            model = AlternatingLeastSquares(*setting, num_threads=1, random_state=self.seed)
            model.fit(fold.met, show_progress=False)
            ndcg_of[setting] = fold.ndcg(self._products(fold.past, model))
        if ndcg_of[setting] == max(ndcg_of.values()):
            self._model = model

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the products (b, m) of folded-in users and items."""
        pasts = rows_of(past, self._service, self._items, items)
        with threadpool_limits(limits=1):
            yield from self._products(pasts, self._model)

    def _products(self, pasts: Matrix, model: AlternatingLeastSquares) -> Iterator[np.ndarray]:
        for block in some(*pasts.shape):
            users = np.arange(block.stop - block.start)
            yield model.recalculate_user(users, pasts[block]) @ model.item_factors.T
