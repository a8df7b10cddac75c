"""Command: must batch and model grow together? Held-out entropy and matching by both.

    python -m benchmarks.batch_size configs/benchmarks/batch_size.yaml

Every point is an ordinary run of `clue/pretrain.py`; a finished one is never repeated. Equal steps
gives every batch the same number of updates, equal compute the model FLOPs that the smallest batch
spends on `pairs` pairs. The small model's learning rate is the best of `rates` on validation users;
the large one takes the same rate through the width rule (`optimizer.base_width` of the config).
All points are measured on the same test users in one gallery, so that K is the same everywhere:
training losses at different batch sizes do not compare. Writes OUT/results.json and OUT/figure.svg.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.batch_figure import Cell, draw, table
from benchmarks.metrics.bootstrap import Interval, bootstrap, mean_of, summary
from benchmarks.models import EncoderVectors
from benchmarks.scaling.sweep.cost import flops_a_step
from clue.config import load, read_command_line
from clue.data.corpus import Corpus
from clue.evaluation.matching import contrastive_entropy, fit_scale, pair_ranks
from clue.inference.text_encoder import TextEncoder
from clue.run.pretrain_config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class BatchSizeConfig:
    """The grid: `sizes` are overrides of the run `pretrain` by name, smallest first.

    `rates` are peak learning rates at every batch. `steps` is the number of equal steps, `pairs`
    fixes equal compute, `pool` is the most users of a gallery.
    """

    name: str = "multi8"
    pretrain: Path = Path("configs/pretrain/multi8.yaml")
    corpus: Path = Path("corpora/multi8")
    runs: Path = Path("runs/batch_size")
    out: Path = Path("results/batch_size")
    sizes: dict[str, list[str]]
    rates: list[float]
    batches: list[int]
    steps: int = 64
    pairs: int = 262_144
    pool: int = 1024
    seed: int = 0
    resamples: int = 10_000

    def __post_init__(self) -> None:
        """Refuse a grid without points."""
        if len(self.sizes) != 2:
            raise ValueError(f"sizes are {list(self.sizes)}; name two, the smaller first")
        if not self.batches or not self.rates:
            raise ValueError("batches and rates must hold at least one number each")


@dataclass(frozen=True)
class Point:
    """One run of the grid; `modes` says which comparisons its number of steps belongs to."""

    size: str
    batch: int
    steps: int
    flops: float
    modes: tuple[str, ...]
    rate: float = 0.0

    @property
    def name(self) -> str:
        """The run's directory."""
        return f"{self.size}-{self.batch}-{self.steps}-{self.rate:.2e}"


def plan(config: BatchSizeConfig, corpus: Corpus) -> list[Point]:
    """Return all points, the small size and the small batches first, their rates still open."""
    points: list[Point] = []
    for size in config.sizes:
        flops = {batch: _flops(config, size, batch, corpus) for batch in config.batches}
        least = min(config.batches)
        for batch in sorted(config.batches):
            equal = round(flops[least] * config.pairs / least / flops[batch])
            modes = {"equal steps": config.steps, "equal compute": equal}
            for steps in sorted({*modes.values()}):
                mine = tuple(mode for mode, asked in modes.items() if asked == steps)
                points.append(Point(size, batch, steps, flops[batch] * steps, mine))
    return points


def _flops(config: BatchSizeConfig, size: str, batch: int, corpus: Corpus) -> float:
    keys = [*config.sizes[size], f"batch={batch}", f"seed={config.seed}"]
    return flops_a_step(load(PretrainConfig, config.pretrain, keys), corpus)


def overrides(config: BatchSizeConfig, point: Point) -> list[str]:
    """Return what the run of a point changes in the config `pretrain`."""
    return [
        *config.sizes[point.size],
        *(f"batch={point.batch}", f"corpus={config.corpus}", f"runs={config.runs}"),
        *(f"seed={config.seed}", "trackers=[]", f"name={point.name}", f"steps={point.steps}"),
        *(f"optimizer.lr={point.rate}", f"optimizer.warmup_steps={max(4, point.steps // 10)}"),
        *(f"validate_every={point.steps}", f"checkpoint_every={point.steps}", "precision=fp32"),
        f"log_every={max(1, point.steps // 64)}",
    ]


def train(config: BatchSizeConfig, point: Point) -> None:
    """Runs one point; SystemExit with the end of its output where it fails."""
    command = [sys.executable, "clue/pretrain.py", str(config.pretrain)]
    command += overrides(config, point)
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"batch_size: {point.name} failed:\n{done.stderr[-2000:]}")


def measure(config: BatchSizeConfig, point: Point, corpus: Corpus, out: Path) -> None:
    """Writes each held-out user's entropy (nats) and ranks, both splits, and the run's seconds."""
    run = config.runs / point.name
    encoder = TextEncoder.load(run / "checkpoints" / f"step_{point.steps:08d}")
    model = EncoderVectors(encoder, corpus)
    found: dict[str, np.ndarray] = {}
    scale = None
    for split in ("valid", "test"):
        users, services = gallery(corpus, corpus.users_in(split), config.pool)
        a, b = (_vectors(model, corpus, users, of, encoder.max_events) for of in services)
        scale = fit_scale(a, b) if scale is None else scale  # fitted on validation users alone
        forward, backward = pair_ranks(a, b)
        found[f"{split}_entropy"] = contrastive_entropy(a, b, scale)
        found[f"{split}_hits"] = ((forward <= 10).astype(float) + (backward <= 10)) / 2
    log = [json.loads(x) for x in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in log if line["kind"] == "train"]
    seconds = float(np.mean([line["seconds"] for line in lines])) * point.steps
    with out.open("wb") as stream:
        np.savez(stream, allow_pickle=False, seconds=np.array(seconds), **found)


def gallery(
    corpus: Corpus, users: np.ndarray, pool: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return at most `pool` of the users who have two services, and two services of each.

    Who and which depends on the corpus alone.
    """
    draw = np.random.default_rng(0)
    lengths = np.stack([corpus.items_of(s).lengths[users] for s in range(len(corpus.services))])
    both = np.flatnonzero((lengths > 0).sum(0) >= 2)
    both = np.sort(draw.permutation(both)[:pool])
    score = np.where(lengths[:, both] > 0, draw.random((len(lengths), len(both))), -1.0)
    order = np.argsort(-score, axis=0)
    return users[both], (order[0], order[1])


def _vectors(
    model: EncoderVectors, corpus: Corpus, users: np.ndarray, services: np.ndarray, events: int
) -> np.ndarray:
    """Return the unit vector (n, E) of each user's newest events in the service named for them."""
    rows = [np.flatnonzero(services == number) for number in range(len(corpus.services))]
    parts = [
        model.histories(service, corpus.items_of(number).take(users[mine]).last(events))
        for number, (service, mine) in enumerate(zip(corpus.services, rows, strict=True))
    ]
    return np.concatenate(parts)[np.argsort(np.concatenate(rows), kind="stable")]


def chosen(config: BatchSizeConfig, corpus: Corpus) -> dict[tuple[str, str, int], Point]:
    """Runs what is missing and gives the point of each comparison, size and batch."""
    small, _ = config.sizes
    found: dict[tuple[str, str, int], Point] = {}
    for point in plan(config, corpus):
        rates = config.rates
        if point.size != small:
            rates = [found[point.modes[0], small, point.batch].rate]
        tried = [replace(point, rate=rate) for rate in rates]
        for one in tried:
            if not _file(config, one).is_file():
                train(config, one)
                measure(config, one, corpus, _file(config, one))
            entropy = np.load(_file(config, one))["valid_entropy"].mean()
            sys.stderr.write(f"batch_size: {one.name}: {entropy:.3f} nats on valid users\n")
        best = min(tried, key=lambda one: np.load(_file(config, one))["valid_entropy"].mean())
        found |= {(mode, point.size, point.batch): best for mode in point.modes}
    return found


def summarise(config: BatchSizeConfig, points: Mapping[tuple[str, str, int], Point]) -> list[Cell]:
    """Return a cell for each comparison and batch."""
    cells: list[Cell] = []
    for mode in dict.fromkeys(mode for mode, _, _ in points):
        for batch in sorted(config.batches):
            pair = [points[mode, size, batch] for size in config.sizes]
            scores = [np.load(_file(config, point)) for point in pair]
            columns: list[np.ndarray] = []
            for name in ("test_entropy", "test_hits"):
                one, other = (score[name] for score in scores)
                columns += [one, other, other - one]
            found = _intervals(columns, config)
            cells.append(
                Cell(
                    mode=mode,
                    batch=batch,
                    negatives=len(columns[0]) - 1,
                    steps=[point.steps for point in pair],
                    rates=[point.rate for point in pair],
                    flops=[point.flops for point in pair],
                    seconds=[float(score["seconds"]) for score in scores],
                    entropy=found[0:2],
                    entropy_gain=found[2],
                    recall=found[3:5],
                    recall_gain=found[5],
                )
            )
    return cells


def tried(config: BatchSizeConfig) -> dict[str, float]:
    """Return the entropy on valid users of every measured run, by its name."""
    return {
        file.stem: float(np.load(file)["valid_entropy"].mean())
        for file in sorted(config.runs.glob("*.npz"))
    }


def _intervals(columns: Sequence[np.ndarray], config: BatchSizeConfig) -> list[Interval]:
    users = np.arange(len(columns[0]))
    statistics = [mean_of(column) for column in columns]
    return summary(*bootstrap(statistics, users, resamples=config.resamples, seed=config.seed))


def _file(config: BatchSizeConfig, point: Point) -> Path:
    return config.runs / f"{point.name}.npz"


def study(config: BatchSizeConfig) -> str:
    """Runs what is missing, writes the results and gives the table."""
    corpus = Corpus.open(config.corpus)
    cells = summarise(config, chosen(config, corpus))
    asked = {k: v for k, v in dataclasses.asdict(config).items() if not isinstance(v, Path)}
    about = {
        "config": asked,
        "corpus": {"name": corpus.manifest.name, "fingerprint": corpus.fingerprint},
        "tried": tried(config),
        "cells": [dataclasses.asdict(cell) for cell in cells],
    }
    config.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about, indent=1) + "\n"
    (config.out / "results.json").write_text(text, encoding="utf-8")
    draw(cells, list(config.sizes), config.out / "figure.svg")
    return table(cells, list(config.sizes))


def main() -> None:
    """Reads the command line, runs the study, prints the table."""
    config = read_command_line(BatchSizeConfig, sys.argv[1:], description=__doc__ or "")
    try:
        sys.stdout.write(study(config) + "\n")
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
