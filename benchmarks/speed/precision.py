"""Benchmark `precision`: bf16 against fp32 on this processor: a step's time, what is reached.

    python -m benchmarks.speed precision

Reads corpora/food_kitchen, which `clue/prepare.py configs/prepare/food_kitchen.yaml` makes. Times
a step of each shape on one batch, the precisions in turn, after both have taken the first step from
the same weights: a loss further apart than 5e-3 of itself, or a gradient norm than 5e-2, is no
comparison (bf16 keeps 8 bits, 4e-3). Then trains one shape in both, over seeds.
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.interleave import clock_figures, difference, interleaved
from benchmarks.speed.report import Claim, Report, Row, claim
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
from clue.train.precision import BF16_WIDTH

PRECISIONS = ("fp32", "bf16")
GATE = {"loss": 5e-3, "grad_norm": 5e-2}
RATIOS = ("processor / fp32", "wall / fp32")
ENTROPY_AIM = 0.01  # nats: a tenth of what separates two seeds of such a run
Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Config:
    """`shapes` are (width, layers over tokens, layers over events); `trained` is one of them."""

    config: Path = Path("configs/pretrain/food_kitchen.yaml")
    corpus: Path = Path("corpora/food_kitchen")
    runs: Path = Path("runs/speed/precision")
    shapes: list[Shape] = field(
        default_factory=lambda: [
            *((64, 0, 2), (64, 1, 1), (128, 0, 2), (128, 1, 1)),
            *((192, 0, 1), (192, 1, 1), (256, 2, 2)),
        ]
    )
    batch: int = 256
    rounds: int = 5
    trained: Shape = (64, 0, 2)
    trained_batch: int = 512
    steps: int = 80
    # Muon: AdamW is still at chance after so few steps, where every precision is equal.
    rate: float = 8e-3
    seeds: Seeds = field(default_factory=lambda: [1, 2, 3])
    threads: int = 1
    out: Path = Path("results/speed/precision.json")


def measure(config: Config) -> Report:
    """Time every shape and train one."""
    points = [step_point(config, shape) for shape in config.shapes]
    rows = [row for point in points for row in step_rows(point)]
    runs = {precision: trainings(config, precision) for precision in PRECISIONS}
    for precision, figures in runs.items():
        case = f"{case_of(config.trained)}, {config.steps} steps"
        rows.append(Row(case=case, arm=precision, figures=reached(figures)))
        for seed, one in zip(config.seeds, figures, strict=True):
            points.append({"precision": precision, "seed": seed, **one})
    rows.append(difference_row("bf16 - fp32", runs["bf16"], runs["fp32"]))
    timed = {row.case: gains(row) for row in rows if RATIOS[0] in row.figures}
    gaining, others = (
        "; ".join(case for case, gain in timed.items() if gain == wanted) or "none"
        for wanted in (True, False)
    )
    notes = (
        f"bf16 is faster by both clocks in every round: {gaining}. Not so: {others}.",
        "Layers are those over the tokens of an item + those over the events of a user. A ratio is "
        "taken round by round; below 1 bf16 is faster.",
    )
    return Report(rows=rows, claims=claims(rows, config.shapes), notes=notes, points=points)


def case_of(shape: Shape) -> str:
    """Return how a shape is called in the table."""
    width, item_layers, user_layers = shape
    return f"width {width}, layers {item_layers} + {user_layers}"


def run_of(config: Config, shape: Shape, precision: str, seed: int) -> PretrainConfig:
    """Return the run of one shape."""
    width, *layers = shape
    keys = [f"name={precision}-seed{seed}", f"corpus={config.corpus}", f"runs={config.runs}"]
    keys += [f"seed={seed}", f"batch={config.trained_batch}", f"precision={precision}"]
    keys += ["optimizer.kind=muon", f"optimizer.lr={config.rate!r}"]
    return short_run(config.config, config.steps, width, (layers[0], layers[1]), keys)


def step_point(config: Config, shape: Shape) -> dict[str, Any]:
    """Return one shape's losses and gradient norms of the first step and seconds of the next.

    `unequal` says how the first steps differ beyond the gate; nothing is timed then.
    """
    sys.stderr.write(f"timing {case_of(shape)}\n")
    run = run_of(config, shape, "fp32", 0)
    steps = {p: make_step(run, config.batch, bf16=p == "bf16") for p in PRECISIONS}
    reports = {precision: step() for precision, step in steps.items()}
    first = {p: {name: getattr(report, name) for name in GATE} for p, report in reports.items()}
    unequal = difference([first["bf16"]], [first["fp32"]], GATE)
    times = {} if unequal else interleaved(steps, config.rounds)
    return {"shape": shape, "first_step": first, "unequal": unequal, "step_seconds": times}


def step_rows(point: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one shape: seconds, and bf16's part of fp32's, round by round."""
    case, unequal, times = case_of(point["shape"]), point["unequal"], point["step_seconds"]
    if unequal:
        return [Row(case=case, arm="bf16", status="not comparable", note=unequal)]
    return [Row(case=case, arm=p, figures=clock_figures(times, p, "fp32")) for p in PRECISIONS]


def trainings(config: Config, precision: str) -> list[Figures]:
    """Return the figures of one precision's runs, in a process of their own.

    Accelerate lets a process have one precision.
    """
    runs = [run_of(config, config.trained, precision, seed) for seed in config.seeds]
    with ProcessPoolExecutor(1, get_context("spawn")) as worker:
        worker.submit(torch.set_num_threads, config.threads)
        return list(worker.map(train, runs))


def gains(row: Row) -> bool:
    """Return whether bf16 is clearly faster: by both clocks, in every round."""
    return all(row.figures[ratio].high < 1 for ratio in RATIOS)


def claims(rows: Sequence[Row], shapes: Sequence[Shape]) -> list[Claim]:
    """Return the three aims: bf16 gains from BF16_WIDTH on, not below, and learns the same."""
    timed = {row.case: row for row in rows if RATIOS[0] in row.figures}
    wide, narrow = (
        [case_of(shape) for shape in shapes if (shape[0] >= BF16_WIDTH) == wanted]
        for wanted in (True, False)
    )
    slowest = None
    if wide and set(wide) <= set(timed):
        slowest = max(timed[case].figures[ratio].median for case in wide for ratio in RATIOS)
    what = f"Step time bf16 / fp32 from width {BF16_WIDTH} on, the worst shape and clock"
    made = [claim(what, slowest, "below", 1)]
    gaining = [case for case in narrow if case in timed and gains(timed[case])]
    what = f"Shapes below width {BF16_WIDTH} that gain clearly ({'; '.join(gaining) or 'none'})"
    number = float(len(gaining)) if narrow else None
    made.append(claim(what, number, "at most", 0, ", for bf16 is off there"))
    apart = next(row.figures["entropy"] for row in rows if row.arm == "bf16 - fp32")
    farthest = max(abs(apart.low), abs(apart.high))
    what = "Held-out entropy bf16 - fp32, the farther end of the interval, nats"
    return [*made, claim(what, farthest, "at most", ENTROPY_AIM)]
