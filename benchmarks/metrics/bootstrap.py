"""Intervals by a bootstrap over users: the user is drawn, never the query or the event.

A statistic is a function of weights over the queries, (R, Q) -> (R,): once with ones for the value
itself, then with the counts of R resamples at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Statistic = Callable[[np.ndarray], np.ndarray]

CELLS = 4_000_000  # weights alive at once: 32 MB of float64


@dataclass(frozen=True)
class Interval:
    """A value and its percentile interval of 95 %."""

    value: float
    low: float
    high: float


def interval(
    statistic: Statistic, users: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the statistic of all queries and its percentile interval of 95 % over resampled users.

    `users` (Q,) says whose each query is: the queries of one user are drawn together, since they
    are not independent. Raises ValueError where there is no query.
    """
    return summary(*bootstrap([statistic], users, resamples=resamples, seed=seed))[0]


def bootstrap(
    statistics: Sequence[Statistic], users: np.ndarray, *, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the M statistics of all queries (M,) and of every resample (M, resamples).

    All see the same resamples, so the difference of two rows is a paired one. ValueError where
    there is no query.
    """
    if len(users) == 0:
        raise ValueError("no queries to compute an interval of; are there users in this split?")
    values = [float(statistic(np.ones((1, len(users))))[0]) for statistic in statistics]
    drawn = [[s(w) for s in statistics] for w in _resampled_weights(users, resamples, seed)]
    return np.array(values), np.concatenate(drawn, axis=1)


def student(values: np.ndarray) -> Interval:
    """Return the mean of values (S,) and its interval of 95 % by Student's t; NaN for one value."""
    mean, count = float(values.mean()), len(values)
    half = stats.t.ppf(0.975, count - 1) * stats.sem(values) if count > 1 else np.nan
    return Interval(mean, float(mean - half), float(mean + half))


def summary(values: np.ndarray, drawn: np.ndarray) -> list[Interval]:
    """Return the intervals of 95 % of M values (M,) from their resamples (M, R).

    A resample in which a statistic is not defined (no AUROC without both classes) is left out.
    """
    intervals: list[Interval] = []
    for value, draws in zip(values, drawn, strict=True):
        known = draws[np.isfinite(draws)]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        intervals.append(Interval(float(value), float(low), float(high)))
    return intervals


def _resampled_weights(users: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    distinct, user = np.unique(users, return_inverse=True)
    count = len(distinct)
    generator = np.random.default_rng(seed)
    at_once = max(1, CELLS // max(count, len(users)))
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        weights = times.astype(np.float64)
        yield weights if len(users) == count else weights[:, user]


def mean_of(values: np.ndarray) -> Statistic:
    """Return the statistic "weighted mean of values (Q,)"."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        return (weights @ values) / weights.sum(1)

    return statistic


def ratio_of(numerator: np.ndarray, denominator: np.ndarray) -> Statistic:
    """Return the statistic "weighted sum of one column (Q,) over that of another", NaN over 0.

    The mean over a subset of the queries is the ratio of values that are 0 outside it to the
    membership in it.
    """

    def statistic(weights: np.ndarray) -> np.ndarray:
        return divided(weights @ numerator, weights @ denominator)

    return statistic


def coverage_of(lists: np.ndarray, catalogue: int) -> Statistic:
    """Return the statistic "share of the `catalogue` that is in some list" of rows (Q, k).

    A resample repeats queries and so sees fewer distinct lists: see `centred`.
    """

    def statistic(weights: np.ndarray) -> np.ndarray:
        shares = np.empty(len(weights))
        for row, drawn in enumerate(weights > 0):
            listed = np.zeros(catalogue, bool)
            listed[lists[drawn]] = True
            shares[row] = listed.sum() / catalogue
        return shares

    return statistic


def centred(value: float, drawn: np.ndarray) -> np.ndarray:
    """Return the resamples (R,) moved so that their mean is the value.

    For a count of distinct things, which every resample underrates: its spread is kept.
    """
    return drawn + (value - drawn.mean())


def median_of(values: np.ndarray) -> Statistic:
    """Return the statistic "weighted median of values (Q,)", the mean of both middles on a tie."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        reached = np.cumsum(weights[:, order], axis=1)
        half = reached[:, -1:] / 2
        lower = np.argmax(reached >= half, axis=1)
        upper = np.argmax(reached > half, axis=1)
        return (ascending[lower] + ascending[upper]) / 2

    return statistic


def auroc_of(scores: np.ndarray, positive: np.ndarray) -> Statistic:
    """Return the statistic "area under the ROC curve", ties counted half.

    `scores` (Q,) floats, `positive` (Q,) booleans; NaN where the weights hold only one class.
    """
    order = np.argsort(scores, kind="stable")
    ascending, is_positive = scores[order], positive[order].astype(np.float64)
    first = np.searchsorted(ascending, ascending, side="left")
    last = np.searchsorted(ascending, ascending, side="right")

    def statistic(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        ones = ordered * is_positive
        zeros = np.cumsum(ordered - ones, axis=1)
        below = np.concatenate([np.zeros((len(zeros), 1)), zeros], axis=1)
        won = (below[:, first] + below[:, last]) / 2
        return divided((ones * won).sum(1), ones.sum(1) * zeros[:, -1])

    return statistic


def average_precision_of(scores: np.ndarray, positive: np.ndarray) -> Statistic:
    """Return the statistic "average precision": the precision at each positive, by steps of recall.

    `scores` (Q,) floats, `positive` (Q,) booleans. Equal scores are one threshold, as in
    scikit-learn; NaN where the weights hold no positive.
    """
    order = np.argsort(-scores, kind="stable")
    descending, is_positive = scores[order], positive[order].astype(np.float64)
    last = np.flatnonzero(np.r_[descending[1:] != descending[:-1], True])

    def statistic(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        positives = np.cumsum(ordered * is_positive, axis=1)[:, last]
        taken = np.cumsum(ordered, axis=1)[:, last]
        precision = np.divide(positives, taken, out=np.zeros_like(positives), where=taken > 0)
        return divided((np.diff(positives, axis=1, prepend=0) * precision).sum(1), positives[:, -1])

    return statistic


def macro_auroc_of(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """Return the statistic "mean one-versus-rest AUROC" of scores (Q, C) and labels (Q,) in 0..C-1.

    A class that no drawn query has is left out of the mean.
    """
    return mean_statistic([auroc_of(scores[:, c], labels == c) for c in range(scores.shape[1])])


def mean_statistic(parts: Sequence[Statistic]) -> Statistic:
    """Return the mean of statistics over those of them that are defined, NaN where none is."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        each = np.stack([part(weights) for part in parts])
        known = np.isfinite(each)
        return divided(np.where(known, each, 0).sum(0), known.sum(0))

    return statistic


def divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotients (R,), NaN where the denominator is not above 0."""
    undefined = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def gauc_of(scores: np.ndarray, positive: np.ndarray, users: np.ndarray) -> Statistic:
    """Return the statistic "AUROC within each user, weighted by their queries".

    `users` (Q,) says whose each query is; only users with both classes count (Zhou et al. 2018,
    "Deep Interest Network", section 5.3, with impressions as weights).
    """
    order = np.lexsort((scores, users))
    user, score, good = users[order], scores[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    count = np.diff(np.r_[starts, len(user)])
    # ranks within a user, ties at their mean: the area is that of the mean rank of their positives
    group = np.repeat(np.arange(len(starts)), count)
    new = np.r_[True, (score[1:] != score[:-1]) | (user[1:] != user[:-1])]
    tie = np.cumsum(new) - 1
    position = np.arange(len(user)) - starts[group] + 1.0
    rank = (np.bincount(tie, position) / np.bincount(tie))[tie]
    ones = np.bincount(group, good)
    zeros = count - ones
    both = (ones > 0) & (zeros > 0)
    area = np.zeros(len(starts))
    summed = np.bincount(group, rank * good)
    area[both] = (summed - ones * (ones + 1) / 2)[both] / (ones * zeros)[both]
    # A user's queries are drawn together, so that the weight is that of any of them.
    first, weight = order[starts], np.where(both, count, 0).astype(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, first] * weight
        return divided(drawn @ area, drawn.sum(1))

    return statistic


def r2_of(predicted: np.ndarray, true: np.ndarray) -> Statistic:
    """Return the statistic "share of the variance explained", 1 - SSE / SST, of values (Q,)."""
    squared = (true - predicted) ** 2

    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights.sum(1)
        mean = weights @ true / count
        return 1 - divided(weights @ squared, weights @ true**2 - count * mean**2)

    return statistic


def spearman_of(predicted: np.ndarray, true: np.ndarray) -> Statistic:
    """Return the statistic "Pearson correlation of ranks" of values (Q,), ties at their mean rank.

    Resamples keep the ranks of the whole: exact for the value itself, and within O(1/sqrt(Q)) of
    ranking anew for its spread.
    """
    x, y = stats.rankdata(predicted), stats.rankdata(true)

    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights.sum(1)
        mean_x, mean_y = weights @ x / count, weights @ y / count
        covariance = weights @ (x * y) / count - mean_x * mean_y
        spread = (weights @ x**2 / count - mean_x**2) * (weights @ y**2 / count - mean_y**2)
        return divided(covariance, np.sqrt(np.maximum(spread, 0)))

    return statistic
