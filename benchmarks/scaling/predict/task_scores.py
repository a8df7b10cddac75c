"""What held-out runs are to score on tasks of transfer, and what they scored.

The expected score at a loss is fitted on the runs that were scored (fit/downstream_scores.py); the
loss of a target is not known, so that each draw of its law's prediction has a draw of the score.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics.format import markdown
from benchmarks.scaling.fit.downstream_scores import Form, Points, expected, read_scores
from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.law_summary import band as show_band
from benchmarks.scaling.fit.run_table import Runs
from benchmarks.scaling.fit.selection import budgets


def predicted(
    file: Path, runs: Runs, losses: Mapping[str, np.ndarray], form: Form, *, seed: int
) -> dict[str, dict[str, Any]]:
    """Return by target, then by task, the score's band and "largest fitted run", the trivial guess.

    `losses` (R,) are a target's: the predicted one, then draws of it. The trivial guess is the mean
    score of the fitted runs of most FLOPs (within a quarter). ValueError for a target that was
    scored already, for a task of too few runs, and where no run of most FLOPs was scored.
    """
    tasks = read_scores(file)
    most = budgets(runs["flops"])
    largest = set(map(str, runs["point"][(most == most.max()) & (runs["role"] == "fit")]))
    for task, points in tasks.items():
        known = [name for name in losses if name in points.names]
        if known:
            raise ValueError(
                f"{file}: {known[0]} was scored on {task} already; a prediction is made before: "
                "take targets without scores"
            )
        if not largest & set(points.names):
            raise ValueError(
                f"{file} has no score on {task} of the largest fitted runs, "
                f"{', '.join(sorted(largest))}; score them first: python -m benchmarks.scaling "
                "transfer"
            )
    return {
        name: {
            task: {
                "predicted": expected(points, drawn, form, seed=seed),
                "largest fitted run": _mean(points, largest),
            }
            for task, points in tasks.items()
        }
        for name, drawn in losses.items()
    }


def outcome(
    told: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Points], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return of each task that was predicted what the runs of those names scored, and the errors.

    Errors are predicted less observed. ValueError for a run without a score.
    """
    outcomes: dict[str, dict[str, Any]] = {}
    for task, guess in told.items():
        points = tasks.get(task, Points(np.zeros(0), np.zeros(0)))
        missing = [name for name in names if name not in points.names]
        if missing:
            raise ValueError(
                f"{missing[0]} has no score on {task}; score it first: python -m "
                "benchmarks.scaling transfer"
            )
        observed, one = _mean(points, set(names)), Band(**guess["predicted"])
        outcomes[task] = {
            "predicted": one,
            "observed": observed,
            "inside80": one.holds(observed, 80),
            "inside95": one.holds(observed, 95),
            "error": one.value - observed,
            "error of the largest fitted run": guess["largest fitted run"] - observed,
        }
    return outcomes


def _mean(points: Points, names: set[str]) -> float:
    """Return the mean score of the runs of those names."""
    return float(points.scores[[name in names for name in points.names]].mean())


def table(targets: Sequence[Mapping[str, Any]]) -> str:
    """Return the outcomes of all targets as Markdown, "" where no task was predicted."""
    rows = [
        [
            target["name"],
            task,
            show_band(one["predicted"], ".4f"),
            f"{one['observed']:.4f}",
            "80 %" if one["inside80"] else "95 %" if one["inside95"] else "no",
            f"{one['error']:+.4f}",
            f"{one['error of the largest fitted run']:+.4f}",
        ]
        for target in targets
        for task, one in target.get("tasks", {}).items()
    ]
    head = ("run", "task", "predicted, 95 %", "observed", "inside", "error")
    return markdown([*head, "error, largest fitted run"], rows) if rows else ""
