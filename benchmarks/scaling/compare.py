"""Command: what a factor of a sweep is worth, run beside run, with paired differences.

    python -m benchmarks.scaling compare results/scaling/NAME/runs.parquet factor=size by=[batch]
    python -m benchmarks.scaling compare results/scaling/NAME/runs.parquet factor=arm \\
        runs=runs/scaling/NAME pairs=[[with,without]]

Compared are the runs that are equal in the columns of `by`, each at the best of the learning rates
that were tried, by the held-out loss. Without `runs` the figure is that loss; with them the test
users of each run are measured. Writes OUT/compare.json, OUT/compare.svg and OUT/compare.png.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.json_files import write_json
from benchmarks.metrics.bootstrap import Interval, interval, mean_of, student
from benchmarks.metrics.format import markdown, zero_width
from benchmarks.report.charts import Line, Panel, line_panels, save
from benchmarks.scaling.fit.run_table import Runs, digest, read_runs
from benchmarks.scaling.fit.selection import best_rate
from benchmarks.scaling.sweep.query_scores import QueryScores, query_scores
from clue.config import run_command

LOSS = "held-out loss"
FREE_COLUMNS = ("study", "point", "trunk", "seed", "lr", "device", "commit", "seconds")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The table, the column `factor` whose values are compared, and `by`, those that are held.

    `pairs` are the differences, [this, minus that]; without them each value minus the first.
    `runs` is the folder of the runs, to measure their test users; `part` takes the queries of one
    pair of services alone. Intervals of 95 % are over the seeds where there are two or more
    (Student's t of paired differences), else over the test users (a paired bootstrap).
    """

    table: Path
    factor: str
    by: list[str] = field(default_factory=list[str])
    pairs: list[list[str]] = field(default_factory=list[list[str]])
    runs: Path | None = None
    part: str = ""
    out: Path = Path("results/scaling")
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate that each difference is of two values."""
        wrong = [pair for pair in self.pairs if len(pair) != 2]
        if wrong:
            raise ValueError(f"pairs holds {wrong[0]}; each is [this, minus that]")


@dataclass(frozen=True)
class Level:
    """The runs at one value of the factor, a row a seed, and their scores by measure.

    A score is (S,) over seeds, or (Q,) over the test queries of the only seed.
    """

    rows: Runs
    scores: Mapping[str, np.ndarray]
    users: np.ndarray | None


def compare(config: CompareConfig) -> dict[str, Any]:
    """Write the comparison and return its tree.

    Raises ValueError for a column or value that the table lacks, for two runs of one seed that
    `by` does not tell apart, and for arms without a seed in common.
    """
    runs = read_runs(config.table)
    missing = [name for name in (config.factor, *config.by) if name not in runs.columns]
    if missing:
        raise ValueError(
            f"{config.table} has no column {missing[0]}; factor and by may be "
            f"{', '.join(sorted(runs.columns))}"
        )
    keys = [tuple(str(runs[name][row]) for name in config.by) for row in range(len(runs))]
    order = sorted(set(keys), key=lambda key: [_number(value) for value in key])
    tree: dict[str, Any] = {
        "format": 1,
        "factor": config.factor,
        "by": config.by,
        "table": digest(runs),
        "groups": [
            _group(config, runs.take(np.array([other == key for other in keys])), key)
            for key in order
        ],
    }
    tree = write_json(config.out / "compare.json", tree)
    save(draw(tree), config.out / "compare.svg", config.out / "compare.png")
    return tree


def _group(config: CompareConfig, runs: Runs, key: tuple[str, ...]) -> dict[str, Any]:
    at = dict(zip(config.by, key, strict=True))
    values = sorted({str(value) for value in runs[config.factor]}, key=_number)
    levels = {value: _level(config, runs, value, key) for value in values}
    pairs = config.pairs or [[value, values[0]] for value in values[1:]]
    absent = [value for pair in pairs for value in pair if value not in levels]
    if absent:
        raise ValueError(
            f"pairs names {config.factor} {absent[0]}, which has no run at {at}; there are "
            f"{', '.join(values)}"
        )
    return {
        "at": at,
        "levels": {
            value: {
                **{name: level.rows[name] for name in ("seed", "steps", "lr", "flops", "seconds")},
                "values": _intervals(config, level, None),
            }
            for value, level in levels.items()
        },
        "differences": [
            {"of": one, "minus": other, "values": _intervals(config, levels[one], levels[other])}
            for one, other in pairs
        ],
    }


def _level(config: CompareConfig, runs: Runs, value: str, key: tuple[str, ...]) -> Level:
    rows = runs.take(np.array([str(x) == value for x in runs[config.factor]]))
    if config.factor != "lr" and "lr" not in config.by:
        rows = rows.take(rows["lr"] == best_rate(rows["lr"], rows["loss"]))
    rows = rows.take(np.argsort(rows["seed"], kind="stable"))
    if len(np.unique(rows["seed"])) < len(rows):
        differing = [
            name
            for name in rows.columns
            if name not in FREE_COLUMNS and len({str(x) for x in rows[name]}) > 1
        ]
        raise ValueError(
            f"{config.factor} {value} at {key} has several runs of one seed, which differ in "
            f"{', '.join(differing)}; name one of these in by=[...]"
        )
    if config.runs is None:
        return Level(rows, {LOSS: rows["loss"]}, None)
    queries = [_part(query_scores(config.runs / str(point)), config) for point in rows["point"]]
    first = queries[0]
    users, scores = first.users, dict(first.scores)
    if len(queries) > 1:
        users = None
        scores = {name: np.array([one.scores[name].mean() for one in queries]) for name in scores}
    named = {"entropy": f"CE_{first.negatives}"}
    return Level(rows, {named.get(name, name): each for name, each in scores.items()}, users)


def _part(queries: QueryScores, config: CompareConfig) -> QueryScores:
    if not config.part:
        return queries
    mask = queries.part == config.part
    if not mask.any():
        parts = ", ".join(np.unique(queries.part).tolist())
        raise ValueError(f"part={config.part} has no test query; there are {parts}")
    scores = {name: values[mask] for name, values in queries.scores.items()}
    return QueryScores(queries.users[mask], queries.part[mask], scores, int(mask.sum()) - 1)


def _intervals(config: CompareConfig, one: Level, other: Level | None) -> dict[str, Interval]:
    """Return each measure of a level, or its paired differences to another, with intervals."""
    intervals: dict[str, Interval] = {}
    users = one.users
    for name, values in one.scores.items():
        if other is not None and users is not None:
            if other.users is None or not np.array_equal(users, other.users):
                raise ValueError("the runs were measured on different users; train on one corpus")
            values = values - other.scores[name]
        elif other is not None:
            seeds, first, second = np.intersect1d(
                one.rows["seed"], other.rows["seed"], return_indices=True
            )
            if not len(seeds):
                raise ValueError("the runs to compare have no seed in common; train both of one")
            values = values[first] - other.scores[name][second]
        draw = {"resamples": config.resamples, "seed": config.seed}
        intervals[name] = (
            student(values) if users is None else interval(mean_of(values), users, **draw)
        )
    return intervals


def _number(value: str) -> tuple[float, str]:
    """Return a key that sorts numbers by their value, before texts."""
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def table(tree: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: the levels, then the differences."""
    by, groups, measures = tree["by"], tree["groups"], _measures(tree)
    levels = [
        [
            *group["at"].values(),
            value,
            len(level["seed"]),
            _span(level["steps"]),
            _span(level["lr"]),
            *(shown(level["values"][name]) for name in measures),
        ]
        for group in groups
        for value, level in group["levels"].items()
    ]
    differences = [
        [
            *group["at"].values(),
            f"{one['of']} - {one['minus']}",
            *(shown(one["values"][name], sign="+") for name in measures),
        ]
        for group in groups
        for one in group["differences"]
    ]
    head = [*by, tree["factor"], "seeds", "steps", "learning rate", *measures]
    below = [*by, "difference, 95 %", *measures]
    return f"{markdown(head, levels)}\n\n{markdown(below, differences)}"


def _measures(tree: Mapping[str, Any]) -> list[str]:
    return list(next(iter(tree["groups"][0]["levels"].values()))["values"])


def shown(values: Mapping[str, Any], sign: str = "") -> str:
    """Return `1.2345 [1.2 1.3]`; the value alone without an interval."""
    value, low, high = (values[name] for name in ("value", "low", "high"))
    if low is None or high is None:
        return f"{value:{sign}.4f}"
    flag = zero_width(value, low, high)
    return f"{value:{sign}.4f} [{low:{sign}.4f} {high:{sign}.4f}]{flag}"


def _span(values: Sequence[float]) -> str:
    return " to ".join(f"{x:,.4g}" for x in dict.fromkeys((min(values), max(values))))


def draw(tree: Mapping[str, Any]) -> Figure:
    """Return a figure: each measure of each level over the groups, a panel for each measure."""
    groups = tree["groups"]
    arms = list(dict.fromkeys(arm for group in groups for arm in group["levels"]))
    x = [", ".join(map(str, group["at"].values())) for group in groups]
    measures = _measures(tree)
    unknown = {"values": {name: dict.fromkeys(("value", "low", "high")) for name in measures}}
    panels: list[Panel] = []
    for name in measures:
        lines: list[Line] = []
        for arm in arms:
            each = [group["levels"].get(arm, unknown)["values"][name] for group in groups]
            value, low, high = np.array([[*one.values()] for one in each], float).T
            lines.append(Line(f"{tree['factor']} {arm}", x, value, low, high))
        panels.append(Panel(lines, "", ", ".join(tree["by"]), name))
    figure = line_panels(panels)
    figure.set_size_inches(max(3.5, 0.5 * len(x)) * len(panels), 4)
    for axis, name in zip(figure.axes, measures, strict=False):
        axis.tick_params("x", rotation=90 if len(x) > 4 else 0)
        for at, group in enumerate(groups):
            for values in (level["values"][name] for level in group["levels"].values()):
                if values["low"] is not None and (flag := zero_width(**values)):
                    axis.annotate(flag, (at, values["value"]))
    return figure


def main(argv: Sequence[str]) -> None:
    """Read the command line, compare, print the table."""
    tree = run_command(CompareConfig, compare, argv, description=__doc__)
    sys.stdout.write(table(tree) + "\n")
