"""Benchmark `optim`: Muon against AdamW at equal steps and batch, and what a step of each costs.

    python -m benchmarks.speed optim

Reads corpora/food_kitchen (`python clue/prepare.py configs/prepare/food_kitchen.yaml` makes it).
AdamW comes twice: with one rate, and with a lower rate for the matrices than for the embeddings.
Each arm's rate is the best of a grid by held-out entropy on one seed, the grid widened until the
best is not at its edge; the arms then meet on other seeds. Lower entropy is better.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from benchmarks.speed.interleave import clock_figures, interleaved
from benchmarks.speed.report import Claim, Report, Row, Spread, claim
from benchmarks.speed.trainings import (
    Figures,
    Seeds,
    difference_row,
    make_step,
    reached,
    short_run,
    train,
)
from clue.run.pretrain_config import PretrainConfig
from clue.train.optimiser import OptimizerConfig

ARMS = {"adamw": "adamw", "split": "adamw, split rates", "muon": "muon"}
SPLIT = 16  # the split arm's embeddings learn so many times as fast as its matrices
MOST = 12  # rates of one arm: the grid grows to a factor of 2,048 and no further


@dataclass(frozen=True, kw_only=True)
class Config:
    """The run that the arms do: `config` with a smaller model; `rates` are the first grids."""

    config: Path = Path("configs/pretrain/food_kitchen.yaml")
    corpus: Path = Path("corpora/food_kitchen")
    runs: Path = Path("runs/speed/optim")
    width: Annotated[int, Field(multiple_of=SPLIT)] = 64
    layers: int = 2
    batch: int = 256
    steps: int = 200
    rates: dict[str, list[float]] = field(
        default_factory=lambda: {
            "adamw": [5e-4, 1e-3, 2e-3],
            "split": [8e-3, 1.6e-2, 3.2e-2],
            "muon": [1.6e-2, 3.2e-2, 6.4e-2],
        }
    )
    tuning_seed: int = 0
    seeds: Seeds = field(default_factory=lambda: [1, 2, 3])
    rounds: int = 9
    threads: int = 1
    out: Path = Path("results/speed/optim.json")

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to compare."""
        if self.tuning_seed in self.seeds:
            raise ValueError(f"seeds {self.seeds} must not hold the tuning_seed {self.tuning_seed}")
        if set(self.rates) != set(ARMS):
            raise ValueError(f"rates has {', '.join(self.rates)}; give a grid to {', '.join(ARMS)}")


def measure(config: Config) -> Report:
    """Tune, train and time the arms."""
    points: list[dict[str, Any]] = []

    def point(arm: str, rate: float, seed: int) -> Figures:
        figures = train(run_of(config, arm, rate, seed))
        points.append({"arm": ARMS[arm], "lr": rate, "seed": seed, **figures})
        return figures

    def tuning(arm: str, rate: float) -> float:
        return point(arm, rate, config.tuning_seed)["entropy"]

    best = {arm: best_rate(config.rates[arm], partial(tuning, arm)) for arm in ARMS}
    runs = {arm: [point(arm, best[arm], seed) for seed in config.seeds] for arm in ARMS}
    times, rows = step_times(config, best), list[Row]()
    for arm, title in ARMS.items():
        figures = {"lr": Spread.of([best[arm]]), **reached(runs[arm])}
        figures |= clock_figures(times, arm, "adamw")
        rows.append(Row(case="at its best rate", arm=title, figures=figures))
    for arm in ("adamw", "split"):
        rows.append(difference_row(f"muon - {ARMS[arm]}", runs["muon"], runs[arm]))
    remarks = notes(config, best, runs["muon"], len(points))
    points += [{"arm": ARMS[arm], "step_seconds": seconds} for arm, seconds in times.items()]
    return Report(rows=rows, claims=claims(rows), notes=remarks, points=points)


def run_of(config: Config, arm: str, rate: float, seed: int) -> PretrainConfig:
    """Return the run of one point.

    The split arm takes its lower rate from the rule for widths, with a base so many times narrower.
    The rule holds lr x weight_decay; we lower the decay as much, for it is to be AdamW's own, in
    step with the matrices' rate.
    """
    keys = [f"name={arm}-lr{rate:g}-seed{seed}", f"corpus={config.corpus}", f"runs={config.runs}"]
    keys += [f"seed={seed}", f"batch={config.batch}", f"optimizer.lr={rate!r}"]
    keys += [f"optimizer.kind={'muon' if arm == 'muon' else 'adamw'}"]
    run = short_run(config.config, config.steps, config.width, (0, config.layers), keys)
    if arm != "split":
        return run
    decay = run.optimizer.weight_decay / SPLIT
    split = replace(run.optimizer, base_width=config.width // SPLIT, weight_decay=decay)
    return replace(run, optimizer=split)


def best_rate(rates: Sequence[float], entropy: Callable[[float], float]) -> float:
    """Return the best rate of a grid that grows by factors of two until its best is inside.

    Raise ValueError where it is at the edge still after MOST rates.
    """
    grid = {rate: entropy(rate) for rate in sorted(rates)}
    while True:
        best = min(grid, key=grid.__getitem__)
        if min(grid) < best < max(grid):
            return best
        if len(grid) >= MOST:
            raise ValueError(
                f"the best of {sorted(grid)} is {best:g}, at the edge: entropy hardly depends on "
                "the rate here; raise steps, or start at other rates"
            )
        following = best / 2 if best == min(grid) else best * 2
        grid[following] = entropy(following)


def step_times(config: Config, best: Mapping[str, float]) -> dict[str, dict[str, list[float]]]:
    """Return each arm's seconds of steps on one batch, the arms in turn."""
    runs = {arm: run_of(config, arm, best[arm], 0) for arm in ARMS}
    return interleaved(
        {arm: make_step(run, config.batch) for arm, run in runs.items()}, config.rounds
    )


def claims(rows: Sequence[Row]) -> list[Claim]:
    """Return what was aimed at: Muon ahead of both, the winner our default, a step no dearer."""
    figures = {row.arm: row.figures for row in rows}
    made: list[Claim] = []
    for arm in ("adamw", "split"):
        pair = f"muon - {ARMS[arm]}"
        what = f"Entropy, {pair}, the upper end of the interval"
        made.append(claim(what, figures[pair]["entropy"].high, "below", 0))
    winner = min(ARMS.values(), key=lambda title: figures[title]["entropy"].median)
    default = OptimizerConfig().kind
    what = f"The winner, {winner}, is the default kind, {default} (1: it is)"
    same = winner == default
    made.append(Claim(what=what, aim="1", found=float(same), holds=same))
    ratio = figures["muon"]["processor / adamw"].median
    made.append(claim("Processor seconds of a step, muon / adamw", ratio, "at most", 1.1))
    return made


def notes(
    config: Config, best: Mapping[str, float], runs: Sequence[Figures], trainings: int
) -> tuple[str, ...]:
    """Return what a reader needs beside the rows."""
    negatives = statistics.fmean(figures["negatives"] for figures in runs)
    rates = ", ".join(f"{title} {best[arm]:g}" for arm, title in ARMS.items())
    seeds = ", ".join(map(str, config.seeds))
    return (
        f"Width {config.width}, {config.layers} layers over events, {config.steps} steps of "
        f"{config.batch} pairs, dropout almost off; held out: entropy in nats against "
        f"{negatives:.0f} negatives, where chance is {math.log(negatives + 1):.3f}.",
        f"Rates ({rates}) were chosen on seed {config.tuning_seed}, figures are of seeds {seeds}; "
        f"{trainings} trainings in all, each in the JSON.",
        f"Split rates: matrices learn at 1/{SPLIT} of the rate of embeddings and norms, their "
        "decay in step with it.",
    )
