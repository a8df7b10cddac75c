"""Models of given vectors that keep the pasts they are asked for."""

import numpy as np

from benchmarks.protocols import WHOLE
from benchmarks.snapshot import Snapshot


class GivenUsers:
    """Vectors of users by their rows of the corpus, and none of items."""

    name, seed, fingerprint = "given", 0, "given"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, users: np.ndarray) -> None:
        self.vectors = users
        self.pasts: list[Snapshot] = []

    def users(self, past: Snapshot) -> np.ndarray:
        self.pasts.append(past)
        return self.vectors[past.users]


class Given:
    """The same, and vectors of the catalogue's items."""

    name, seed, fingerprint = "given", 0, "given"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        self.vectors, self.catalogue = users, items
        self.pasts: list[Snapshot] = []

    def users(self, past: Snapshot) -> np.ndarray:
        self.pasts.append(past)
        return self.vectors[past.users]

    def items(self) -> np.ndarray:
        return self.catalogue
