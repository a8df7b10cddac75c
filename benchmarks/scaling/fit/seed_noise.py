"""How far two seeds of one configuration lie apart, by the size of the model.

Small models differ more: .8 % at 25,000 parameters and .3 % at ten times as many are common. A fit
that trusts all runs alike follows the noise of the least, and an interval that knows one noise is
too narrow there and too wide at the size that is predicted.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from benchmarks.scaling.fit.run_table import Runs
from benchmarks.scaling.fit.selection import CONFIGURATION, groups

STEEPEST = 1.5  # bound of the power; noise that grows with the size is taken as constant
FEWEST = 4  # degrees of freedom, at two sizes or more, from which a power is fitted


@dataclass(frozen=True)
class SeedNoise:
    """The sd of a log loss between seeds: sd (N / middle)^-falls, of so many degrees of freedom.

    `sd` is NaN and `freedom` 0 where no configuration was trained twice.
    """

    sd: float
    falls: float
    middle: float
    freedom: int

    def at(self, sizes: np.ndarray) -> np.ndarray:
        """Return the sd at sizes of any shape."""
        return self.sd * (sizes / self.middle) ** -self.falls


def seed_noise(runs: Runs, size: str = "params") -> SeedNoise:
    """Return the noise of the seeds of `runs`, by the column `size`.

    The likelihood of normal errors, whose variance is a power of N: with the middle at the mean log
    N of the degrees of freedom, the power is that of the least sum of squares, which is convex.
    """
    same = groups(runs, CONFIGURATION)
    logs, sizes = np.log(runs["loss"]), runs[size].astype(np.float64)
    count = np.bincount(same)
    off = logs - (np.bincount(same, logs) / count)[same]
    freedom = int((count - 1).sum())
    if not freedom:
        return SeedNoise(float("nan"), 0.0, 1.0, 0)
    share = ((count - 1) / count)[same] / freedom  # of each row in the degrees of freedom
    middle = float(np.exp(share @ np.log(sizes)))
    square = off**2 / freedom

    def variance(falls: float) -> float:
        return float(square @ (sizes / middle) ** (2 * falls))

    falls = 0.0
    if freedom >= FEWEST and len(np.unique(sizes[share > 0])) > 1 and variance(0.0) > 0:
        least: Any = minimize_scalar(variance, bounds=(0.0, STEEPEST), method="bounded")
        falls = float(least.x)
        falls = falls if variance(falls) < variance(0.0) else 0.0
    return SeedNoise(float(np.sqrt(variance(falls))), falls, middle, freedom)
