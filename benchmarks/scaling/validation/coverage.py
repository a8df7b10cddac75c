"""How often do the intervals hold the truth? On runs drawn from a law that is known."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.scaling.fit.law_intervals import bootstrap
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.least_squares import fit
from benchmarks.scaling.fit.selection import Sample


@dataclass(frozen=True)
class Design:
    """Where runs stand and what is true: factors x (n, k), clusters, FLOPs, a point beyond (1, k).

    The log losses of a cluster share an error of sd `shared`, each run has its own of sd `noise`.
    """

    name: str
    factors: tuple[str, ...]
    x: np.ndarray
    clusters: np.ndarray
    flops: np.ndarray
    beyond: np.ndarray
    truth: Mapping[str, float]
    noise: float
    shared: float = 0.0


def coverage(design: Design, *, sets: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Return the shares of `sets` in which an interval of 95 % holds the truth.

    Of E and each exponent; of the law's loss at the point beyond ("curve"), and of the loss of one
    new run there ("run"); "run, 80 %" of the narrower one. Starts are the grid's ninth part.
    """
    law = PowerLaw.on(design.factors, design.x)
    theta = law.parameters(design.truth)
    true, beyond = law.loss(theta, design.x), float(law.loss(theta, design.beyond)[0])
    kept: dict[str, list[bool]] = {}
    for number in range(sets):
        draw = np.random.default_rng([seed, number])
        shared = draw.normal(0, design.shared, design.clusters.max() + 1)
        error = shared[design.clusters] + draw.normal(0, design.noise, len(true))
        losses = true * np.exp(error)
        sample = Sample(design.factors, design.x, losses, design.clusters, design.flops)
        fitted = fit(law, design.x, losses, most=6)
        drawn = bootstrap(fitted, sample, resamples=resamples, seed=number)
        whole = float(np.hypot(design.noise, design.shared))
        new = beyond * float(np.exp(draw.normal(0, whole)))
        held = {
            name: band.holds(design.truth[name])
            for name, band in drawn.coefficients().items()
            if name == "E" or name.startswith("a_")
        }
        run = drawn.predict(design.beyond, seed=number)[0]
        held |= {
            "curve": drawn.curve(design.beyond)[0].holds(beyond),
            "run": run.holds(new),
            "run, 80 %": run.holds(new, 80),
        }
        for name, inside in held.items():
            kept.setdefault(name, []).append(inside)
    return {name: float(np.mean(inside)) for name, inside in kept.items()}


def compute_design(runs: int, decades: float = 3.0, noise: float = 0.005) -> Design:
    """Return single runs of L(C) = 1.5 + 2 C^-0.2, with a point a decade beyond."""
    flops = np.logspace(0, decades, runs)
    truth = {"E": 1.5, "A_C": 2.0, "a_C": 0.2}
    beyond = np.array([[10 * flops[-1]]])
    return Design(
        f"L(C), {runs} runs over {decades:g} decades, noise {noise:.1%}",
        *(("C",), flops[:, None], np.arange(runs), flops, beyond, truth, noise),
    )


def surface_design(truth: Mapping[str, float], *, shared: float = 0.0) -> Design:
    """Return 8 sizes by 5 lengths, two trainings of each size whose ends are the lengths if shared.

    The point beyond is at 10 x both.
    """
    sizes, lengths, seeds = np.logspace(6, 9, 8), np.logspace(8, 11, 5), 2
    n, d, s = (part.ravel() for part in np.meshgrid(sizes, lengths, range(seeds), indexing="ij"))
    training = np.searchsorted(sizes, n) * seeds + s.astype(np.int64)
    clusters = training if shared else np.arange(len(n))
    what = f"one error a training {shared:.1%}" if shared else "independent"
    beyond = np.array([[10 * sizes[-1], 10 * lengths[-1]]])
    return Design(
        f"L(N, D), {len(sizes)} sizes x {len(lengths)} lengths x {seeds} seeds, {what}",
        *(("N", "D"), np.stack([n, d], 1), clusters, 6 * n * d, beyond, truth),
        noise=0.003 if shared else 0.005,
        shared=shared,
    )
