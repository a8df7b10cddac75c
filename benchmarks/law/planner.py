"""Command: what to train for a budget in FLOPs, hours or money, by the law of one's own logs.

    clue law plan laws/NAME flops=1e15
    clue law plan laws/NAME hours=8 device=h100
    clue law plan laws/NAME money=100 price=2.5 device=a100 devices=4

Prints width, layers, data, batch, rate and the loss to expect, when not to believe it, and the
`clue pretrain` command that trains it.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.json_files import write_json
from benchmarks.law.recipe import size_of
from benchmarks.report.sizing import HOUR, number
from benchmarks.scaling.fit.law_summary import EPOCHS, band
from benchmarks.scaling.fit.study import FitConfig, Laws
from benchmarks.scaling.predict.budget import PEAKS, BudgetConfig, device_rate, flops_of
from benchmarks.scaling.predict.plan import Plan, PlanConfig, plan
from clue.config import load, run_command
from clue.run.pretrain_config import PretrainConfig
from clue.train.optimiser import decay_start

VALIDATIONS = 10  # of a planned run
STARTS, RESAMPLES, FEW = 54, 2000, 9  # of a fit, as those of FitConfig


@dataclass(frozen=True, kw_only=True)
class LawPlanConfig(BudgetConfig):
    """Whose law, and the budget. The plan reads the logs at most `most_epochs` times, 0: no limit.

    `out` is a JSON file for the plan.
    """

    law: Path
    most_epochs: float = EPOCHS
    out: Path | None = None


@dataclass(frozen=True)
class Training:
    """A plan, the words of the command that trains it, and the hours that takes by device."""

    plan: Plan
    command: list[str]
    hours: Mapping[str, float]


def read_law(folder: Path) -> dict[str, Any]:
    """Return laws/NAME/law.json; FileNotFoundError where `clue law` has not finished."""
    file = folder / "law.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; clue law EVENTS name={folder.name} makes it")
    return json.loads(file.read_text(encoding="utf-8"))


def fit_of(folder: Path, min_decades: float) -> FitConfig:
    """Return how the law in a folder is fitted."""
    return FitConfig(
        table=folder / "runs.parquet",
        out=folder,
        min_decades=min_decades,
        starts=STARTS,
        resamples=RESAMPLES,
        few=FEW,
    )


def training_of(
    folder: Path,
    tree: Mapping[str, Any],
    flops: float,
    *,
    most_epochs: float = EPOCHS,
    laws: Laws | None = None,
) -> Training:
    """Return what to train for so many FLOPs; raises what `plan` raises."""
    fit = fit_of(folder, tree["min_decades"])
    scores = folder / "scores.json"
    config = PlanConfig(
        fit=fit,
        budget=flops,
        most_epochs=most_epochs,
        scores=scores if scores.is_file() else None,
    )
    planned = plan(config, laws)
    build, steps = planned.build, planned.build.steps
    size = size_of(tree["objective"], build.width, build.layers)
    base = folder / "pretrain.yaml"
    words = [f"name={tree['name']}-{planned.budget:.1e}".replace("+", "")]
    words += [f"steps={steps}", f"batch={build.batch}", f"optimizer.lr={build.lr:.3g}"]
    words += size.overrides(tree["objective"])
    words += [f"validate_every={max(1, steps // VALIDATIONS)}"]
    words += [f"checkpoint_every={max(1, steps // VALIDATIONS)}"]
    optimizer = load(PretrainConfig, base).optimizer
    warmup = max(0, min(tree["ladder"]["warmup"], decay_start(optimizer, steps)))
    words.append(f"optimizer.warmup_steps={warmup}")
    load(PretrainConfig, base, words)  # what is printed can be run
    rates = {name: device_rate(name, tree["flops_per_second"]) for name in ("here", *PEAKS)}
    hours = {name: planned.budget / rate / HOUR for name, rate in rates.items()}
    return Training(planned, ["clue", "pretrain", str(base), *words], hours)


def text(training: Training, tree: Mapping[str, Any], counted: str) -> str:
    """Return the plan as lines to read, the command last."""
    planned, corpus = training.plan, tree["corpus"]
    build, readings = planned.build, planned.epochs
    lines = [
        f"budget     {counted}: {planned.budget:.3g} FLOPs, {planned.factor:.3g} x the largest run "
        "of the law",
        f"model      width {build.width}, {build.layers} layers, about {build.params:,.0f} "
        f"parameters (the law's best: {band(vars(planned.size), '.3g')})",
        f"data       {build.pairs:,} {corpus['unit']}, {build.steps:,} steps: "
        f"{corpus['users']:,} users' {corpus['events']:,} events, read {readings:.2g} times",
        f"batch      {build.batch} {corpus['unit'].split()[0]}, {batch_words(tree)}",
        f"rate       {build.lr:.3g}, {rate_words(tree)}",
        f"loss       {planned.loss.value:.4f}, 80 % of such runs between {planned.loss.low80:.4f} "
        f"and {planned.loss.high80:.4f}",
        *(f"{task:<11}{band(vars(score), '.3f')}" for task, score in planned.scores.items()),
        *(f"doubt      {doubt}" for doubt in planned.doubts),
        "",
        shlex.join(training.command),
    ]
    return "\n".join(lines) + "\n"


def batch_words(tree: Mapping[str, Any]) -> str:
    """Return where the batch of a plan comes from."""
    critical = tree["critical_batch"]
    kept = "as in the runs of the law"
    if critical is None:
        return f"{kept}; no larger one was tried"
    return (
        f"{kept}; gradient noise allows about {number(critical)} before a larger batch costs more "
        "data (McCandlish et al. 2018)"
    )


def rate_words(tree: Mapping[str, Any]) -> str:
    """Return where the learning rate of a plan comes from."""
    rates = tree["rates"]
    widths = " and ".join(str(one["width"]) for one in rates["sizes"])
    if rates["shared"]:
        return (
            f"one for all sizes (CompleteP), the best for both of the widths that tried, {widths}"
        )
    return f"on a line through the best rates of widths {widths}, of which no one suits both"


def report(config: LawPlanConfig) -> str:
    """Return the plan as text, written where `out` says."""
    tree = read_law(config.law)
    flops, counted = flops_of(config, tree["flops_per_second"])
    training = training_of(config.law, tree, flops, most_epochs=config.most_epochs)
    if config.out:
        write_json(config.out, training)
    return text(training, tree, counted)


def read_plan(argv: Sequence[str]) -> list[str]:
    """Return the command line with the folder as a key."""
    return [f"law={argv[0]}", *argv[1:]] if argv and "=" not in argv[0] else list(argv)


plan_command = partial(run_command, LawPlanConfig, report, description=__doc__)
