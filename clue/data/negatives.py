"""Which items a sampled softmax is over: how its negatives are drawn."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64


@dataclass(frozen=True, kw_only=True)
class SoftmaxConfig:
    """Over which items the softmax goes.

    `negatives` K: 0 takes the whole catalogue, else K items are drawn at each step for all
    positions, with replacement. An item is drawn with probability (1 - `uniform`) times its share
    of count^`power`, plus `uniform` / V: an item that is never drawn would be missing from the
    estimate, and so no weight 1 / (K q) is above V / (K `uniform`).
    """

    negatives: int = 0
    power: float = 0.75
    uniform: float = 0.1

    def __post_init__(self) -> None:
        """Validate the range of each number."""
        if self.negatives < 0:
            raise ValueError(
                f"negatives is {self.negatives}; it is the number of items drawn at a step, or 0 "
                "for the softmax over the whole catalogue"
            )
        if self.power < 0:
            raise ValueError(
                f"power is {self.power}; it is at least 0, where all items are drawn alike"
            )
        if not 0 < self.uniform <= 1:
            raise ValueError(
                f"uniform is {self.uniform}; it is the share of draws that ignores counts, in "
                "(0, 1]: at 0 an item without events is never drawn"
            )


class Proposal:
    """Draws the items of a sampled softmax; NumPy alone, so that a sampler's worker can hold it."""

    def __init__(self, counts: Int64[np.ndarray, " V"], config: SoftmaxConfig) -> None:
        """Take how often each item of the catalogue occurs in training.

        Raises ValueError where nothing is to be drawn, or no item occurs.
        """
        if not config.negatives:
            raise ValueError(
                "negatives is 0, the softmax over the whole catalogue, which draws nothing; set it "
                "to 1 or more"
            )
        if not len(counts) or counts.min() < 0 or not counts.any():
            raise ValueError(
                f"counts of {len(counts)} items with sum {counts.sum()} and minimum "
                f"{counts.min(initial=0)}; give the events of each item in training, none negative "
                "and some above 0"
            )
        share = counts.astype(np.float64) ** config.power
        self.negatives = config.negatives
        self.q: Float64[np.ndarray, " V"] = (
            1 - config.uniform
        ) * share / share.sum() + config.uniform / len(counts)
        self._upto = self.q.cumsum()

    def draw(
        self, seed: int, step: int
    ) -> tuple[Int64[np.ndarray, " K"], Float32[np.ndarray, " K"]]:
        """Return the items of a step and log(K q) of each; the same on every process."""
        # four words: shorter seeds are filled up with zeros, and (seed, step) is another's stream
        uniform = np.random.default_rng((seed, step, 0, 1)).random(self.negatives)
        ids = np.searchsorted(self._upto, uniform * self._upto[-1], side="right")
        log_expected = np.log(self.negatives * self.q[ids])
        return ids.astype(np.int64), log_expected.astype(np.float32)
