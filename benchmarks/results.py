"""What a task hands over: tables of measures with intervals, as JSON and as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.metrics.bootstrap import Interval, Statistic, bootstrap, summary
from benchmarks.metrics.format import aligned, show

FORMAT = 1
TITLES = {
    "trained": "CLUE, trained",
    "untrained": "CLUE, untrained",
    "floor": "TF-IDF + SVD + CCA",
    "text": "TF-IDF + SVD",
    "popularity": "popularity",
    "prior": "prior",
}
LOWER_IS_BETTER = ("median rank", "contrastive entropy", "entropy at own scale")


@dataclass(frozen=True)
class Slice:
    """Statistics over the same queries: of each row (trained, text …) each measure by name.

    `users` (Q,) says whose each query is.
    """

    users: np.ndarray
    statistics: Mapping[str, Mapping[str, Statistic]]


@dataclass(frozen=True)
class Row:
    """One model's measures; `behind` is "trained minus this" on the same resamples (paired)."""

    measures: dict[str, Interval]
    behind: dict[str, Interval] = field(default_factory=dict[str, Interval])


@dataclass(frozen=True, kw_only=True)
class Table:
    """One task on one set of users: measures per row. `headline` names the measures to quote.

    `main` marks the table over all services of a task, or its only one; the others are its details.
    """

    task: str
    part: str
    users: str
    main: bool
    count: int
    headline: tuple[str, ...]
    chance: dict[str, float]
    note: str
    rows: dict[str, Row]


@dataclass(frozen=True)
class Outcome:
    """A task's tables and, for slices and tests yet to come, its per-user results (long form)."""

    tables: list[Table]
    per_user: pa.Table


def measure_rows(slices: Sequence[Slice], *, resamples: int, seed: int) -> dict[str, Row]:
    """Return every row's measures with intervals, and its paired difference to `trained`."""
    rows: dict[str, Row] = {}
    for part in slices:
        keys = [(row, name) for row, named in part.statistics.items() for name in named]
        chosen = [part.statistics[row][name] for row, name in keys]
        values, drawn = bootstrap(chosen, part.users, resamples=resamples, seed=seed)
        measured = summary(values, drawn)
        place = {key: at for at, key in enumerate(keys)}
        for (row, name), found in zip(keys, measured, strict=True):
            here = rows.setdefault(row, Row({}))
            here.measures[name] = found
            ours = place.get(("trained", name))
            if ours is not None and row != "trained":
                at = place[row, name]
                gap = summary((values[ours] - values[at])[None], (drawn[ours] - drawn[at])[None])
                here.behind[name] = gap[0]
    return rows


def per_user_rows(
    named: tuple[str, str, str],
    user_ids: pa.Array,
    *,
    better: np.ndarray | None = None,
    equal: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
    loss: np.ndarray | None = None,
) -> pa.Table:
    """Return one line per query in the long form that every task writes.

    `named` is (task, part, row); `better` and `equal` count the candidates above and beside the
    target among `candidates`; `loss` is nats. What a task does not measure is null.
    """
    count = len(user_ids)
    columns: dict[str, Any] = {
        key: pa.array([value] * count, pa.string())
        for key, value in zip(("task", "part", "row"), named, strict=True)
    }
    columns["user_id"] = user_ids
    numbers = {"better": better, "equal": equal, "candidates": candidates, "loss": loss}
    for key, values in numbers.items():
        columns[key] = pa.array([None] * count if values is None else values, pa.float64())
    return pa.table(columns)


def write_results(file: Path, tables: Sequence[Table], about: Mapping[str, Any]) -> None:
    """Writes tables and what they are `about` (model, corpus, config, seconds) as JSON."""
    tree = {"format": FORMAT, **about, "tables": [asdict(table) for table in tables]}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(file)


def read_results(file: Path) -> tuple[list[Table], dict[str, Any]]:
    """Return the tables and everything else that `write_results` wrote.

    Raises FileNotFoundError without the file and ValueError for another format.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"no results in {file}; make them with python -m benchmarks.evaluate"
        )
    tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if tree.pop("format", None) != FORMAT:
        raise ValueError(f"{file}: not of format {FORMAT}; run python -m benchmarks.evaluate again")
    tables: list[Table] = []
    for fields in tree.pop("tables"):
        rows = {
            name: Row(
                {key: Interval(**found) for key, found in row["measures"].items()},
                {key: Interval(**found) for key, found in row["behind"].items()},
            )
            for name, row in fields.pop("rows").items()
        }
        headline = tuple(fields.pop("headline"))
        tables.append(Table(**fields, headline=headline, rows=rows))
    return tables, tree


def _cell(row: Row, name: str) -> str:
    return show(name, row.measures[name]) if name in row.measures else ""


def as_text(table: Table) -> str:
    """Return a table for the terminal: a line per measure, a column per row, intervals of 95 %."""
    names = list(dict.fromkeys(name for row in table.rows.values() for name in row.measures))
    head = ["", *(TITLES.get(row, row) for row in table.rows)]
    body = [[name, *(_cell(row, name) for row in table.rows.values())] for name in names]
    title = f"{table.task}: {table.part}, {table.users} ({table.count:,} users)"
    return f"{title}\n{aligned([head, *body])}\n{table.note}\n"


def headlines(tables: Sequence[Table]) -> list[list[str]]:
    """Return small table: a line per task and headline measure, a column per row; head first."""
    rows = [row for row in TITLES if any(row in table.rows for table in tables)]
    lines = [["task", "measure", *(TITLES[row] for row in rows)]]
    for table in tables:
        for name in table.headline:
            cells = [_cell(table.rows.get(row, Row({})), name) or "-" for row in rows]
            better = " (lower is better)" if name in LOWER_IS_BETTER else ""
            lines.append([f"{table.task}: {table.part}", name + better, *cells])
    return lines
