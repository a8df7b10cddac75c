"""Command: what to train for a budget, what to expect of it, and when not to believe it.

    python -m benchmarks.scaling plan results/scaling/NAME/runs.parquet --budget 1e18

The size and the data are the optimum of L(N, D); the nearest width, layers, batch, steps and
learning rate that can be built follow the runs. With `scores` (a Parquet or JSON of loss, task and
score of checkpoints) it says what each task is expected to score.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from benchmarks.json_files import write_json
from benchmarks.scaling.fit.downstream_scores import Form, expected, read_scores
from benchmarks.scaling.fit.isoflop import Cost, optima, optimum, power
from benchmarks.scaling.fit.law_intervals import Band, Bootstrap
from benchmarks.scaling.fit.law_summary import EPOCHS, band, described, table_flags
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.run_table import DAY, Runs, read_runs
from benchmarks.scaling.fit.sensitivity import ladder
from benchmarks.scaling.fit.study import FitConfig, Laws, laws_of
from clue.config import run_command

MISS = 0.2  # of the cost's formula among the runs, above which the plan says so
DEEPEST = 64
PROBED = np.logspace(6, 30, 481)  # FLOPs among which a limit of data is looked for


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The budget in FLOPs, and whose law. `width_step` is what widths are multiples of.

    Of a budget whose best run would read its data more than `most_epochs` times, so much is planned
    as does not; 0 allows all.
    """

    fit: FitConfig
    budget: float
    width_step: int = 16
    most_epochs: float = 0.0
    scores: Path | None = None
    score_law: Form = "logit"
    out: Path | None = None


@dataclass(frozen=True)
class Build:
    """A model and a run that can be built: parameters are those its shape is expected to have."""

    width: int
    layers: int
    params: float
    batch: int
    steps: int
    pairs: int
    lr: float


@dataclass(frozen=True)
class Plan:
    """What to train: size and data with their intervals, the loss of one such run, the doubts."""

    budget: float
    size: Band
    data: Band
    build: Build
    loss: Band
    factor: float
    epochs: float
    doubts: list[str]
    scores: Mapping[str, Band]


def plan(config: PlanConfig, laws: Laws | None = None) -> Plan:
    """Return the plan by the laws of the table, or by those that are there already.

    ValueError where the table allows no surface, the surface has no optimum or one that reads the
    data too often at less than the cheapest run's FLOPs, or for no budget above 0.
    """
    if not config.budget > 0:
        raise ValueError(f"budget is {config.budget:g} FLOPs; it must be above 0")
    laws = laws or laws_of(config.fit, read_runs(config.fit.table), ("surface",))
    surface, sample = laws["surface"], laws.sample("surface")
    rows = laws.rows["surface"]
    cost = Cost.of(sample.flops, *sample.x.T)
    once = float((rows["pairs"] / np.maximum(1e-9, rows["epochs"])).max())
    wished = config.budget
    config = replace(config, budget=min(wished, readable(surface, cost, config.most_epochs * once)))
    if config.budget < min(wished, cheapest := float(rows["flops"].min())):
        raise ValueError(
            f"the best run that reads the data {config.most_epochs:g} times would spend "
            f"{config.budget:.3g} FLOPs by this law, less than the cheapest run's {cheapest:.3g}: "
            "it is no law of such data; train more widths and longer runs, or give more data"
        )
    best = optima(surface, cost, np.array([config.budget]))
    size, data = best.size[0], best.data[0]
    if not (np.isfinite(size.value) and size.value > 0):
        raise ValueError(
            "the law has no best size: an exponent lies on its bound; train a ladder of more "
            "widths and longer runs"
        )
    build = nearest(rows, config, size.value, cost)
    if 0 < config.most_epochs * once < build.pairs:  # the nearest shape is smaller than the best
        steps = max(1, int(config.most_epochs * once / build.batch))
        build = replace(build, steps=steps, pairs=steps * build.batch)
    whole = build.pairs if config.fit.data == "pairs" else data.value
    x = np.array([[build.params, whole]], np.float64)
    scales = laws.scales("surface", np.array([build.params]))
    drawn = surface.predictive(x, scales, seed=config.fit.seed)[:, 0]
    value = float(surface.fit.loss(x)[0])
    factor, epochs = config.budget / float(rows["flops"].max()), build.pairs / once
    scores: dict[str, Band] = {}
    doubts = doubts_of(config, laws, cost, factor, epochs, build.params)
    if config.budget < wished:
        doubts.insert(
            0,
            f"of {wished:.3g} FLOPs only {config.budget:.3g} are planned: the best run of more "
            f"would read the data more than {config.most_epochs:g} times. More compute buys little "
            "then; more data does",
        )
    for task, points in (read_scores(config.scores) if config.scores else {}).items():
        try:
            scores[task] = expected(points, np.r_[value, drawn], config.score_law)
            if not points.losses.min() <= value <= points.losses.max():
                doubts.append(
                    f"{task}: no checkpoint had so low or high a loss; its score is a guess"
                )
        except ValueError as error:
            doubts.append(f"{task}: no score, {error}")
    loss = Band.of(value, drawn)
    return Plan(config.budget, size, data, build, loss, factor, epochs, doubts, scores)


def readable(surface: Bootstrap, cost: Cost, pairs: float) -> float:
    """Return the FLOPs whose best run reads so many pairs; infinite for 0, or where none does."""
    law = surface.fit.law
    assert isinstance(law, PowerLaw)
    with np.errstate(divide="ignore", invalid="ignore"):
        data = optimum(law, surface.fit.theta, cost, PROBED)[1]
    if not pairs or not np.isfinite(data).all() or not data[0] < pairs < data[-1]:
        return float("inf")
    return float(np.exp(np.interp(np.log(pairs), np.log(data), np.log(PROBED))))


def nearest(runs: Runs, config: PlanConfig, size: float, cost: Cost) -> Build:
    """Return the shape nearest to a size among widths and layers in the proportion of the runs.

    A shape's parameters are a multiple of the width, its tables, and one of layers x width^2, both
    fitted to the runs; of shapes within 5 % of the size, or the nearest, that of the runs'
    proportion is taken.
    """
    volume = runs["layers"] * runs["width"].astype(np.float64) ** 2
    if len(np.unique(volume)) < 2:
        raise ValueError("all runs have one shape; a plan needs several widths or depths")
    parts = np.stack([runs["width"], volume], 1) / runs[config.fit.size][:, None]
    table, hidden = nnls(parts, np.ones(len(parts)))[0]
    proportion = power(runs["width"], runs["layers"]) if np.ptp(runs["layers"]) else None
    widest = config.width_step * (8 + int(8 * runs["width"].max() / config.width_step))
    shapes = [
        (width, layers)
        for width in range(config.width_step, widest, config.width_step)
        for layers in range(1, DEEPEST + 1)
    ]
    width, layers = np.array(shapes, np.float64).T
    made = table * width + hidden * layers * width**2
    usual = proportion[0] * width ** proportion[1] if proportion else float(runs["layers"][0])
    miss = np.abs(np.log(made / size))
    odd = np.abs(np.log(layers / usual))
    at = int(np.argmin(np.maximum(miss, 0.05) + 0.3 * odd))
    batch = int(runs["batch"][0])
    steps = max(1, round(config.budget / (cost.factor * made[at] ** cost.power) / batch))
    rates = runs[config.fit.size], runs["lr"]
    a, b = power(*rates) if len(np.unique(rates[0])) > 1 else (float(rates[1][0]), 0.0)
    lr = a * float(made[at]) ** b
    return Build(int(width[at]), int(layers[at]), float(made[at]), batch, steps, steps * batch, lr)


def doubts_of(
    config: PlanConfig, laws: Laws, cost: Cost, factor: float, epochs: float, params: float
) -> list[str]:
    """Return when not to believe the plan, a sentence each."""
    sample, rows = laws.sample("surface"), laws.rows["surface"]
    doubts = [*table_flags(laws.runs), *described("surface", laws)["flags"]]
    rungs = ladder(sample, most=config.fit.few)
    tested = max((rung.factor for rung in rungs), default=1.0)
    if factor > tested:
        doubts.append(
            f"the budget is {factor:.3g} x the largest run's; the ladder tested the law up to "
            f"{tested:.3g} x beyond what it was fitted on"
        )
    like = [abs(rung.error) for rung in rungs if factor / 2 <= rung.factor <= factor * 2]
    if factor > 1 and like:
        doubts.append(
            f"so far beyond, earlier cut-offs missed by {np.median(like):.2%} (median of "
            f"{len(like)}), at most {max(like):.2%}"
        )
    if config.budget < rows["flops"].min():
        doubts.append(f"the budget is below the cheapest run, {rows['flops'].min():.3g} FLOPs")
    if epochs > EPOCHS:
        doubts.append(
            f"the data would be read {epochs:.3g} times; beyond {EPOCHS:g} a pair is worth clearly "
            "less: see the law of repeated data"
        )
    sizes = rows[config.fit.size]
    if not sizes.min() <= params <= sizes.max():
        doubts.append(
            f"{params:,.0f} parameters are outside the runs' {sizes.min():,} to {sizes.max():,}; "
            "the shape's count and learning rate are extrapolated"
        )
    if cost.error > MISS:
        doubts.append(
            f"the cost formula misses a run by {cost.error:.0%}: count the FLOPs of the shape "
            "before training it"
        )
    return doubts


def text(plan: Plan) -> str:
    """Return the plan as lines to read."""
    build = plan.build
    lines = [
        f"budget {plan.budget:.3g} FLOPs ({plan.budget / DAY:.2g} PF-days), "
        f"{plan.factor:.3g} x the largest run",
        f"parameters {band(vars(plan.size))}",
        f"pairs {band(vars(plan.data))}, {plan.epochs:.2g} readings of the data",
        f"build width {build.width}, {build.layers} layers (about {build.params:,.0f} parameters), "
        f"batch {build.batch:,}, {build.steps:,} steps, learning rate {build.lr:.2g}",
        f"expected loss {band(vars(plan.loss))}",
        *(f"expected {task}: {band(vars(score))}" for task, score in plan.scores.items()),
        *(f"doubt: {doubt}" for doubt in plan.doubts),
    ]
    return "\n".join(lines)


def report(config: PlanConfig) -> str:
    """Return the plan as text, written where `out` says."""
    planned = plan(config)
    if config.out:
        write_json(config.out, planned)
    return text(planned) + "\n"


def main(argv: Sequence[str]) -> None:
    """Read the command line, plan, print and write the plan."""
    sys.stdout.write(run_command(PlanConfig, report, argv, description=__doc__))
