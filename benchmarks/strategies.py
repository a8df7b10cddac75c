"""Command: what the two training strategies of LSRM are worth, at a small and at a large size.

    python -m benchmarks.strategies configs/benchmarks/strategies.yaml

Zhang et al. 2024 (arXiv 2311.11351) train large next-item models with dropout that falls from layer
to layer, and with Adam until the held-out loss stops falling and SGD until it stops again; both are
said to pay at 24 layers and not at 2. Every run here is an ordinary one of `clue/pretrain.py`, in
both phases; "without the switch" is the best checkpoint of its first phase, which is to the bit the
run that ends there. Dropout without the scheme is the mean of its rates in every layer. Measured is
the cross-entropy of the test items over the whole catalogue. A finished run is never repeated.
Writes OUT/results.json.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.points import paired
from clue.config import load, read_command_line
from clue.data.corpus import Corpus
from clue.data.sequences import Sequences
from clue.nn.decoder import NextItemDecoder
from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint
from clue.run.objectives.next_item import evaluate
from clue.run.pretrain_config import PretrainConfig

MEASURES = ("cross_entropy", "recall_at_10", "ndcg_at_10")
DROPOUTS = ("falling", "constant")
SWITCHES = ("with", "without")


@dataclass(frozen=True, kw_only=True)
class StrategiesConfig:
    """The runs: `pretrain` with the overrides of each of `sizes`, smallest first, for `seeds`.

    `pretrain` must have `optimizer.patience` and `optimizer.sgd_lr`. `dropout` are the rates at the
    lowest layer and at the top.
    """

    pretrain: Path = Path("configs/pretrain/lsrm/98k.yaml")
    corpus: Path = Path("corpora/ml1m")
    runs: Path = Path("runs/strategies")
    out: Path = Path("results/strategies")
    sizes: dict[str, list[str]]
    dropout: list[float]
    seeds: list[int]

    def __post_init__(self) -> None:
        """Refuse a study that could not show a difference."""
        if len(self.seeds) < 2:
            raise ValueError(f"seeds are {self.seeds}; an interval needs two at least")
        if len(self.dropout) != 2:
            raise ValueError(f"dropout is {self.dropout}; give the lowest layer's and the top's")


@dataclass(frozen=True)
class Point:
    """One run: a size, dropout that falls or not, a seed."""

    size: str
    dropout: str
    seed: int

    @property
    def name(self) -> str:
        """The run's directory."""
        return f"{self.size}-{self.dropout}-{self.seed}"


def overrides(config: StrategiesConfig, point: Point) -> list[str]:
    """Return what the run of a point changes in the config `pretrain`."""
    rates = config.dropout if point.dropout == "falling" else [sum(config.dropout) / 2]
    return [
        *config.sizes[point.size],
        *(f"name={point.name}", f"runs={config.runs}", f"corpus={config.corpus}"),
        *(f"seed={point.seed}", f"decoder.dropout={rates}", "trackers=[]"),
    ]


def train(config: StrategiesConfig, point: Point) -> PretrainConfig:
    """Runs one point, keeping every measured checkpoint; SystemExit where it fails.

    Raises ValueError for a config without both phases.
    """
    asked = overrides(config, point)
    run = load(PretrainConfig, config.pretrain, asked)
    if not (run.optimizer.patience and run.optimizer.sgd_lr):
        raise ValueError(f"{config.pretrain} needs optimizer.patience and optimizer.sgd_lr")
    every = f"{run.validate_every}"
    asked += [f"checkpoint_every={every}", f"keep_every={every}"]
    command = [sys.executable, "clue/pretrain.py", str(config.pretrain), *asked]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"strategies: {point.name} failed:\n{done.stderr[-2000:]}")
    return load(PretrainConfig, config.pretrain, asked)


def measure(run: Path, corpus: Corpus) -> dict[str, Any]:
    """Return the test figures of the best checkpoint of both phases and of the first alone."""
    every = [checkpoint.find(path) for path in sorted(run.glob("checkpoints/step_*"))]
    # the checkpoint of the switch itself holds the last weights of the first phase
    switched = [c.progress.began for c in every if c.progress.phase == "sgd"]
    ends = min(switched) if switched else every[-1].step
    first = [c for c in every if c.step <= ends]
    found: dict[str, Any] = {"switch_at": ends, "last_step": every[-1].step}
    for name, those in (("with", every), ("without", first)):
        best = min(those, key=lambda c: c.entropy)
        found[name] = {"step": best.step, "held_out": best.entropy, **figures(best, corpus)}
    return found


def figures(best: Checkpoint, corpus: Corpus) -> dict[str, float]:
    """Return a checkpoint's figures on the test items."""
    sequences = Sequences(corpus, best.config.sequences)
    model = NextItemDecoder(best.config.decoder, len(sequences.catalogue))
    model.load_state_dict(best.weights())
    found = evaluate(model, sequences.questions("test"))
    return {name: found[name] for name in MEASURES}


def study(config: StrategiesConfig) -> dict[str, Any]:
    """Return all cells and their differences, training what is missing."""
    corpus = Corpus.open(config.corpus)
    cells: dict[str, dict[str, Any]] = {}
    # a seed's arms one after another: seeds that are finished are whole pairs
    grid = product(config.sizes, config.seeds, DROPOUTS)
    points = [Point(size, dropout, seed) for size, seed, dropout in grid]
    kept = config.runs / "cells"
    kept.mkdir(parents=True, exist_ok=True)
    for number, point in enumerate(points):
        file = kept / f"{point.name}.json"
        asked = overrides(config, point)
        if not file.is_file() or json.loads(file.read_text())["overrides"] != asked:
            sys.stderr.write(f"strategies: {point.name}, {number + 1} of {len(points)}\n")
            run = train(config, point)
            found = {"overrides": asked, **measure(run.run, corpus)}
            file.write_text(json.dumps(found, indent=1), encoding="utf-8")
            shutil.rmtree(run.run)
        cells[point.name] = json.loads(file.read_text(encoding="utf-8"))
        del cells[point.name]["overrides"]  # where the runs lay is nobody's business
    return {
        "sizes": {
            size: asdict(load(PretrainConfig, config.pretrain, config.sizes[size]).decoder)
            for size in config.sizes
        },
        "dropout": config.dropout,
        "seeds": config.seeds,
        "corpus": {"name": corpus.manifest.name, "fingerprint": corpus.fingerprint},
        "cells": cells,
        "effects": effects(config, cells),
        "torch_threads": torch.get_num_threads(),
    }


def effects(config: StrategiesConfig, cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return per size what each strategy changes in the test cross-entropy, over paired seeds.

    In nats, below 0 is a gain; with its interval of 95 % by Student's t over the seeds.
    """

    def losses(size: str, dropout: str, switch: str) -> list[float]:
        names = (Point(size, dropout, seed).name for seed in config.seeds)
        return [cells[name][switch]["cross_entropy"] for name in names]

    found: dict[str, Any] = {}
    for size in config.sizes:
        both, neither = losses(size, "falling", "with"), losses(size, "constant", "without")
        pairs = {
            "falling dropout": (both, losses(size, "constant", "with")),
            "switch to SGD": (both, losses(size, "falling", "without")),
            "both": (both, neither),
        }
        found[size] = {name: asdict(paired(a, b)) for name, (a, b) in pairs.items()}
    return found


def table(report: Mapping[str, Any]) -> str:
    """Return the study as Markdown: the four cells of each size, and the differences."""
    lines = [
        "| size | dropout | switch | test cross-entropy | HR@10 | NDCG@10 |",
        "|" + " --- |" * 6,
    ]
    for size, dropout, switch in product(report["sizes"], DROPOUTS, SWITCHES):
        names = [Point(size, dropout, seed).name for seed in report["seeds"]]
        mine = [report["cells"][name][switch] for name in names]
        values = [f"{np.mean([cell[m] for cell in mine]):.4f}" for m in MEASURES]
        lines.append(f"| {size} | {dropout} | {switch} | {' | '.join(values)} |")
    lines += ["", "| size | strategy | nats, with - without, 95 % over seeds |", "|" + " --- |" * 3]
    for size, named in report["effects"].items():
        for name, x in named.items():
            shown = f"{x['median']:+.4f} [{x['low']:+.4f} {x['high']:+.4f}]"
            lines.append(f"| {size} | {name} | {shown} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line, trains what is missing, writes and prints."""
    given = sys.argv[1:] if argv is None else argv
    config = read_command_line(StrategiesConfig, given, description=__doc__ or "")
    try:
        report = study(config)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    config.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1) + "\n"
    (config.out / "results.json").write_text(text, encoding="utf-8")
    sys.stdout.write(table(report) + "\n")


if __name__ == "__main__":
    main()
