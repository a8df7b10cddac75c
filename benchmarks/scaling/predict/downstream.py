"""Command: the runs of a sweep on tasks of transfer, and whether a lower loss meant a better score.

    python -m benchmarks.scaling transfer results/scaling/NAME/runs.parquet \\
        runs=runs/scaling/NAME suite=configs/suite/SUITE.yaml out=results/scaling/NAME

Writes OUT/scores.json, (point, loss, task, score) of each run at its end, which `fit` and `plan`
read as scores=FILE, and OUT/tau.json, the rank correlations. A score that is there stays.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.baselines.representations import EncoderModel
from benchmarks.json_files import write_json
from benchmarks.metrics.correlation import correlations
from benchmarks.metrics.format import markdown, zero_width
from benchmarks.protocols import Task
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.suite import runner as suites
from clue.config import load, run_command
from clue.data.corpus import Corpus


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """The runs of a table, whose directories are in `runs`, on the tasks of a suite.

    `tasks` are patterns of the suite's task names, none for all. Each takes its first probe.
    """

    table: Path
    runs: Path
    suite: Path
    out: Path = Path("results/scaling")
    tasks: list[str] = field(default_factory=list[str])
    resamples: int = 2000


def measure(config: TransferConfig) -> dict[str, Any]:
    """Return the correlations, written with the scores; what is not scored yet is scored."""
    runs = read_runs(config.table)
    suite = load(suites.SuiteConfig, config.suite, [f"tasks={json.dumps(config.tasks)}"])
    corpus = Corpus.open(suite.corpus)
    tasks = suites.tasks_of(suite, corpus)
    file = config.out / "scores.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    known = {(row["point"], row["task"]) for row in rows}
    points = list(zip(map(str, runs["point"]), runs["loss"].tolist(), strict=True))
    for point, loss in tqdm(points, unit="run", disable=not sys.stderr.isatty()):
        missing = [task for task in tasks if (point, task.name) not in known]
        if missing:
            model = EncoderModel(point, config.runs / point, corpus, seed=0, untrained=False)
            rows += [{"point": point, "loss": loss, **scored(task, model)} for task in missing]
            write_json(file, rows)
    return write_json(config.out / "tau.json", tau(runs, rows, resamples=config.resamples))


def scored(task: Task, model: EncoderModel) -> dict[str, Any]:
    """Return name, measure and score of a model's main measure on a task."""
    probe = next(one for one in task.probes if task.supports(model, one))
    score = task.score(model, probe)
    name, main = next(iter(score.measures.items()))
    value = main.statistic(score.queries)(np.ones((1, score.queries.num_rows)))[0]
    what = {"task": task.name, "probe": probe, "measure": name, "score": float(value)}
    return {**what, "lower_is_better": main.lower_is_better}


def tau(runs: Runs, rows: Sequence[Mapping[str, Any]], *, resamples: int) -> dict[str, Any]:
    """Return of each task the rank correlations over the runs of the table that have all tasks.

    Positive means that the run of lower loss scores better. The ends of one trunk are drawn as if
    they were independent. ValueError for too few runs.
    """
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row["point"], {})[row["task"]] = row["score"]
    tasks = {row["task"]: row for row in rows}
    points = [
        (float(loss), values[str(point)])
        for point, loss in zip(runs["point"], runs["loss"], strict=True)
        if len(values.get(str(point), {})) == len(tasks)
    ]
    lower = {name: bool(row["lower_is_better"]) for name, row in tasks.items()}
    ranks = correlations(points, lower, resamples=resamples)
    return {
        "runs": len(points),
        "tasks": {
            name: {
                "measure": row["measure"],
                "probe": row["probe"],
                "worst": min(each[name] for _, each in points),
                "best": max(each[name] for _, each in points),
                **ranks[name],
            }
            for name, row in tasks.items()
        },
    }


def table(tree: Mapping[str, Any]) -> str:
    """Return the correlations as Markdown."""
    rows = [
        [
            name,
            f"{one['measure']}, {one['probe']}",
            f"{one['worst']:.4f} {one['best']:.4f}",
            *(
                f"{x['value']:.2f} [{x['low']:.2f} {x['high']:.2f}]{zero_width(**x)}"
                for x in (one["kendall"], one["spearman"])
            ),
        ]
        for name, one in tree["tasks"].items()
    ]
    first = f"task, {tree['runs']} runs"
    return markdown((first, "measure", "least and greatest", "tau", "Spearman"), rows)


def main(argv: Sequence[str]) -> None:
    """Read the command line, score, print the table."""
    tree = run_command(TransferConfig, measure, argv, description=__doc__)
    sys.stdout.write(table(tree) + "\n")
