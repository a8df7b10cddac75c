"""Every measure of one model minus that of another, on the same resampled users.

A suite names its `pairs`, such as the largest model of a ladder and the smallest; each is a line of
OUT/paired.jsonl.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.json_files import plain
from benchmarks.metrics.bootstrap import Interval, summary
from benchmarks.suite.results import TaskResult, read_interval, resampled
from clue.atomic import write_text


@dataclass(frozen=True)
class Pair:
    """`minus` subtracted from `model` on a task, each the mean over its seeds: by measure."""

    task: str
    model: str
    minus: str
    deltas: dict[str, Interval]


def pairs(
    results: Sequence[TaskResult], wanted: Sequence[Sequence[str]], *, resamples: int, seed: int
) -> list[Pair]:
    """Return the wanted (model, model) of each task that has both. ValueError for no such task."""
    by_task: dict[str, dict[str, list[TaskResult]]] = {}
    for result in results:
        by_task.setdefault(result.task, {}).setdefault(result.model, []).append(result)
    made: list[Pair] = []
    for model, minus in wanted:
        tasks = [name for name, models in by_task.items() if {model, minus} <= set(models)]
        if not tasks:
            raise ValueError(f"pairs: no task has both {model} and {minus}")
        for name in tasks:
            values, drawn = zip(
                *(_drawn(by_task[name][each], resamples, seed) for each in (model, minus)),
                strict=True,
            )
            names = list(by_task[name][model][0].measures)
            deltas = summary(values[0] - values[1], drawn[0] - drawn[1])
            made.append(Pair(name, model, minus, dict(zip(names, deltas, strict=True))))
    return made


def _drawn(seeds: Sequence[TaskResult], resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each measure (M,) and its resamples (M, R), means over the seeds of a model."""
    values, drawn = [], []
    for result in seeds:
        if result.queries is None:
            raise ValueError(
                f"{result.out}: {result.key}: its queries are not at hand; run the suite again"
            )
        queries = pq.read_table(result.queries)
        value, draws = resampled(result.measures, queries, resamples, seed)
        values.append(value)
        drawn.append(draws)
    return np.mean(values, axis=0), np.mean(drawn, axis=0)


def write(out: Path, made: Sequence[Pair]) -> None:
    """Write OUT/paired.jsonl."""
    lines = [json.dumps(plain(pair), ensure_ascii=False) for pair in made]
    write_text(out / "paired.jsonl", "".join(f"{line}\n" for line in lines))


def read(out: Path) -> list[Pair]:
    """Return the pairs of OUT, none where the suite names none."""
    file = out / "paired.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    made: list[Pair] = []
    for tree in map(json.loads, lines):
        deltas = {name: read_interval(each) for name, each in tree.pop("deltas").items()}
        made.append(Pair(**tree, deltas=deltas))
    return made
