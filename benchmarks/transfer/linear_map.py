"""The linear probe of retrieval: a ridge regression from users' vectors to those of their items."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines import unit

# Multiples of the mean variance of the users' vectors, so that no width or scale needs its own.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class LinearMap:
    """unit(target + (x - center) @ weights): `weights` (E, D), `center` (E,), `target` (D,)."""

    weights: np.ndarray
    center: np.ndarray
    target: np.ndarray

    def __call__(self, users: np.ndarray) -> np.ndarray:
        """Gives unit vectors (n, D) of users' vectors (n, E), to be multiplied with the items'."""
        return unit(self.target + (users - self.center) @ self.weights)


def linear_maps(users: np.ndarray, items: np.ndarray) -> Callable[[float], LinearMap]:
    """Gives the map of a strength, fitted on vectors of users (n, E) and their items (n, D).

    One eigendecomposition serves all strengths. ValueError where there is no pair.
    """
    if not len(users):
        raise ValueError("no user to fit a linear map on; are there users in this split?")
    x, y = users.astype(np.float64), items.astype(np.float64)
    center, target = x.mean(0), y.mean(0)
    values, vectors = np.linalg.eigh((x - center).T @ (x - center))
    cross = vectors.T @ ((x - center).T @ (y - target))
    mean = max(float(values.mean()), 1e-12)

    def fitted(strength: float) -> LinearMap:
        shrunk = cross / (np.maximum(values, 0) + strength * mean)[:, None]
        return LinearMap(vectors @ shrunk, center, target)

    return fitted


def tuned_map(
    users: np.ndarray, items: np.ndarray, loss: Callable[[LinearMap], float]
) -> tuple[LinearMap, float]:
    """Gives the map of the least `loss` over STRENGTHS, and its strength."""
    fitted = linear_maps(users, items)
    strength = min(STRENGTHS, key=lambda one: loss(fitted(one)))
    return fitted(strength), strength
