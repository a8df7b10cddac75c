"""A model of given vectors that keeps the pasts it is asked for."""

from collections.abc import Mapping

import numpy as np

from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot


class Given:
    """Vectors of users by their rows of the corpus, and of the catalogue's items."""

    name, seed, fingerprint, similarity = "given", 0, "given", slice(None)

    def __init__(self, users: np.ndarray, items: np.ndarray | None) -> None:
        self.vectors, self.catalogue = users, items
        self.pasts: list[Snapshot] = []

    @property
    def blocks(self) -> Mapping[str, slice]:
        return one_block(self.vectors.shape[1])

    def users(self, past: Snapshot) -> np.ndarray:
        self.pasts.append(past)
        return self.vectors[past.users]

    def items(self) -> np.ndarray | None:
        return self.catalogue
