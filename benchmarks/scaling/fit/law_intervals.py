"""Intervals of a law: trainings are drawn anew, budget by budget, and the law is fitted again.

A training is drawn with all its rows, since they are not independent. Within a stratum of few
trainings a bootstrap spreads too little, by (m - 1) / m in the variance: strata hold FEWEST or
more, and what comes of m trainings and p parameters is spread by sqrt(m / (m - p)) about the fit.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.scaling.fit.least_squares import Fit, refit
from benchmarks.scaling.fit.selection import Sample

FEWEST = 6


@dataclass(frozen=True)
class Band:
    """A value with its percentile intervals of 80 and 95 %."""

    value: float
    low80: float
    high80: float
    low95: float
    high95: float

    @staticmethod
    def of(value: float, drawn: np.ndarray) -> "Band":
        """Return band of a value from its draws (R,); those that are not finite are left out."""
        known = drawn[np.isfinite(drawn)]
        if not len(known):
            return Band(value, *[float("nan")] * 4)
        low95, low80, high80, high95 = np.percentile(known, [2.5, 10, 90, 97.5]).tolist()
        return Band(value, low80, high80, low95, high95)

    def holds(self, value: float, level: int = 95) -> bool:
        """Return whether a value lies in the interval of 80 or 95 %."""
        low, high = (self.low80, self.high80) if level == 80 else (self.low95, self.high95)
        return low <= value <= high


@dataclass(frozen=True)
class Bootstrap:
    """A fit and its parameters on R resamples, thetas (R, p).

    `noise` is the sd of a log loss where `scales` is 1, known from `freedom` degrees of freedom.
    `wider` is by how much draws are spread about the fit.
    """

    fit: Fit
    thetas: np.ndarray
    noise: float
    freedom: int
    wider: float

    def coefficients(self) -> dict[str, Band]:
        """Return band of each coefficient: A and a hang together, so none of A alone is news."""
        law = self.fit.law
        drawn = [law.coefficients(theta) for theta in self.thetas]
        bands: dict[str, Band] = {}
        for name, value in law.coefficients(self.fit.theta).items():
            each = np.array([one.get(name, np.nan) for one in drawn])
            if name == "E" or name.startswith("a_"):  # those have a bound at 0, others are scales
                spread = np.maximum(0.0, value + self.wider * (each - value))
                bands[name] = Band.of(value, spread)
            else:
                bands[name] = self.scale(value, each)
        return bands

    def scale(self, value: float, drawn: np.ndarray) -> Band:
        """Return the band of a positive value from its draws (R,), spread in their logs."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return Band.of(value, value * np.exp(self.wider * np.log(drawn / value)))

    def curve(self, x: np.ndarray) -> list[Band]:
        """Return the band of the law itself at factors (m, k)."""
        values, drawn = self.fit.loss(x).tolist(), self.fit.law.loss(self.thetas, x).T
        return [self.scale(value, each) for value, each in zip(values, drawn, strict=True)]

    def predict(
        self, x: np.ndarray, scales: np.ndarray | float = 1.0, *, seed: int = 0
    ) -> list[Band]:
        """Return the band of the loss of one new training at factors (m, k): curve and noise."""
        values, drawn = self.fit.loss(x).tolist(), self.predictive(x, scales, seed=seed).T
        return [Band.of(value, each) for value, each in zip(values, drawn, strict=True)]

    def predictive(
        self, x: np.ndarray, scales: np.ndarray | float = 1.0, *, seed: int = 0
    ) -> np.ndarray:
        """Return the losses (R, m) of new trainings: of each resample's law, with its own noise.

        The noise is Student's, for its sd is an estimate; `scales` (m,) is what it is there over
        that of the fitted runs.
        """
        value, drawn = self.fit.loss(x), self.fit.law.loss(self.thetas, x)
        student = np.random.default_rng(seed).standard_t(self.freedom, drawn.shape)
        shift = self.noise * scales * student
        return value * np.exp(self.wider * np.log(drawn / value) + shift)


def bootstrap(
    fitted: Fit,
    sample: Sample,
    *,
    resamples: int = 2000,
    seed: int = 0,
    noise: tuple[float, int] = (float("nan"), 0),
) -> Bootstrap:
    """Return the fit on `resamples` draws of the sample's clusters, by strata of their FLOPs.

    `noise` is the sd of the log loss between seeds where the scale is 1, NaN where unknown, and its
    degrees of freedom; where the residuals spread more, for the form is not the truth, theirs is
    taken.
    """
    weights = draws(sample.clusters, sample.flops, resamples=resamples, seed=seed)
    logs = np.log(sample.losses)
    thetas = refit(
        fitted.law,
        fitted.theta,
        sample.x,
        logs,
        weights,
        scales=sample.scales,
        delta=fitted.delta,
    )
    free = len(np.unique(sample.clusters))
    wider = np.sqrt(free / max(1.0, free - len(fitted.theta)))
    spread = fitted.spread, max(1, len(sample) - len(fitted.theta))
    return Bootstrap(fitted, thetas, *(noise if noise[0] > spread[0] else spread), float(wider))


def draws(clusters: np.ndarray, flops: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Return weights (R, n): how often each row is drawn, the same for the rows of a cluster."""
    distinct, cluster = np.unique(clusters, return_inverse=True)
    mean = np.bincount(cluster, np.log(flops)) / np.bincount(cluster)
    generator = np.random.default_rng(seed)
    times = np.zeros((resamples, len(distinct)))
    for stratum in strata(mean):
        share = np.full(len(stratum), 1 / len(stratum))
        times[:, stratum] = generator.multinomial(len(stratum), share, size=resamples)
    return times[:, cluster]


def strata(log_flops: np.ndarray, fewest: int = FEWEST) -> list[np.ndarray]:
    """Return the clusters (their numbers, ascending in FLOPs) in strata of `fewest` or more.

    Those of one budget stay together; what is left over at the top joins the last stratum.
    """
    order = np.argsort(log_flops, kind="stable")
    ends = [0]
    for at in range(1, len(order)):
        same = log_flops[order[at]] - log_flops[order[at - 1]] < 0.1
        if at - ends[-1] >= fewest and not same:
            ends.append(at)
    if len(ends) > 1 and len(order) - ends[-1] < fewest:
        ends.pop()
    return np.split(order, ends[1:])
