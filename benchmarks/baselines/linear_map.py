"""The linear probe of retrieval: a ridge regression of what an item adds to its user's vector.

With users x (E,) and the items y (E,) that they chose, in one space, the map is

    x -> unit(x + x W),   W = (X'X + strength mean(eigenvalues of X'X) I)^-1 X'(Y - X)

which is the user's own vector where the strength is infinite: shrunk towards zero-shot, the probe
can be no worse on the users that the strength is chosen on. A regression of y itself shrinks
towards the mean item instead, and then ranks what is near to everything.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.tfidf import unit

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0, float("inf"))


@dataclass(frozen=True)
class LinearMap:
    """unit(x + x @ weights): `weights` (E, E)."""

    weights: np.ndarray

    def __call__(self, users: np.ndarray) -> np.ndarray:
        """Return unit vectors (n, E) of users' vectors (n, E), to be multiplied with the items'."""
        return unit(users + users @ self.weights)


def linear_maps(users: np.ndarray, items: np.ndarray) -> Callable[[float], LinearMap]:
    """Return the map of a strength, fitted on vectors of users (n, E) and their items (n, E).

    One eigendecomposition serves all strengths. ValueError where there is no pair.
    """
    if not len(users):
        raise ValueError("no user to fit a linear map on; are there users in this split?")
    x, y = users.astype(np.float64), items.astype(np.float64)
    values, vectors = np.linalg.eigh(x.T @ x)
    cross = vectors.T @ (x.T @ (y - x))
    mean = max(float(values.mean()), 1e-12)

    def fitted(strength: float) -> LinearMap:
        shrunk = cross / (np.maximum(values, 0) + strength * mean)[:, None]
        return LinearMap(vectors @ shrunk)

    return fitted


def tuned_map(
    users: np.ndarray, items: np.ndarray, loss: Callable[[LinearMap], float]
) -> tuple[LinearMap, float]:
    """Return the map of the least `loss` over STRENGTHS, and its strength."""
    fitted = linear_maps(users, items)
    strength = min(STRENGTHS, key=lambda one: loss(fitted(one)))
    return fitted(strength), strength
