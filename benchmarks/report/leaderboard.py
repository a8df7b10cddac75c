"""The leaderboard: tasks by models, as HTML and as Markdown, with the rows that lose."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import digits, show
from benchmarks.suite.significance import PairedDifference
from benchmarks.suite.summary import (
    OURS,
    Row,
    TaskTable,
    compared,
    mean_gain,
    ranks,
)

SHADES = 4  # the best row of a task has the first alone, the worst third stays plain


def number(measure: str, value: float) -> str:
    """Return a value as the tables print it, "" for NaN."""
    if not np.isfinite(value):
        return ""
    text = show(measure, Interval(value, value, value)).split(" ", 1)[0]
    return text.replace("-0.", "-.", 1)


def signed(measure: str, found: Interval) -> str:
    """Return a difference with its sign and interval."""
    texts = [f"{x:+.{digits(measure)}f}" for x in (found.value, found.low, found.high)]
    value, low, high = (text.replace("0.", ".", 1) for text in texts)
    return f"{value} [{low} {high}]" if np.isfinite(found.low) else value


def p_value(p: float) -> str:
    """Return a p-value as text, "" for NaN."""
    return "" if not np.isfinite(p) else f"{p:.3f}".replace("0.", ".", 1)


def _other(table: TaskTable, models: Sequence[str]) -> Row | None:
    """The best row that has no column of its own."""
    return next((row for row in table.ranked if row.model not in models), None)


def columns_of(found: Sequence[TaskTable]) -> tuple[list[str], list[TaskTable]]:
    """Return the models with a column, the best mean rank first, and the tasks that all have."""
    models, common = compared(found)
    standing = ranks(common, models)
    return sorted(models, key=lambda name: standing.get(name, (0.0, 0.0))[0]), common


def html(found: Sequence[TaskTable]) -> str:
    """Return the leaderboard as an HTML table: totals first, then a line for each task."""
    models, common = columns_of(found)
    standing = ranks(common, models)
    head = "".join(f"<th>{escape(name)}</th>" for name in models)
    lines = [f"<tr><th>task</th>{head}<th>best other row</th></tr>"]
    totals = {
        f"mean rank<small>over {len(common)} tasks, 1 is best</small>": (
            [f"{standing[name][0]:.2f}" for name in models if standing]
        ),
        "Borda<small>points, higher is better</small>": (
            [f"{standing[name][1]:g}" for name in models if standing]
        ),
        "mean normalised gain<small>0 untrained, 1 best baseline</small>": (
            [number("gain", mean_gain(found, name)[0]) for name in models]
        ),
    }
    for title, texts in totals.items():
        cells = "".join(f"<td>{text}</td>" for text in texts)
        lines.append(f'<tr class="total"><td>{title}</td>{cells}<td></td></tr>')
    for table in found:
        cells = "".join(_cell(table, table.rows.get(name), "") for name in models)
        other = _other(table, models)
        last = _cell(table, other, other.model if other else "")
        lines.append(f"<tr><td>{_title(table)}</td>{cells}{last}</tr>")
    return f'<table class="board">{"".join(lines)}</table>'


def _title(table: TaskTable) -> str:
    better = ", lower is better" if table.lower_is_better else ""
    small = f"<small>{escape(table.family)}: {escape(table.measure)}{better}</small>"
    return f'<a href="#{escape(table.name)}">{escape(table.name)}</a>{small}'


def _cell(table: TaskTable, row: Row | None, name: str) -> str:
    if row is None:
        return "<td></td>"
    place, of = table.ranked.index(row), len(table.ranked)
    shade = 1 + (place - 1) * (SHADES - 1) // (of - 1) if place else 0
    style = f' class="r{shade}"' if shade < SHADES - 1 else ""
    named = f" {escape(name)}" if name else ""
    text = number(table.measure, row.value)
    return f"<td{style}>{text}<small>{place + 1} of {of}{named}</small></td>"


def markdown(found: Sequence[TaskTable], against: Mapping[str, PairedDifference]) -> str:
    """Return the leaderboard as Markdown; `against` has the best baseline of each task."""
    models, common = columns_of(found)
    head = ["task", "measure", *models, "best other row", f"{OURS} - best baseline", "p (Holm)"]
    lines = [head, ["---"] * len(head)]
    for table in found:
        best = table.ranked[0].model
        cells: list[str] = []
        for name in models:
            text = number(table.measure, table.rows[name].value) if name in table.rows else ""
            cells.append(f"**{text}**" if name == best else text)
        other = _other(table, models)
        text = f"{number(table.measure, other.value)} {other.model}" if other else ""
        cells.append(f"**{text}**" if other and other.model == best else text)
        delta = against.get(table.name)
        told = (
            [f"{signed(table.measure, delta.delta)} {delta.baseline}", p_value(delta.holm)]
            if delta
            else []
        )
        better = " ↓" if table.lower_is_better else ""
        lines.append([table.name, table.measure + better, *cells, *(told or ["", ""])])
    standing = ranks(common, models)
    blank = ["", "", ""]
    if standing:
        mean = [f"{standing[name][0]:.2f}" for name in models]
        lines.append([f"mean rank ({len(common)} tasks)", "", *mean, *blank])
        lines.append(["Borda", "", *(f"{standing[name][1]:g}" for name in models), *blank])
    gains = [number("gain", mean_gain(found, name)[0]) for name in models]
    count = mean_gain(found, OURS)[1]
    lines.append([f"mean normalised gain ({count} tasks)", "", *gains, *blank])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
