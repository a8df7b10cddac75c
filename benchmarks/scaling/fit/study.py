"""Every law of a table of runs, each fitted on the runs that it is a law of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.scaling.fit.law_intervals import Bootstrap, bootstrap
from benchmarks.scaling.fit.laws import Law, PowerLaw, RepeatedLaw
from benchmarks.scaling.fit.least_squares import DELTA, fit
from benchmarks.scaling.fit.run_table import Runs, fit_rows
from benchmarks.scaling.fit.seed_noise import SeedNoise, seed_noise
from benchmarks.scaling.fit.selection import (
    HELD,
    Sample,
    best_rates,
    frontier,
    main_grid,
    one_factor,
)
from benchmarks.scaling.fit.sensitivity import FEW


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
    size: Literal["params", "params_hidden"] = "params"
    data: Literal["pairs", "users", "events"] = "pairs"
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
    """The bootstrapped laws by name, the rows of each, and why others are not there.

    `noise` is that of the seeds by the `size` of the surface; rows weigh by it where it is known.
    """

    runs: Runs
    noise: SeedNoise
    size: str
    fits: Mapping[str, Bootstrap]
    rows: Mapping[str, Runs]
    refused: Mapping[str, str]

    def __getitem__(self, name: str) -> Bootstrap:
        """Return a law; ValueError with why it is not there."""
        if name not in self.fits:
            raise ValueError(f"no law {name}: {self.refused[name]}")
        return self.fits[name]

    def sample(self, name: str) -> Sample:
        """Return what a law was fitted on."""
        return Sample.of(self.rows[name], self.fits[name].fit.law.factors)

    def seed_sd(self, name: str) -> float:
        """Return the sd between seeds at the middle of a law's runs; NaN where it is unknown."""
        return _middle(self.noise, self.rows[name][self.size])

    def scales(self, name: str, sizes: np.ndarray) -> np.ndarray:
        """Return the noise at sizes (m,) over that of a law's runs; 1 where none is known."""
        if not self.noise.freedom:
            return np.ones(len(sizes))
        return self.noise.at(sizes) / self.seed_sd(name)


def laws_of(config: FitConfig, runs: Runs, names: Sequence[str] = ()) -> Laws:
    """Return all laws, or those of `names`, that the rows of role "fit" allow.

    Raises what `fit_rows` raises.
    """
    runs = fit_rows(runs, min_decades=config.min_decades, drop_unannealed=config.drop_unannealed)
    noise = seed_noise(runs, config.size)
    if noise.freedom and noise.sd > 0:
        runs = runs.replace(noise=noise.at(runs[config.size]))
    fits: dict[str, Bootstrap] = {}
    rows: dict[str, Runs] = {}
    refused: dict[str, str] = {}
    for name, (chosen, factors) in wanted(config, runs).items():
        if names and name not in names:
            continue
        try:
            sample = Sample.of(chosen, factors)
            law = _form(name, sample)
            fitted = fit(
                law,
                sample.x,
                sample.losses,
                scales=sample.scales,
                delta=config.delta,
                most=config.starts,
            )
            sd = _middle(noise, chosen[config.size])
            fits[name] = bootstrap(
                fitted,
                sample,
                resamples=config.resamples,
                seed=config.seed,
                noise=(sd, noise.freedom),
            )
            rows[name] = chosen
        except ValueError as error:
            refused[name] = str(error)
    return Laws(runs, noise, config.size, fits, rows, refused)


def _middle(noise: SeedNoise, sizes: np.ndarray) -> float:
    return float(np.exp(np.log(noise.at(sizes)).mean()))


def _form(name: str, sample: Sample) -> Law:
    if name != "repeated":
        irreducible = not name.endswith(", E = 0")
        return PowerLaw.on(sample.factors, sample.x, irreducible=irreducible)
    again = sample.x[:, 1] > 1.5 * sample.x[:, 2]
    if again.sum() < 3:
        raise ValueError(
            f"{again.sum()} runs read their data more than 1.5 times; what repetition is worth "
            "needs 3 or more"
        )
    return RepeatedLaw.on(sample.factors, sample.x)


def wanted(config: FitConfig, runs: Runs) -> dict[str, tuple[Runs, tuple[str, ...]]]:
    """Return the runs and factors of every law by its name."""
    # what the main grid holds must not vary in a law of other factors
    held = ("batch", "max_events", *(["users"] if config.data == "pairs" else []))
    best = best_rates(main_grid(runs, held))
    again = best_rates(main_grid(runs, held[:2]))
    again = again.replace(distinct=again["pairs"] / np.maximum(1.0, again["epochs"]))
    cheapest = frontier(best)
    surface = (config.size, config.data)
    laws: dict[str, tuple[Runs, tuple[str, ...]]] = {
        "compute": (cheapest, ("flops",)),
        "compute, E = 0": (cheapest, ("flops",)),
        "surface": (best, surface),
        "surface, E = 0": (best, surface),
        "repeated": (again, (config.size, "pairs", "distinct")),
        **{factor: (one_factor(runs, factor), (factor,)) for factor in HELD},
    }
    laws["params, E = 0"] = laws["params"]
    equal = one_factor(runs, "batch", ("params", "steps", "users", "max_events"))
    return {**laws, "batch at equal steps": (equal, ("batch",))}
