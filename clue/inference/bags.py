"""Bags of what users met: all of it alike, or the newest foremost."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from clue.data.ragged import Ragged

Matrix = Any  # a csr_matrix, whose data SciPy's types do not know


@dataclass(frozen=True)
class Bag:
    """Weights (n, items) of what n users met, divided by each user's `norm` (n,).

    Bags of several services are one: the sum of norm x row over the root of the sum of norm^2.
    """

    weights: Matrix
    norm: np.ndarray


def uniform_bag(histories: Ragged, items: int) -> Bag:
    """Return the bag of all alike: 1 + log c for an item met c times.

    The norm is the root of the number of distinct items.
    """
    weights = _matrix(np.ones(len(histories.values)), histories, items)
    weights.data = 1 + np.log(weights.data)
    return _normalised(weights, np.sqrt(np.diff(weights.indptr)))


def recent_bag(histories: Ragged, items: int) -> Bag:
    """Return the bag in which the events weigh 1, 1/2, 1/3 … from the newest.

    The norm is the root of the sum of the squares of the items' weights.
    """
    newest = np.repeat(histories.offsets[1:], histories.lengths)
    weights = _matrix(1 / (newest - np.arange(len(histories.values))), histories, items)
    rows = np.repeat(np.arange(len(histories)), np.diff(weights.indptr))
    squares = np.bincount(rows, weights.data**2, minlength=len(histories))
    return _normalised(weights, np.sqrt(squares))


def _matrix(values: np.ndarray, histories: Ragged, items: int) -> Matrix:
    shape = (len(histories), items)
    matrix: Matrix = csr_matrix((values, histories.values, histories.offsets), shape, copy=True)
    matrix.sum_duplicates()
    return matrix


def _normalised(weights: Matrix, norm: np.ndarray) -> Bag:
    weights.data /= np.repeat(norm, np.diff(weights.indptr))
    return Bag(weights, norm)
