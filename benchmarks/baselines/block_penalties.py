"""A penalty for each block of a vector, so that a wide block of noise costs no more than its noise.

One penalty for all columns is a compromise: 256 columns that say nothing ask for a strong one, ten
that say much for a weak one. Here the standardised columns of block b are multiplied by a factor
f_b, which is a ridge penalty of alpha / f_b^2 on their weights; a factor of 0 leaves the block out.

Alpha and the factors have the least squared error that this search finds, on the valid rows by a
fit on all training rows and on each of three folds of those by a fit on the others; every block
that is kept adds PRICE / rows of the error. It starts with all blocks at factor 1 or with one of
them alone, whichever is best at its best alpha, then tries for one block after another to leave it
out and the next factors, and the next alphas, until a round changes nothing. So by that error it is
no worse than a single penalty, nor than any block by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

# Wide of what was chosen: .1 for vectors most of whose directions hardly vary, 1e5 for noise.
ALPHAS = tuple(10.0**power for power in range(-3, 7))
FACTORS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
ROUNDS = 5
# Without the folds, on 1,000 valid rows alone, blocks of noise were kept and others dropped that
# say something: an AUROC of .676 and .679 on two planted sets, with the folds .688 and .696.
FOLDS = 3
# A column of noise lowers the error by more than 3 / rows of it once in twelve times (chi squared).
PRICE = 3.0
ROWS = 20_000  # training rows that the search reads: 4 s of a core for 1,500 columns


@dataclass(frozen=True)
class Penalties:
    """`alpha`, and the factor of each block by its name."""

    alpha: float
    factors: Mapping[str, float]

    def of_columns(self, blocks: Mapping[str, slice], width: int) -> np.ndarray:
        """Return the factor of each column (width,)."""
        each = np.ones(width)
        for name, columns in blocks.items():
            each[columns] = self.factors[name]
        return each


@dataclass(frozen=True)
class Scatter:
    """X'X (F, F), X'Y (F, O) and the sum of Y^2 of n rows: sums over rows, which add up."""

    gram: np.ndarray
    cross: np.ndarray
    total: float

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "Scatter":
        """Return that of features (n, F) and targets (n, O)."""
        return cls(x.T @ x, x.T @ y, float(np.square(y).sum()))

    def __sub__(self, other: "Scatter") -> "Scatter":
        """Return that of the other rows."""
        return Scatter(self.gram - other.gram, self.cross - other.cross, self.total - other.total)


class NormalEquations:
    """What a ridge of any penalties needs of features (n, F) and targets (n, O), made once.

    The solution of a candidate and its error then cost F^3 and no pass over rows.
    """

    def __init__(
        self,
        train: tuple[np.ndarray, np.ndarray],
        valid: tuple[np.ndarray, np.ndarray],
        blocks: Mapping[str, slice],
    ) -> None:
        """Read the parts, whose features and targets are centred by the training rows."""
        self.blocks, self.width = blocks, train[0].shape[1]
        fold = np.random.default_rng(0).permutation(len(train[0])) % FOLDS
        self._whole = Scatter.of(*train)
        held_out = [Scatter.of(train[0][fold == f], train[1][fold == f]) for f in range(FOLDS)]
        self._pairs = [(self._whole - each, each) for each in held_out]
        self._pairs.append((self._whole, Scatter.of(*valid)))
        self._rows = len(train[0]) + len(valid[0])

    def weights(self, penalties: Penalties) -> np.ndarray:
        """Return the weights (F, O) of the columns as they are, zero where a block is left out."""
        factor = penalties.of_columns(self.blocks, self.width)
        weights = np.zeros_like(self._whole.cross)
        weights[factor > 0] = _solve(self._whole, penalties.alpha, factor)
        return weights

    def loss(self, penalties: Penalties) -> float:
        """Return the mean squared error on rows that are not fitted on, with PRICE for blocks."""
        factor = penalties.of_columns(self.blocks, self.width)
        kept = np.flatnonzero(factor)
        total = 0.0
        for fitted, other in self._pairs:
            weights = _solve(fitted, penalties.alpha, factor)
            gram = other.gram[np.ix_(kept, kept)]
            total += other.total - 2 * float((weights * other.cross[kept]).sum())
            total += float((weights * (gram @ weights)).sum())
        price = PRICE * sum(each > 0 for each in penalties.factors.values()) / self._rows
        return total / self._rows * (1 + price)


def _solve(scatter: Scatter, alpha: float, factor: np.ndarray) -> np.ndarray:
    """Return the ridge weights (kept, O) of the columns whose factor (F,) is not 0."""
    kept = np.flatnonzero(factor)
    left = scatter.gram[np.ix_(kept, kept)]
    # Below the least alpha a gram without full rank has no Cholesky factor in double.
    left[np.diag_indices(len(kept))] += np.maximum(alpha / factor[kept] ** 2, ALPHAS[0])
    factored = cho_factor(left, overwrite_a=True, check_finite=False)
    return cho_solve(factored, scatter.cross[kept], check_finite=False)


def search(equations: NormalEquations) -> Penalties:
    """Return the penalties of the least error; see the module."""
    with threadpool_limits(limits=1):
        names = list(equations.blocks)
        ones = dict.fromkeys(names, 1.0)
        alone = [{name: float(name == one) for name in names} for one in names]
        starts = [ones, *alone] if len(names) > 1 else [ones]
        loss, best = min((_best_alpha(equations, each) for each in starts), key=_first)
        for _ in range(ROUNDS if len(names) > 1 else 0):
            before = loss
            for moves in (*(partial(_moves, name=name) for name in names), _alphas):
                loss, best = min((loss, best), _best(equations, moves(best)), key=_first)
            if loss >= before:
                break
    return best


def _best_alpha(
    equations: NormalEquations, factors: Mapping[str, float]
) -> tuple[float, Penalties]:
    """Return the best from the strongest alpha down, until it has become worse twice."""
    tried: list[tuple[float, Penalties]] = []
    for alpha in reversed(ALPHAS):
        penalties = Penalties(alpha, factors)
        tried.append((equations.loss(penalties), penalties))
        if len(tried) - tried.index(min(tried, key=_first)) > 2:
            break
    return min(tried, key=_first)


def _moves(penalties: Penalties, name: str) -> list[Penalties]:
    """Return the same without a block, some other being kept, and with its next factors."""
    factor = penalties.factors[name]
    at = FACTORS.index(factor)
    near = {0.0, *FACTORS[at - 1 : at + 2]} if factor else {FACTORS[1], 1.0}
    each = [{**penalties.factors, name: one} for one in sorted(near - {factor})]
    return [Penalties(penalties.alpha, factors) for factors in each if any(factors.values())]


def _alphas(penalties: Penalties) -> list[Penalties]:
    """Return the same with the next alphas."""
    at = ALPHAS.index(penalties.alpha)
    return [replace(penalties, alpha=one) for one in ALPHAS[max(at - 1, 0) : at + 2]]


def _best(equations: NormalEquations, candidates: Sequence[Penalties]) -> tuple[float, Penalties]:
    each = [(equations.loss(one), one) for one in candidates]
    return min(each, key=_first, default=(float("inf"), Penalties(0.0, {})))


def _first(pair: tuple[float, Penalties]) -> float:
    return pair[0]


def search_rows(count: int) -> np.ndarray:
    """Return the training rows that the search reads: all, or ROWS of a fixed shuffle."""
    return np.sort(np.random.default_rng(0).permutation(count)[:ROWS])
