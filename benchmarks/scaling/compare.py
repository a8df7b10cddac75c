"""Command: what a factor of a sweep is worth, run beside run, with paired differences.

    python -m benchmarks.scaling compare results/scaling/NAME/runs.parquet factor=size by=[batch]
    python -m benchmarks.scaling compare results/scaling/NAME/runs.parquet factor=arm \\
        runs=runs/scaling/NAME pairs=[[with,without]]

Compared are the runs that are equal in the columns of `by`, each at the best of the learning rates
that were tried, by the held-out loss. Without `runs` the figure is that loss; with them the test
users of each run are measured. Writes OUT/compare.json, OUT/compare.svg and OUT/compare.png.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from scipy import stats

from benchmarks.metrics.bootstrap import Interval, bootstrap, mean_of, summary
from benchmarks.scaling.compare_report import draw, table
from benchmarks.scaling.fit.figures import save
from benchmarks.scaling.fit.law_summary import plain
from benchmarks.scaling.fit.run_table import Runs, digest, read_runs
from benchmarks.scaling.sweep.query_scores import QueryScores, query_scores
from clue.atomic import write_text
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
    groups = [
        _group(config, runs.take(np.array([other == key for other in keys])), key) for key in order
    ]
    tree: dict[str, Any] = {
        "format": 1,
        "factor": config.factor,
        "by": config.by,
        "table": digest(runs),
        "groups": groups,
    }
    tree = plain(tree)
    write_text(config.out / "compare.json", json.dumps(tree, indent=1, allow_nan=False) + "\n")
    with mpl.rc_context({"svg.hashsalt": "clue", "font.size": 9}):
        save(draw(tree), config.out / "compare")
    return tree


def _group(config: CompareConfig, runs: Runs, key: tuple[str, ...]) -> dict[str, Any]:
    values = sorted({str(value) for value in runs[config.factor]}, key=_number)
    levels = {value: _level(config, runs, value, key) for value in values}
    pairs = config.pairs or [[value, values[0]] for value in values[1:]]
    absent = [value for pair in pairs for value in pair if value not in levels]
    if absent:
        raise ValueError(
            f"pairs names {config.factor} {absent[0]}, which has no run at "
            f"{dict(zip(config.by, key, strict=True))}; there are {', '.join(values)}"
        )
    return {
        "at": dict(zip(config.by, key, strict=True)),
        "levels": {
            value: {
                **{name: level.rows[name].tolist() for name in ("seed", "steps", "lr", "flops")},
                "seconds": level.rows["seconds"].tolist(),
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
        rates = np.unique(rows["lr"])
        means = [rows["loss"][rows["lr"] == rate].mean() for rate in rates]
        rows = rows.take(rows["lr"] == rates[int(np.argmin(means))])
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
    names = {
        name: f"CE_{queries[0].negatives}" if name == "entropy" else name
        for name in queries[0].scores
    }
    if len(queries) > 1:
        means = {names[n]: np.array([q.scores[n].mean() for q in queries]) for n in names}
        return Level(rows, means, None)
    scores = {names[name]: values for name, values in queries[0].scores.items()}
    return Level(rows, scores, queries[0].users)


def _part(queries: QueryScores, config: CompareConfig) -> QueryScores:
    if not config.part:
        return queries
    mask = queries.part == config.part
    if not mask.any():
        parts = ", ".join(np.unique(queries.part).tolist())
        raise ValueError(f"part={config.part} has no test query; there are {parts}")
    scores = {name: values[mask] for name, values in queries.scores.items()}
    return QueryScores(queries.users[mask], queries.part[mask], scores, int(mask.sum()) - 1)


def _intervals(config: CompareConfig, one: Level, other: Level | None) -> dict[str, Any]:
    """Return each measure of a level, or its paired differences to another, with intervals."""
    result: dict[str, Any] = {}
    for name, values in one.scores.items():
        users = one.users
        if other is not None and users is not None:
            if other.users is None or not np.array_equal(users, other.users):
                raise ValueError("the runs were measured on different users; train on one corpus")
            values = values - other.scores[name]
        elif other is not None:
            seeds, mine, theirs = np.intersect1d(
                one.rows["seed"], other.rows["seed"], return_indices=True
            )
            if not len(seeds):
                raise ValueError("the runs to compare have no seed in common; train both of one")
            values = values[mine] - other.scores[name][theirs]
        if users is None:
            result[name] = asdict(student(values))
        else:
            drawn = bootstrap(
                [mean_of(values)], users, resamples=config.resamples, seed=config.seed
            )
            result[name] = asdict(summary(*drawn)[0])
    return result


def student(values: np.ndarray) -> Interval:
    """Return the mean of values (S,) and its interval of 95 % by Student's t; NaN for one value."""
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5)
    return Interval(mean, mean - half, mean + half)


def _number(value: str) -> tuple[float, str]:
    """Return a key that sorts numbers by their value, before texts."""
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def main(argv: Sequence[str]) -> None:
    """Read the command line, compare, print the table."""
    tree = run_command(CompareConfig, compare, argv, description=__doc__)
    sys.stdout.write(table(tree) + "\n")
