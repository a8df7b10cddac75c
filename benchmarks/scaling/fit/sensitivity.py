"""Would another choice have given another law? Choices in turn, groups left out, and the ladder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.least_squares import Fit, fit
from benchmarks.scaling.fit.newton import DELTA
from benchmarks.scaling.fit.run_table import Runs
from benchmarks.scaling.fit.selection import Sample, budgets, largest

DELTAS = (1e-4, 1e-2, 1e-1, 1.0)  # the last is least squares
WORST = 5  # runs of the largest residual that one row leaves out
FEW = 9  # starts of each of these fits by default


@dataclass(frozen=True)
class Choice:
    """A law under another choice: its coefficients and its loss at the reference point.

    `refused` says why there is none.
    """

    name: str
    runs: int
    coefficients: Mapping[str, float]
    reference: float
    refused: str = ""


def fitted(
    sample: Sample, *, irreducible: bool = True, delta: float = DELTA, most: int = FEW
) -> Fit:
    """Return a power law fitted to the sample's factors; raises what `fit` raises."""
    law = PowerLaw.on(sample.factors, sample.x, irreducible=irreducible)
    return fit(law, sample.x, sample.losses, scales=sample.scales, delta=delta, most=most)


def choices(
    runs: Runs, factors: tuple[str, ...], base: Fit, reference: np.ndarray, *, most: int = FEW
) -> list[Choice]:
    """Return the law of the factors under other choices; reference (1, k) is a point to compare at.

    Rows: equal weights where seeds gave others, other deltas, without the cheapest budget, without
    the WORST residuals, the upper half of the compute alone, hidden parameters for all, and, left
    out in turn, every size and every budget (a jackknife).
    """
    sample = Sample.of(runs, factors)

    def choice(
        name: str, sample: Sample, at: np.ndarray = reference, delta: float = DELTA
    ) -> Choice:
        try:
            law = fitted(sample, delta=delta, most=most)
        except ValueError as error:
            return Choice(name, len(sample), {}, float("nan"), str(error))
        coefficients = law.law.coefficients(law.theta)
        return Choice(name, len(sample), coefficients, float(law.loss(at)[0]))

    made = [choice("as reported", sample)]
    if np.ptp(sample.scales):
        made.append(choice("equal weights", replace(sample, scales=np.ones(1))))
    made += [choice(f"delta {d:g}", sample, delta=d) for d in DELTAS]
    keep = np.argsort(np.abs(base.residuals), kind="stable")[: max(0, len(sample) - WORST)]
    parts = {
        "without the cheapest budget": budgets(runs["flops"]) > 0,
        f"without the {WORST} worst": np.sort(keep),
        "upper half of compute": runs["flops"] >= np.median(runs["flops"]),
    }
    made += [choice(name, sample.take(rows)) for name, rows in parts.items()]
    if "params" in factors:
        other = Sample.of(runs, [f if f != "params" else "params_hidden" for f in factors])
        made.append(choice("hidden parameters", other, _hidden(runs, factors, reference)))
    return made + [choice(name, sample.take(mask)) for name, mask in _groups(runs)]


def _hidden(runs: Runs, factors: tuple[str, ...], reference: np.ndarray) -> np.ndarray:
    """Return the reference point with its parameters as hidden ones, between those of the runs."""
    order = np.argsort(runs["params"], kind="stable")
    at = factors.index("params")
    whole, hidden = (np.log(runs[name][order]) for name in ("params", "params_hidden"))
    moved = reference.copy()
    moved[:, at] = np.exp(np.interp(np.log(reference[:, at]), whole, hidden))
    return moved


def _groups(runs: Runs) -> Iterator[tuple[str, np.ndarray]]:
    for size in np.unique(runs["params"]):
        yield f"without {size:,} parameters", runs["params"] != size
    number = budgets(runs["flops"])
    for budget in range(number.max() + 1):
        inside = number == budget
        mean = np.exp(np.log(runs["flops"][inside]).mean())
        yield f"without the budget {mean:.2g}", ~inside


@dataclass(frozen=True)
class Rung:
    """A law fitted up to `cut` FLOPs and what it says of a run above.

    `factor` is the run's compute over the cut; errors are predicted / true - 1, of the law, of the
    pure power law (E = 0) and of "no better than the largest runs below the cut".
    """

    cut: float
    runs: int
    flops: float
    factor: float
    error: float
    pure: float
    last: float


def ladder(sample: Sample, *, most: int = FEW) -> list[Rung]:
    """Return, for every cut between budgets from which a law can be fitted, all runs above it."""
    number = budgets(sample.flops)
    rungs: list[Rung] = []
    for cut in range(number.max()):
        below, above = sample.take(number <= cut), sample.take(number > cut)
        try:
            law = fitted(below, most=most)
            pure = fitted(below, irreducible=False, most=most)
        except ValueError:  # too few runs yet, or of one size
            continue
        last, end = largest(below.flops, below.losses), float(below.flops.max())
        guesses = [law.loss(above.x), pure.loss(above.x), np.full(len(above), last)]
        errors = np.array([guess / above.losses - 1 for guess in guesses])
        for flops, each in zip(above.flops.tolist(), errors.T.tolist(), strict=True):
            rungs.append(Rung(end, len(below), flops, flops / end, *each))
    return rungs
