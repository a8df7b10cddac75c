"""Whether probabilities and scales mean what they say: calibration errors, and a refitted scale.

Contrastive entropies are compared at one scalar fitted on validation users, the same way for every
row: a temperature may be off for users it never saw, and a baseline has none.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import entr, logsumexp
from scipy.stats import rankdata

from benchmarks.metrics.bootstrap import Statistic, divided

BINS = 15
CELLS = 16_000_000  # scores kept per direction: 128 MB of float64
SCALES = (1e-2, 1e3)


def ece_of(probabilities: np.ndarray, labels: np.ndarray) -> Statistic:
    """Return the statistic "expected calibration error" of BINS bins with as many queries each.

    The weighted mean over the bins of |mean probability - share of ones|; `labels` (Q,) are 0 or 1.
    Equal probabilities share a bin. Resamples keep the bins of the whole, and the error of a
    resample is larger than that of the whole by its own noise.
    """
    bin_of = ((rankdata(probabilities) - 0.5) * BINS / len(probabilities)).astype(int)
    # In a bin, the weight times the difference of two means is the weighted sum of differences.
    differences = np.eye(BINS)[bin_of] * (probabilities - labels)[:, None]

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.abs(weights @ differences).sum(1) / weights.sum(1)

    return statistic


def ne_of(losses: np.ndarray, labels: np.ndarray) -> Statistic:
    """Return the statistic "normalised entropy": mean log loss over that of the base rate.

    `losses` (Q,) in nats, `labels` (Q,) 0 or 1. The base rate is the share of ones among the
    queries that are scored: 1 is what knowing no more than it gives (He et al. 2014, "Practical
    Lessons from Predicting Clicks on Ads at Facebook"). NaN for weights on one label alone.
    """

    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights.sum(1)
        rate = np.clip(weights @ labels / count, 0, 1)
        entropy = entr(rate) + entr(1 - rate)
        return divided(weights @ losses / count, entropy)

    return statistic


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return log loss of each query (Q,) in nats, its probability of a one kept in [1e-7, 1)."""
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.where(labels > 0.5, np.log(p), np.log1p(-p))


def refit_scale(a: np.ndarray, b: np.ndarray, queries: np.ndarray | None = None) -> float:
    """Return the scale of least contrastive entropy of the `queries` among all N candidates.

    Rows i of a and b (N, E) are the same user; `queries` are rows (all when None; where the
    gallery is so large that the scores would not fit, the first that do). The loss is convex in
    the scale, so that one bounded search finds its minimum; it lies within 1e-2 .. 1e3.
    """
    rows = np.arange(len(a)) if queries is None else queries
    rows = rows[: max(1, CELLS // len(a))]
    scores = [(x[rows] @ y.T).astype(np.float64) for x, y in ((a, b), (b, a))]
    own = [s[np.arange(len(rows)), rows] for s in scores]

    def loss(log_scale: float) -> float:
        scale = np.exp(log_scale)
        both = zip(scores, own, strict=True)
        return float(np.mean([(logsumexp(scale * s, axis=1) - scale * o).mean() for s, o in both]))

    bounds = (np.log(SCALES[0]), np.log(SCALES[1]))
    minimum: Any = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(minimum.x))


def class_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log of each row's probability (n, C) of its class (n,) in 0 .. C-1, (n,) in nats."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
