"""Command: bf16 against fp32 on this processor: seconds a step, and what a short training reaches.

    python -m benchmarks.speed.precision corpus=corpora/food_kitchen

Times a step of each shape on one batch, the precisions in turn, after both have taken the first
step from the same weights: a loss further apart than 5e-3 of itself, or a gradient norm than 5e-2,
is no comparison (bf16 keeps 8 bits, 4e-3). Then trains one shape in both, over seeds.
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.speed.optim import SHORT
from benchmarks.speed.points import (
    interleaved,
    machine,
    paired_difference,
    spread,
    train,
    write,
)
from clue.config import PretrainConfig
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.nn.model import Clue
from clue.settings import load, read_command_line
from clue.train.optimiser import make_optimizers
from clue.train.packing import Budget
from clue.train.step import StepReport, train_step

PRECISIONS = ("fp32", "bf16")
LOSS_TOLERANCE, NORM_TOLERANCE = 5e-3, 5e-2


@dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """`shapes` are (width, layers over tokens, layers over events); `trained` is one of them."""

    config: Path = Path("configs/food_kitchen.yaml")
    corpus: Path = Path("corpora/food_kitchen")
    runs: Path = Path("runs/speed/precision")
    out: Path = Path("results/speed/precision.json")
    shapes: list[tuple[int, int, int]] = field(
        default_factory=lambda: [
            *((64, 0, 2), (64, 1, 1), (128, 0, 2), (128, 1, 1)),
            *((192, 0, 1), (192, 1, 1), (256, 2, 2)),
        ]
    )
    batch: int = 256
    rounds: int = 5
    trained: tuple[int, int, int] = (64, 0, 2)
    trained_batch: int = 512
    steps: int = 80
    # AdamW is still at chance after so few steps, where every precision is equal
    rate: float = 8e-3
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    out = run(read_command_line(PrecisionConfig, argv, description=__doc__ or ""))
    sys.stdout.write(out.read_text(encoding="utf-8"))


def run(config: PrecisionConfig) -> Path:
    """Times every shape, trains one, and gives the path of the JSON with every figure."""
    steps = [timed_once(config, shape) for shape in config.shapes]
    arms = {precision: trainings(config, precision) for precision in PRECISIONS}
    learnt = {
        figure: {
            **{p: spread([f[figure] for f in arms[p]]) for p in PRECISIONS},
            "bf16_minus_fp32": paired_difference(
                *([f[figure] for f in arms[p]] for p in ("bf16", "fp32"))
            ),
        }
        for figure in ("entropy", "recall_at_10")
    }
    points = [
        {"precision": p, "seed": seed, **figures}
        for p in PRECISIONS
        for seed, figures in zip(config.seeds, arms[p], strict=True)
    ]
    report = {
        "settings": asdict(config),
        "machine": machine(),
        "steps": steps,
        "training": learnt,
        "points": points,
    }
    return write(config.out, report)


def run_of(
    config: PrecisionConfig, shape: tuple[int, int, int], precision: str, seed: int
) -> PretrainConfig:
    """Gives the run of one shape; validation and the only checkpoint are at its end."""
    width, item_layers, user_layers = shape
    steps = config.steps
    base = load(
        PretrainConfig,
        config.config,
        [
            *(f"name={precision}-seed{seed}", f"corpus={config.corpus}", f"runs={config.runs}"),
            *(f"seed={seed}", f"batch={config.trained_batch}", f"steps={steps}", "trackers=[]"),
            *(f"validate_every={steps}", f"checkpoint_every={steps}", "log_every=20"),
            *(f"precision={precision}", f"model.item.width={width}", f"model.user.width={width}"),
            *(f"model.item.layers={item_layers}", f"model.user.layers={user_layers}"),
            *(f"model.user.embedding={width}", *SHORT),
        ],
    )
    warmup = min(base.optimizer.warmup_steps, steps // 6)
    optimizer = replace(base.optimizer, kind="muon", lr=config.rate, warmup_steps=warmup)
    return replace(base, optimizer=optimizer)


def timed_once(config: PrecisionConfig, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Gives one shape's row, kept beside the runs so that it is never timed twice."""
    settings = {"shape": shape, "batch": config.batch, "rounds": config.rounds}
    kept = config.runs / f"steps-{'-'.join(map(str, shape))}.json"
    if kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["settings"] == json.loads(json.dumps(settings)):
            return found["row"]
    row = step_times(config, shape)
    write(kept, {"settings": settings, "row": row})
    return row


def step_times(config: PrecisionConfig, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Gives one shape's row: losses and norms of the first step, seconds of the next, their ratio.

    A ratio below 1 says that bf16 is faster; without agreement at the first step there is none.
    """
    sys.stderr.write(f"timing width {shape[0]}, layers {shape[1:]}\n")
    accelerator = Accelerator(cpu=True)
    corpus = Corpus.open(config.corpus)
    one = run_of(config, shape, "fp32", 0)
    batch = PairSampler(corpus, one.views, batch=config.batch, seed=0).at(0)
    arms: dict[str, Callable[[], StepReport]] = {}
    for precision in PRECISIONS:
        torch.manual_seed(0)
        model = Clue(one.model, corpus.manifest.vocab_size).eval()  # no dropout: one loss for both
        if precision == "bf16":  # around the forward pass alone, as Accelerate does it
            model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        learners = make_optimizers(model, one.optimizer)

        def step(model: Clue = model, learners: Any = learners) -> StepReport:
            return train_step(
                accelerator,
                model,
                learners,
                batch,
                Budget(4096),
                loss=one.loss,
                clip=one.optimizer.clip,
            )

        arms[precision] = step
    first = {precision: arm() for precision, arm in arms.items()}
    row: dict[str, Any] = {
        "width": shape[0],
        "item_layers": shape[1],
        "user_layers": shape[2],
        "first_step": {p: {"loss": r.loss, "grad_norm": r.grad_norm} for p, r in first.items()},
    }
    loss_gap, norm_gap = (
        abs(getattr(first["bf16"], name) / getattr(first["fp32"], name) - 1)
        for name in ("loss", "grad_norm")
    )
    row["equal"] = loss_gap <= LOSS_TOLERANCE and norm_gap <= NORM_TOLERANCE
    if not row["equal"]:
        return row
    times = interleaved(arms, config.rounds)
    for clock in ("processor", "wall"):
        medians = {p: statistics.median(times[p][clock]) for p in PRECISIONS}
        row[f"bf16_over_fp32_{clock}"] = medians["bf16"] / medians["fp32"]
    return {**row, **{p: {c: spread(v) for c, v in times[p].items()} for p in PRECISIONS}}


def trainings(config: PrecisionConfig, precision: str) -> list[dict[str, float]]:
    """Gives the figures of one precision's runs, in a process of their own.

    Accelerate lets a process have one precision.
    """
    runs = [run_of(config, config.trained, precision, seed) for seed in config.seeds]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
        return list(worker.map(train, runs))


if __name__ == "__main__":
    main(sys.argv[1:])
