"""How often do the intervals hold the truth? On runs drawn from a law that is known."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.scaling.fit.law_intervals import bootstrap
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.least_squares import fit
from benchmarks.scaling.fit.selection import Sample


@dataclass(frozen=True)
class Design:
    """Where runs stand, a `sample` whose losses are drawn, and a point beyond (1, k).

    The log losses of a cluster share an error of sd `shared`, each run has its own of sd `noise`.
    """

    name: str
    sample: Sample
    beyond: np.ndarray
    truth: Mapping[str, float]
    noise: float
    shared: float = 0.0


def coverage(design: Design, *, sets: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Return the shares of `sets` in which an interval of 95 % holds the truth.

    Of E and each exponent; of the law's loss at the point beyond ("curve"), and of the loss of one
    new run there ("run"); "run, 80 %" of the narrower one. Starts are the grid's ninth part.
    """
    sample = design.sample
    law = PowerLaw.on(sample.factors, sample.x)
    theta = law.parameters(design.truth)
    true, beyond = law.loss(theta, sample.x), float(law.loss(theta, design.beyond)[0])
    kept: list[dict[str, bool]] = []
    for number in range(sets):
        draw = np.random.default_rng([seed, number])
        shared = draw.normal(0, design.shared, sample.clusters.max() + 1)
        error = shared[sample.clusters] + draw.normal(0, design.noise, len(true))
        losses = true * np.exp(error)
        fitted = fit(law, sample.x, losses, most=6)
        drawn = bootstrap(fitted, replace(sample, losses=losses), resamples=resamples, seed=number)
        whole = float(np.hypot(design.noise, design.shared))
        new = beyond * float(np.exp(draw.normal(0, whole)))
        run = drawn.predict(design.beyond, seed=number)[0]
        bands = drawn.coefficients()
        names = [name for name in bands if name == "E" or name.startswith("a_")]
        kept.append(
            {
                **{name: bands[name].holds(design.truth[name]) for name in names},
                "curve": drawn.curve(design.beyond)[0].holds(beyond),
                "run": run.holds(new),
                "run, 80 %": run.holds(new, 80),
            }
        )
    return {name: float(np.mean([held[name] for held in kept])) for name in kept[0]}


def compute_design(runs: int, decades: float = 3.0, noise: float = 0.005) -> Design:
    """Return single runs of L(C) = 1.5 + 2 C^-0.2, with a point a decade beyond."""
    flops = np.logspace(0, decades, runs)
    name = f"L(C), {runs} runs over {decades:g} decades, noise {noise:.1%}"
    sample = Sample(("C",), flops[:, None], flops, np.arange(runs), flops)
    beyond = np.array([[10 * flops[-1]]])
    return Design(name, sample, beyond, {"E": 1.5, "A_C": 2.0, "a_C": 0.2}, noise)


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
    name = f"L(N, D), {len(sizes)} sizes x {len(lengths)} lengths x {seeds} seeds, {what}"
    sample = Sample(("N", "D"), np.stack([n, d], 1), n, clusters, 6 * n * d)
    return Design(name, sample, beyond, truth, 0.003 if shared else 0.005, shared)
