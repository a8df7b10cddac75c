"""A map of the indexed users: their two main axes, by which any user has a place on it."""

from dataclasses import dataclass

import numpy as np

MOST_FITTED = 20_000  # users whose covariance the axes are of
MOST_SHOWN = 2_000  # points of a map; more are one blot, and 30 kB more to send for each thousand


@dataclass(frozen=True, eq=False)
class PopulationMap:
    """The first two principal axes (2, S) of unit vectors about their `mean` (S,), and some users.

    `points` (p, 2) are a sample of the users, `explained` the share of the variance on both axes.
    """

    axes: np.ndarray
    mean: np.ndarray
    points: np.ndarray
    explained: float

    def places(self, vectors: np.ndarray) -> np.ndarray:
        """Return the places (n, 2) of unit vectors (n, S)."""
        return (vectors - self.mean) @ self.axes.T


def map_of(vectors: np.ndarray) -> PopulationMap:
    """Return the map of users with these unit vectors (N, S); the same ones give the same map."""
    rows = np.random.default_rng(0).permutation(len(vectors))
    fitted = vectors[np.sort(rows[:MOST_FITTED])].astype(np.float64)
    mean = fitted.mean(0) if len(fitted) else np.zeros(vectors.shape[1])
    centred = fitted - mean
    values, axes = np.linalg.eigh(centred.T @ centred)
    largest = axes.T[::-1][:2]
    # an axis and its reverse are one: the sign of its greatest weight decides
    signs = np.sign(largest[np.arange(len(largest)), np.abs(largest).argmax(1)])
    largest = (largest * signs[:, None]).astype(np.float32)
    total = values.sum()
    made = PopulationMap(
        largest,
        mean.astype(np.float32),
        np.empty((0, 2), np.float32),
        float(values[-2:].sum() / total) if total > 0 else 0.0,
    )
    points = made.places(vectors[rows[:MOST_SHOWN]])
    return PopulationMap(made.axes, made.mean, points, made.explained)
