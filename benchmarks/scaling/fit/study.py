"""Every law of a table of runs, each fitted on the runs that it is a law of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.scaling.fit.data_constrained import RepeatedLaw
from benchmarks.scaling.fit.law_intervals import Bootstrap, bootstrap
from benchmarks.scaling.fit.laws import Law, PowerLaw
from benchmarks.scaling.fit.least_squares import DELTA, fit
from benchmarks.scaling.fit.run_table import Runs, fit_rows
from benchmarks.scaling.fit.selection import (
    HELD,
    Sample,
    best_rates,
    frontier,
    main_grid,
    noise,
    one_factor,
)
from benchmarks.scaling.fit.sensitivity import FEW

Size = Literal["params", "params_hidden"]
Data = Literal["pairs", "users", "events"]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What is fitted: the runs of role "fit" in `table`.

    `size` and `data` are N and D of the surface. A table of fewer decades of compute than
    `min_decades` is refused. `starts` is the most starts of a fit, `few` of those of the
    sensitivity table and the ladder. `scores` is a Parquet or JSON of (loss, task, score), for its
    figure. `curves` is a Parquet of (point, flops, loss) along the trainings, for theirs.
    """

    table: Path
    out: Path = Path("results/scaling")
    size: Size = "params"
    data: Data = "pairs"
    min_decades: float = 3.0
    drop_unannealed: bool = False
    delta: float = DELTA
    starts: int = 54
    few: int = FEW
    resamples: int = 2000
    seed: int = 0
    scores: Path | None = None
    curves: Path | None = None
    figures: bool = True


@dataclass(frozen=True)
class Laws:
    """The bootstrapped laws by name, the rows of each, and why others are not there."""

    runs: Runs
    found: Mapping[str, Bootstrap]
    rows: Mapping[str, Runs]
    refused: Mapping[str, str]

    def sample(self, name: str) -> Sample:
        """Return what a law was fitted on."""
        return Sample.of(self.rows[name], self.found[name].fit.law.factors)


def laws_of(config: FitConfig, runs: Runs, only: Sequence[str] = ()) -> Laws:
    """Fits all laws, or `only` those named, that the rows of role "fit" allow.

    Raises what `fit_rows` raises.
    """
    mine = fit_rows(runs, min_decades=config.min_decades, drop_unannealed=config.drop_unannealed)
    sd = noise(mine)[0]
    found: dict[str, Bootstrap] = {}
    rows: dict[str, Runs] = {}
    refused: dict[str, str] = {}
    for name, chosen, factors, form in wanted(config, mine):
        if only and name not in only:
            continue
        try:
            sample = Sample.of(chosen, factors)
            law = form(sample)
            fitted = fit(law, sample.x, sample.losses, delta=config.delta, most=config.starts)
            found[name] = bootstrap(
                fitted, sample, resamples=config.resamples, seed=config.seed, noise=sd
            )
            rows[name] = chosen
        except ValueError as error:
            refused[name] = str(error)
    return Laws(mine, found, rows, refused)


def wanted(config: FitConfig, runs: Runs) -> list[tuple[str, Runs, tuple[str, ...], Any]]:
    """Return name, runs, factors and form of every law; a form makes a law of a sample."""

    def plain(sample: Sample) -> Law:
        return PowerLaw.on(sample.factors, sample.x)

    def pure(sample: Sample) -> Law:
        return PowerLaw.on(sample.factors, sample.x, irreducible=False)

    def repeated(sample: Sample) -> Law:
        again = sample.x[:, 1] > 1.5 * sample.x[:, 2]
        if again.sum() < 3:
            raise ValueError(
                f"{again.sum()} runs read their data more than 1.5 times; what repetition is worth "
                "needs 3 or more"
            )
        size, data, distinct = sample.factors
        return RepeatedLaw.on((size, data, distinct), sample.x)

    # what the main grid holds must not vary in a law of other factors
    held = ("batch", "max_events", *(["users"] if config.data == "pairs" else []))
    best = best_rates(main_grid(runs, held))
    again = _with_distinct(best_rates(main_grid(runs, held[:2])))
    cheapest = frontier(best)
    surface = (config.size, config.data)
    laws: list[tuple[str, Runs, tuple[str, ...], Any]] = [
        ("compute", cheapest, ("flops",), plain),
        ("compute, E = 0", cheapest, ("flops",), pure),
        ("surface", best, surface, plain),
        ("surface, E = 0", best, surface, pure),
        ("repeated", again, (config.size, "pairs", "distinct"), repeated),
    ]
    for factor in HELD:
        laws.append((factor, one_factor(runs, factor), (factor,), plain))
        if factor == "batch":
            held = ("params", "steps", "users", "max_events")
            laws.append(("batch at equal steps", one_factor(runs, factor, held), (factor,), plain))
    return laws


def _with_distinct(runs: Runs) -> Runs:
    """Return the runs with the number of distinct pairs: those read, over the epochs."""
    return runs.replace(distinct=runs["pairs"] / np.maximum(1.0, runs["epochs"]))
