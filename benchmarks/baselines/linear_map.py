"""The linear probe of retrieval: a ridge regression of what an item adds to its user's vector.

With users x (E,) and the items y that they chose, in one space of m of the E columns, the map is

    x -> unit(u + z W),   W = (Z'Z + strength mean(eigenvalues of Z'Z) I)^-1 Z'(Y - U)

where u is x in the columns that items have, as it is of a vector of one block and of length 1 of
several, and z is x itself, or of several blocks each column over its root mean square times the
factor of its block (block_penalties.py). It is the user's own vector where the strength is
infinite: shrunk towards zero-shot, the probe can be no worse on the users that the strength is
chosen on. A regression of y itself shrinks towards the mean item instead, and then ranks what is
near to everything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.block_penalties import NormalEquations, search, search_rows
from benchmarks.baselines.tfidf import unit

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0, float("inf"))
DIRECTIONS = 64  # of the items' residuals, in which the factors of the blocks are chosen


@dataclass(frozen=True)
class Frame:
    """How a user's vector x (E,) is read: `columns` (m,) are the items', `scale` (E,) makes z."""

    columns: np.ndarray
    scale: np.ndarray
    several: bool

    def own(self, users: np.ndarray) -> np.ndarray:
        """Return u (n, m)."""
        own = users[:, self.columns]
        return unit(own) if self.several else own

    def features(self, users: np.ndarray) -> np.ndarray:
        """Return z (n, E)."""
        return users * self.scale


@dataclass(frozen=True)
class LinearMap:
    """unit(u + z @ weights): `weights` (E, m)."""

    frame: Frame
    weights: np.ndarray

    def __call__(self, users: np.ndarray) -> np.ndarray:
        """Return unit vectors (n, m) of users (n, E), for products with the items' m columns."""
        return unit(self.frame.own(users) + self.frame.features(users) @ self.weights)


def item_columns(items: np.ndarray) -> np.ndarray:
    """Return the columns (m,) in which some item of a catalogue (num_items, E) is not 0."""
    return np.flatnonzero((items != 0).any(0))


def equal_blocks(users: np.ndarray, columns: np.ndarray, blocks: Mapping[str, slice]) -> Frame:
    """Return how vectors (n, E) are read without a choice: of several blocks, all at factor 1."""
    if len(blocks) < 2:
        return Frame(columns, np.ones(users.shape[1]), several=False)
    mean_square = np.square(users, dtype=np.float64).mean(0)
    scale = 1 / np.sqrt(np.where(mean_square > 0, mean_square, 1))
    return Frame(columns, scale, several=True)


def frame_of(
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    columns: np.ndarray,
    blocks: Mapping[str, slice],
) -> tuple[Frame, dict[str, float]]:
    """Return how users are read, and the factor of each block where there are several.

    `train` and `valid` are users (n, E) and their items (n, E), whose `columns` (m,) are not 0. The
    factors are those of a ridge of the items' residuals in their DIRECTIONS of most variance.
    """
    frame = equal_blocks(train[0], columns, blocks)
    if not frame.several:
        return frame, {}
    rows = search_rows(len(train[0]))
    z, z_valid = (frame.features(users) for users in (train[0][rows], valid[0]))
    residual, other = (
        items[:, columns] - frame.own(users)
        for users, items in ((train[0][rows], train[1][rows]), valid)
    )
    directions = np.linalg.eigh(residual.T @ residual)[1][:, -DIRECTIONS:]
    equations = NormalEquations((z, residual @ directions), (z_valid, other @ directions), blocks)
    penalties = search(equations)
    scale = frame.scale * penalties.of_columns(blocks, len(frame.scale))
    return Frame(columns, scale, several=True), dict(penalties.factors)


def linear_maps(
    users: np.ndarray, items: np.ndarray, frame: Frame | None = None
) -> Callable[[float], LinearMap]:
    """Return the map of a strength, fitted on vectors of users (n, E) and their items (n, E).

    One eigendecomposition serves all strengths. ValueError where there is no pair.
    """
    if not len(users):
        raise ValueError("no user to fit a linear map on; are there users in this split?")
    if frame is None:
        frame = Frame(np.arange(users.shape[1]), np.ones(users.shape[1]), several=False)
    z = frame.features(users.astype(np.float64))
    residual = items[:, frame.columns].astype(np.float64) - frame.own(users.astype(np.float64))
    values, vectors = np.linalg.eigh(z.T @ z)
    cross = vectors.T @ (z.T @ residual)
    mean = max(float(values.mean()), 1e-12)

    def fitted(strength: float) -> LinearMap:
        shrunk = cross / (np.maximum(values, 0) + strength * mean)[:, None]
        return LinearMap(frame, vectors @ shrunk)

    return fitted


def tuned_map(
    maps: Callable[[float], LinearMap], loss: Callable[[LinearMap], float]
) -> tuple[LinearMap, float]:
    """Return the map of the least `loss` over STRENGTHS, and its strength."""
    strength = min(STRENGTHS, key=lambda one: loss(maps(one)))
    return maps(strength), strength
