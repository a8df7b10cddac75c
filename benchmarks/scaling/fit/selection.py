"""Which runs a law is fitted on: the frontier of a compute law, one factor with the rest held."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.scaling.fit.run_table import Runs

SHAPE = ("params", "width", "layers")  # 16 x 4 layers may have the parameters of 32 x 1
CONFIGURATION = (*SHAPE, "pairs", "users", "steps", "batch", "max_events", "lr")
# Of each factor what is held while it varies. `steps` beside `batch` is the other comparison.
HELD = {
    "params": ("pairs", "users", "batch", "max_events"),
    "pairs": ("params", "users", "batch", "max_events"),
    "users": ("params", "pairs", "batch", "max_events"),
    "max_events": ("params", "pairs", "users", "batch"),
    "batch": ("params", "pairs", "users", "max_events"),
}


@dataclass(frozen=True)
class Sample:
    """What a law is fitted on: factors x (n, k), losses, clusters and FLOPs (n,).

    `scales` (n,), or (1,) for all, is the noise of each row over that of the others (their
    geometric mean): a fit divides residuals by it.
    """

    factors: tuple[str, ...]
    x: np.ndarray
    losses: np.ndarray
    clusters: np.ndarray
    flops: np.ndarray
    scales: np.ndarray = field(default_factory=lambda: np.ones(1))

    @staticmethod
    def of(runs: Runs, factors: Sequence[str]) -> "Sample":
        """Return the runs' columns of those names as factors, scaled where they have `noise`."""
        x = np.stack([runs[name].astype(np.float64) for name in factors], 1)
        noise = runs.columns.get("noise", np.ones(len(runs)))
        scales = noise / np.exp(np.log(noise).mean())
        return Sample(tuple(factors), x, runs["loss"], runs.clusters, runs["flops"], scales)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.losses)

    def take(self, rows: np.ndarray) -> "Sample":
        """Return the rows that a mask (n,) or indices (m,) choose."""
        scales = np.broadcast_to(self.scales, len(self))
        columns = (self.x, self.losses, self.clusters, self.flops, scales)
        return Sample(self.factors, *(column[rows] for column in columns))


def budgets(flops: np.ndarray, tolerance: float = 0.25) -> np.ndarray:
    """Return the number (n,) of each row's budget, ascending from 0.

    A budget begins with its least FLOPs and holds what is at most `tolerance` (a share) above.
    """
    starts: list[float] = []
    for one in np.sort(flops):
        if not starts or one > starts[-1] * (1 + tolerance):
            starts.append(float(one))
    return np.searchsorted(starts, flops, side="right") - 1


def largest(flops: np.ndarray, losses: np.ndarray) -> float:
    """Return the least loss of the largest budget: the predictor that nothing gets better."""
    return float(losses[budgets(flops) == budgets(flops).max()].min())


def main_grid(runs: Runs, held: Sequence[str] = ("batch", "max_events", "users")) -> Runs:
    """Return the largest group of runs that are equal in what the main grid holds."""
    group = groups(runs, held)
    return runs.take(group == np.bincount(group).argmax())


def frontier(runs: Runs) -> Runs:
    """Return of each budget the run of least loss, where nothing cheaper is as good.

    Runs of one configuration that differ in their seed stay together if the best of their mean is.
    """
    number = budgets(runs["flops"])
    kept: list[np.ndarray] = []
    least = np.inf
    for budget in range(number.max() + 1):
        rows = np.flatnonzero(number == budget)
        group = groups(runs.take(rows), CONFIGURATION)
        means = np.bincount(group, runs["loss"][rows]) / np.bincount(group)
        if means.min() < least:
            least = float(means.min())
            kept.append(rows[group == means.argmin()])
    return runs.take(np.concatenate(kept))


def one_factor(runs: Runs, factor: str, held: Sequence[str] | None = None) -> Runs:
    """Return the runs in which `factor` varies and all else that matters is held.

    Of the groups of equal rest it is the one with the most values of the factor, of equal ones
    that with the most FLOPs; numbers within 5 % are equal. Where a configuration was tried with
    several learning rates, only the best of them stays.
    """
    keys = HELD[factor] if held is None else held
    rest = np.stack([np.round(np.log(runs[key]) / np.log(1.05)) for key in keys], 1)
    group = np.unique(rest, axis=0, return_inverse=True)[1].ravel()

    def worth(number: int) -> tuple[int, float]:
        rows = group == number
        return len(np.unique(runs[factor][rows])), float(runs["flops"][rows].max())

    best = max(range(group.max() + 1), key=worth)
    return best_rates(runs.take(group == best))


def best_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the learning rate of the least mean loss; rates and losses (n,)."""
    return min(np.unique(rates), key=lambda rate: losses[rates == rate].mean())


def best_rates(runs: Runs) -> Runs:
    """Return the runs at the best learning rate of each configuration, by the mean over seeds."""
    rates, losses = runs["lr"], runs["loss"]
    keep = np.zeros(len(runs), bool)
    for rows in _tried(runs):
        keep[rows[rates[rows] == best_rate(rates[rows], losses[rows])]] = True
    return runs.take(keep)


def edge_rates(runs: Runs) -> int:
    """Return how many configurations have their best rate at an end of the several tried."""
    edges = 0
    for rows in _tried(runs):
        rates = runs["lr"][rows]
        best = rates[np.argmin(runs["loss"][rows])]
        edges += rates.min() < rates.max() and best in (rates.min(), rates.max())
    return edges


def _tried(runs: Runs) -> Iterator[np.ndarray]:
    """Yield the rows of each configuration, whatever their learning rate."""
    same = groups(runs, CONFIGURATION[:-1])
    yield from (np.flatnonzero(same == number) for number in range(same.max() + 1))


def groups(runs: Runs, keys: Sequence[str]) -> np.ndarray:
    """Return the number (n,) of the group of rows that are equal in all `keys`."""
    return np.unique(np.stack([runs[k] for k in keys], 1), axis=0, return_inverse=True)[1].ravel()
