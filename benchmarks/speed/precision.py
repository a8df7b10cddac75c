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
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.external import machine
from benchmarks.speed.command import finish, read, recorded
from benchmarks.speed.measure import versions
from benchmarks.speed.points import (
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
from clue.train.precision import BF16_WIDTH
from clue.train.step import StepReport

PRECISIONS = ("fp32", "bf16")
TOLERANCES = {"loss": 5e-3, "grad_norm": 5e-2}
RATIOS = ("processor / fp32", "wall / fp32")
ENTROPY_AIM = 0.01  # nats: a tenth of what separates two seeds of such a run
FIGURES = {"entropy": "entropy", "R@10": "recall_at_10"}
Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
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
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    threads: int = 1
    out: Path = Path("results/speed/precision.json")

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to compare."""
        if len(self.seeds) < 2:
            raise ValueError(f"seeds {self.seeds}: a difference needs two for its interval")


def main(argv: list[str]) -> None:
    """Runs the command line."""
    finish(measure(read(PrecisionConfig, argv, __doc__)), argv)


def measure(config: PrecisionConfig) -> tuple[Report, Path]:
    """Times every shape, trains one, and gives the report and where it belongs."""
    torch.set_num_threads(config.threads)
    facts = machine.describe("cpu", config.threads)
    points: list[dict[str, Any]] = []
    rows: list[Row] = []
    for shape in config.shapes:
        point = step_point(config, shape)
        points.append(point)
        rows += step_rows(point)
    reached = {precision: trainings(config, precision, facts) for precision in PRECISIONS}
    for precision, found in reached.items():
        for seed, figures in zip(config.seeds, found, strict=True):
            points.append({"precision": precision, "seed": seed, **figures})
    rows += training_rows(config, reached)
    report = Report(
        name="precision",
        command="python -m benchmarks.speed precision",
        machine=machine.finished(facts, [{"versions": versions()}]),
        config=recorded(config),
        rows=tuple(rows),
        claims=tuple(claims(rows, config.shapes)),
        notes=notes(rows),
        points=tuple(points),
    )
    return report, config.out


def case_of(shape: Shape) -> str:
    """Return how a shape is called in the table."""
    width, item_layers, user_layers = shape
    return f"width {width}, layers {item_layers} + {user_layers}"


def run_of(config: PrecisionConfig, shape: Shape, precision: str, seed: int) -> PretrainConfig:
    """Return the run of one shape."""
    width, item_layers, user_layers = shape
    keys = [f"name={precision}-seed{seed}", f"corpus={config.corpus}", f"runs={config.runs}"]
    keys += [f"seed={seed}", f"batch={config.trained_batch}", f"precision={precision}"]
    keys += [f"model.item.width={width}", f"model.item.layers={item_layers}"]
    keys += [f"model.user.width={width}", f"model.user.layers={user_layers}"]
    keys += [f"model.user.embedding={width}"]
    keys += ["optimizer.kind=muon", f"optimizer.lr={config.rate!r}"]
    return short_run(config.config, config.steps, keys)


def step_point(config: PrecisionConfig, shape: Shape) -> dict[str, Any]:
    """Return one shape's losses and gradient norms of the first step and seconds of the next.

    `unequal` says how the first steps differ beyond the gate; nothing is timed then.
    """
    sys.stderr.write(f"timing {case_of(shape)}\n")
    corpus = Corpus.open(config.corpus)
    run = run_of(config, shape, "fp32", 0)
    batch = PairSampler(corpus, run.views, batch=config.batch, seed=0).at(0)
    vocab_size = corpus.manifest.vocab_size
    steps = {p: make_step(run, vocab_size, batch, bf16=p == "bf16") for p in PRECISIONS}
    first = {precision: step() for precision, step in steps.items()}
    unequal = difference(first["bf16"], first["fp32"])
    return {
        "shape": shape,
        "first_step": {p: {"loss": r.loss, "grad_norm": r.grad_norm} for p, r in first.items()},
        "unequal": unequal,
        "step_seconds": {} if unequal else interleaved(steps, config.rounds),
    }


def difference(bf16: StepReport, fp32: StepReport) -> str:
    """Says where the first steps differ beyond the gate; empty where they agree."""
    for name, limit in TOLERANCES.items():
        one, other = getattr(bf16, name), getattr(fp32, name)
        error = abs(one / other - 1)
        if not error <= limit:  # NaN is an error too
            return f"{name} {one:.5g} is not {other:.5g} (relative {error:.1e})"
    return ""


def step_rows(point: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one shape: seconds, and bf16's part of fp32's, round by round."""
    case, unequal, times = case_of(point["shape"]), point["unequal"], point["step_seconds"]
    if unequal:
        return [Row(case=case, arm="bf16", status="not comparable", note=unequal)]
    return [
        Row(case=case, arm=p, status="measured", figures=clock_figures(times, p, "fp32"))
        for p in PRECISIONS
    ]


def trainings(
    config: PrecisionConfig, precision: str, facts: Mapping[str, Any]
) -> list[dict[str, float]]:
    """Return the figures of one precision's runs, in a process of their own.

    Accelerate lets a process have one precision.
    """
    runs = [run_of(config, config.trained, precision, seed) for seed in config.seeds]
    with ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(config.threads,),
    ) as worker:
        return list(worker.map(partial(train, machine=facts), runs))


def training_rows(
    config: PrecisionConfig, reached: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[Row]:
    """Return what each precision reached over the seeds, and the paired difference."""
    case = f"{case_of(config.trained)}, {config.steps} steps"
    rows = [
        Row(
            case=case,
            arm=precision,
            status="measured",
            figures={n: Spread.of([f[key] for f in found]) for n, key in FIGURES.items()},
        )
        for precision, found in reached.items()
    ]
    pairs = {
        name: paired([f[key] for f in reached["bf16"]], [f[key] for f in reached["fp32"]])
        for name, key in FIGURES.items()
    }
    case = "mean difference [95 % interval]"
    return [*rows, Row(case=case, arm="bf16 - fp32", status="measured", figures=pairs)]


def timed_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """Return bf16's rows that say how much of fp32's time a step took, by case."""
    return {row.case: row for row in rows if row.arm == "bf16" and RATIOS[0] in row.figures}


def gains(row: Row) -> bool:
    """Return whether bf16 is clearly faster: by both clocks, in every round."""
    return all(row.figures[ratio].high < 1 for ratio in RATIOS)


def claims(rows: Sequence[Row], shapes: Sequence[Shape]) -> list[Claim]:
    """Return the three aims: bf16 gains from BF16_WIDTH on, not below, and learns the same."""
    timed = timed_rows(rows)
    wide = [timed.get(case_of(shape)) for shape in shapes if shape[0] >= BF16_WIDTH]
    narrow = [timed.get(case_of(shape)) for shape in shapes if shape[0] < BF16_WIDTH]
    ratios = [row.figures[ratio].median for row in wide if row is not None for ratio in RATIOS]
    slowest = max(ratios) if ratios and None not in wide else None
    gaining = [row.case for row in narrow if row is not None and gains(row)]
    apart = next(row.figures["entropy"] for row in rows if row.arm == "bf16 - fp32")
    farthest = max(abs(apart.low), abs(apart.high))
    names = "; ".join(gaining) or "none"
    return [
        Claim(
            what=f"Step time bf16 / fp32 from width {BF16_WIDTH} on, the worst shape and clock",
            aim="below 1",
            found=slowest,
            holds=None if slowest is None else slowest < 1,
        ),
        Claim(
            what=f"Shapes below width {BF16_WIDTH} that gain clearly ({names})",
            aim="0, for bf16 is off there",
            found=float(len(gaining)) if narrow else None,
            holds=not gaining if narrow else None,
        ),
        Claim(
            what="Held-out entropy bf16 - fp32, the farther end of the interval, nats",
            aim=f"at most {ENTROPY_AIM}",
            found=farthest,
            holds=farthest <= ENTROPY_AIM,
        ),
    ]


def notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return which shapes gain, and how the table is to be read."""
    timed = timed_rows(rows)
    gaining = "; ".join(case for case, row in timed.items() if gains(row)) or "none"
    others = "; ".join(case for case, row in timed.items() if not gains(row)) or "none"
    return (
        f"bf16 is faster by both clocks in every round: {gaining}. Not so: {others}.",
        "Layers are those over the tokens of an item + those over the events of a user. A ratio is "
        "taken round by round; below 1 bf16 is faster.",
    )
