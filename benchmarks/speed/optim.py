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
from pathlib import Path
from typing import Any

import torch

from benchmarks.external import machine
from benchmarks.speed.command import finish, read, recorded
from benchmarks.speed.measure import versions
from benchmarks.speed.points import (
    Times,
    clock_figures,
    interleaved,
    make_step,
    paired,
    short_run,
    train,
)
from benchmarks.speed.report import Claim, Report, Row, Spread
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.run.pretrain_config import PretrainConfig
from clue.train.optimiser import OptimizerConfig

ARMS = {"adamw": "adamw", "split": "adamw, split rates", "muon": "muon"}
SPLIT = 16  # the split arm's embeddings learn so many times as fast as its matrices
FIGURES = {"entropy": "entropy", "R@10": "recall_at_10"}
MOST = 12  # rates of one arm: the grid grows to a factor of 2,048 and no further
Found = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The run that the arms do: `config` with a smaller model; `rates` are the first grids."""

    config: Path = Path("configs/pretrain/food_kitchen.yaml")
    corpus: Path = Path("corpora/food_kitchen")
    runs: Path = Path("runs/speed/optim")
    width: int = 64
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
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    rounds: int = 9
    threads: int = 1
    out: Path = Path("results/speed/optim.json")

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to compare."""
        if len(self.seeds) < 2 or self.tuning_seed in self.seeds:
            raise ValueError(
                f"seeds {self.seeds}: a difference needs two for its interval, and none of them "
                f"may be the tuning_seed {self.tuning_seed}"
            )
        if self.width % SPLIT:
            raise ValueError(f"width {self.width} must be a multiple of {SPLIT}, the split's ratio")
        if set(self.rates) != set(ARMS):
            raise ValueError(f"rates has {', '.join(self.rates)}; give a grid to {', '.join(ARMS)}")


def main(argv: list[str]) -> None:
    """Runs the command line."""
    finish(measure(read(OptimConfig, argv, __doc__)), argv)


def measure(config: OptimConfig) -> tuple[Report, Path]:
    """Tunes, trains and times the arms, and gives the report and where it belongs."""
    torch.set_num_threads(config.threads)
    facts = machine.describe("cpu", config.threads)
    points: list[dict[str, Any]] = []

    def point(arm: str, rate: float, seed: int) -> Found:
        figures = train(run_of(config, arm, rate, seed), facts)
        points.append({"arm": ARMS[arm], "lr": rate, "seed": seed, **figures})
        return figures

    def tuned(arm: str) -> float:
        return best_rate(
            config.rates[arm], lambda rate: point(arm, rate, config.tuning_seed)["entropy"]
        )

    best = {arm: tuned(arm) for arm in ARMS}
    found = {arm: [point(arm, best[arm], seed) for seed in config.seeds] for arm in ARMS}
    times = step_times(config, best)
    rows = [*arm_rows(best, found, times), *difference_rows(found)]
    points += [{"arm": ARMS[arm], "step_seconds": times[arm]} for arm in ARMS]
    report = Report(
        name="optim",
        command="python -m benchmarks.speed optim",
        machine=machine.finished(facts, [{"versions": versions()}]),
        config=recorded(config),
        rows=tuple(rows),
        claims=tuple(claims(rows)),
        notes=notes(config, best, found, len(points) - len(ARMS)),
        points=tuple(points),
    )
    return report, config.out


def run_of(config: OptimConfig, arm: str, rate: float, seed: int) -> PretrainConfig:
    """Return the run of one point.

    The split arm takes its lower rate from the rule for widths, with a base so many times narrower.
    The rule holds lr x weight_decay; we lower the decay as much, for it is to be AdamW's own, in
    step with the matrices' rate.
    """
    kind = "muon" if arm == "muon" else "adamw"
    keys = [f"name={arm}-lr{rate:g}-seed{seed}", f"corpus={config.corpus}", f"runs={config.runs}"]
    keys += [f"seed={seed}", f"batch={config.batch}", "precision=fp32"]
    keys += [f"model.item.width={config.width}", "model.item.layers=0"]
    keys += [f"model.user.width={config.width}", f"model.user.embedding={config.width}"]
    keys += [f"model.user.layers={config.layers}"]
    keys += [f"optimizer.kind={kind}", f"optimizer.lr={rate!r}"]
    run = short_run(config.config, config.steps, keys)
    if arm != "split":
        return run
    decay = run.optimizer.weight_decay / SPLIT
    split = replace(run.optimizer, base_width=config.width // SPLIT, weight_decay=decay)
    return replace(run, optimizer=split)


def best_rate(rates: Sequence[float], entropy: Callable[[float], float]) -> float:
    """Return the best rate of a grid that grows by factors of two until its best is inside.

    Raises ValueError where it is at the edge still after MOST rates.
    """
    found = {rate: entropy(rate) for rate in sorted(rates)}
    while True:
        best = min(found, key=lambda rate: found[rate])
        if min(found) < best < max(found):
            return best
        if len(found) >= MOST:
            raise ValueError(
                f"the best of {sorted(found)} is {best:g}, at the edge: entropy hardly depends on "
                "the rate here; raise steps, or start at other rates"
            )
        following = best / 2 if best == min(found) else best * 2
        found[following] = entropy(following)


def step_times(config: OptimConfig, best: Mapping[str, float]) -> dict[str, Any]:
    """Return each arm's seconds of steps on one batch, the arms in turn."""
    corpus = Corpus.open(config.corpus)
    runs = {arm: run_of(config, arm, best[arm], 0) for arm in ARMS}
    batch = PairSampler(corpus, runs["muon"].views, batch=config.batch, seed=0).at(0)
    vocab_size = corpus.manifest.vocab_size
    steps = {ARMS[arm]: make_step(run, vocab_size, batch) for arm, run in runs.items()}
    times = interleaved(steps, config.rounds)
    return {arm: times[title] for arm, title in ARMS.items()}


def arm_rows(
    best: Mapping[str, float], found: Mapping[str, Sequence[Found]], times: Times
) -> list[Row]:
    """Return a row for each arm: its rate, what it reached over seeds, and its steps' seconds."""
    return [
        Row(
            case="at its best rate",
            arm=title,
            status="measured",
            figures={
                "lr": Spread.of([best[arm]]),
                **{n: Spread.of([f[key] for f in found[arm]]) for n, key in FIGURES.items()},
                **clock_figures(times, arm, "adamw"),
            },
        )
        for arm, title in ARMS.items()
    ]


def difference_rows(found: Mapping[str, Sequence[Found]]) -> list[Row]:
    """Return a row for Muon minus each AdamW, paired over the seeds."""
    rows: list[Row] = []
    for arm in ("adamw", "split"):
        pairs = {
            name: paired([f[key] for f in found["muon"]], [f[key] for f in found[arm]])
            for name, key in FIGURES.items()
        }
        case = "mean difference [95 % interval]"
        rows.append(Row(case=case, arm=f"muon - {ARMS[arm]}", status="measured", figures=pairs))
    return rows


def claims(rows: Sequence[Row]) -> list[Claim]:
    """Return what was aimed at: Muon ahead of both, the winner our default, a step no dearer."""
    by_arm = {row.arm: row.figures for row in rows}
    found: list[Claim] = []
    for arm in ("adamw", "split"):
        high = by_arm[f"muon - {ARMS[arm]}"]["entropy"].high
        what = f"Entropy, muon - {ARMS[arm]}, the upper end of the interval"
        found.append(Claim(what=what, aim="below 0", found=high, holds=high < 0))
    winner = min(ARMS.values(), key=lambda title: by_arm[title]["entropy"].median)
    default = OptimizerConfig().kind
    same = winner == default
    what = f"The winner, {winner}, is the default kind, {default} (1: it is)"
    found.append(Claim(what=what, aim="1", found=float(same), holds=same))
    ratio = by_arm["muon"]["processor / adamw"].median
    what = "Processor seconds of a step, muon / adamw"
    found.append(Claim(what=what, aim="at most 1.1", found=ratio, holds=ratio <= 1.1))
    return found


def notes(
    config: OptimConfig,
    best: Mapping[str, float],
    found: Mapping[str, Sequence[Found]],
    trainings: int,
) -> tuple[str, ...]:
    """Return what a reader needs beside the rows."""
    negatives = statistics.fmean(f["negatives"] for f in found["muon"])
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
