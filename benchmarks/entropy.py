"""The scale at which contrastive entropy is compared: one scalar refitted on validation users.

A model's own temperature may be off for users it never saw, and a baseline has none. One scalar,
fitted the same way for every row, takes calibration out of the comparison.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

CELLS = 16_000_000  # scores kept per direction: 128 MB of float64
SCALES = (1e-2, 1e3)


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
    found: Any = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))
