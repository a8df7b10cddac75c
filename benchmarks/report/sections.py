"""A task's part of the transfer report: its rows, who is beaten, slices, probes and measures."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias

import numpy as np

from benchmarks.report.leaderboard import number, p_value, signed
from benchmarks.report.plots import Dot, dot_plot, scale_of
from benchmarks.suite.results import TaskResult
from benchmarks.suite.significance import PairedDifference
from benchmarks.suite.summary import (
    CHANCE,
    CONTROL,
    ORACLE,
    OURS,
    Row,
    TaskTable,
    widest,
)

FEWEST = 20  # queries of a slice that is drawn
Grouped: TypeAlias = dict[tuple[str, str], list[TaskResult]]  # by model and probe, one a seed


def section(table: TaskTable, behind: Sequence[PairedDifference]) -> str:
    """Return the section of a task; `behind` are ours minus its baselines, corrected."""
    first = table.results[0]
    better = ", lower is better" if table.lower_is_better else ""
    about = f"{table.measure}{better}; {first.users:,} users, {first.count:,} queries"
    grouped = by_model(table.results)
    cards = [f'<div class="card"><h4>{escape(table.measure)}</h4>{rows_plot(table)}</div>']
    if behind:
        cards.append(f'<div class="card"><h4>{OURS} minus …</h4>{gaps_plot(table, behind)}</div>')
    return (
        f'<section id="{escape(table.name)}"><h3>{escape(table.name)}</h3>'
        f'<p class="note">{escape(about)}{_shares(table)}</p>'
        f'<div class="grid">{"".join(cards)}</div>'
        f"{slices(table)}{probes(table, grouped)}{measures(table, grouped)}</section>"
    )


def kind_of(model: str) -> str:
    """Return what a row is in the figures."""
    if model.startswith(ORACLE):
        return "oracle"
    if model.startswith((CONTROL, CHANCE)):
        return "control"
    return "ours" if OURS in model else "baseline"


def by_model(found: Sequence[TaskResult]) -> Grouped:
    """Return the cells by model and probe."""
    grouped: Grouped = {}
    for cell in found:
        grouped.setdefault((cell.model, cell.probe), []).append(cell)
    return grouped


def rows_plot(table: TaskTable) -> str:
    """Return every row with its interval and its seeds, oracles first, then the best first."""
    oracles = [row for row in table.rows.values() if row.model.startswith(ORACLE)]
    dots = [
        Dot(row.model, row.found, _value(table, row), kind_of(row.model), row.seeds)
        for row in [*oracles, *table.ranked]
    ]
    return dot_plot(dots)


def _value(table: TaskTable, row: Row) -> str:
    low, high = (number(table.measure, x) for x in (row.found.low, row.found.high))
    wide = f"<small>{low} to {high}</small>" if low and high else ""
    return f"{number(table.measure, row.value)}{wide}"


def gaps_plot(table: TaskTable, behind: Sequence[PairedDifference]) -> str:
    """Return our row minus each baseline, on the same users, with the corrected p-value."""
    dots: list[Dot] = []
    for one in behind:
        value = signed(table.measure, one.delta).split(" ", 1)[0]
        p = f", p {p_value(one.holm)}" if np.isfinite(one.holm) else ""
        effect = f"{one.relative:+.0%}" if np.isfinite(one.relative) else ""
        spread = f", {one.in_deviations:+.1f} sd" if np.isfinite(one.in_deviations) else ""
        text = f"{value}{p}<small>{effect}{spread}</small>"
        dots.append(Dot(one.baseline, one.delta, text, kind_of(one.baseline)))
    return dot_plot(dots, zero=True)


def _shares(table: TaskTable) -> str:
    """Our normalised gain, and our share of what an oracle attains, as a sentence."""
    ours, parts = table.rows.get(OURS), ""
    if ours is None:
        return parts
    gain, attained = table.gain(ours), table.attained(ours)
    if np.isfinite(gain):
        parts += f". Normalised gain {gain:.2f}"
    if np.isfinite(attained):
        parts += f", {attained:.0%} of what the truth attains"
    return parts


def slices(table: TaskTable) -> str:
    """Return small multiples on one scale: ours, the best baseline and untrained on each slice.

    A line is the mean over seeds, its bar as wide as that of the widest seed. Slices of fewer than
    FEWEST queries are only named: their intervals would set the scale.
    """
    wanted = [table.rows.get(OURS), table.best_baseline, table.rows.get(CONTROL)]
    rows = [row for row in wanted if row is not None]
    kinds = list(
        dict.fromkeys(name for row in rows for cell in row.results for name in cell.slices)
    )
    if not kinds:
        return ""
    blocks = "".join(_multiples(table, rows, kind) for kind in kinds)
    return f"<details><summary>By {escape(', '.join(kinds))}</summary>{blocks}</details>"


def _multiples(table: TaskTable, rows: Sequence[Row], kind: str) -> str:
    panels: dict[str, list[Dot]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        for cell in row.results:
            counts |= {label: count for label, (_, count) in cell.slices.get(kind, {}).items()}
    for label in sorted(counts, key=_order):
        if counts[label] >= FEWEST:
            each = [_slice_dot(table, row, kind, label) for row in rows]
            panels[label] = [dot for dot in each if dot is not None]
    scale = scale_of([dot for dots in panels.values() for dot in dots], zero=False)
    drawn = "".join(
        f"<div><h4>{escape(label)} <small>{counts[label]:,} queries</small></h4>"
        f"{dot_plot(dots, scale=scale)}</div>"
        for label, dots in panels.items()
    )
    few = [f"{label} ({count})" for label, count in counts.items() if label not in panels]
    note = f'<p class="note">Too few queries: {escape(", ".join(few))}</p>' if few else ""
    return f'<h4>{escape(kind)}</h4><div class="panels">{drawn}</div>{note}'


def _order(label: str) -> tuple[int, str]:
    digits = label.rstrip("+").split("-", 1)[0]
    return (int(digits) if digits.isdigit() else 0, label)


def _slice_dot(table: TaskTable, row: Row, kind: str, label: str) -> Dot | None:
    each = [
        cell.slices[kind][label][0] for cell in row.results if label in cell.slices.get(kind, {})
    ]
    if not each:
        return None
    wide = widest(each)
    return Dot(row.model, wide, number(table.measure, wide.value), kind_of(row.model))


def probes(table: TaskTable, grouped: Grouped) -> str:
    """Return the models by their probes, where there are several: means, and every seed."""
    names = list(dict.fromkeys(probe for _, probe in grouped))
    if len(names) < 2:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [f"<tr><th>{escape(table.measure)}</th>{head}</tr>"]
    for model in dict.fromkeys(model for model, _ in grouped):
        cells = "".join(f"<td>{_seeds(table, grouped.get((model, p), []))}</td>" for p in names)
        lines.append(f"<tr><td>{escape(model)}</td>{cells}</tr>")
    return (
        "<details><summary>Probes side by side</summary>"
        f'<div class="scroll"><table class="plain">{"".join(lines)}</table></div></details>'
    )


def _seeds(table: TaskTable, each: Sequence[TaskResult]) -> str:
    values = [cell.values[table.measure].value for cell in each]
    if len(values) < 2:
        return number(table.measure, values[0]) if values else ""
    texts = " ".join(number(table.measure, value) for value in values)
    return f"{number(table.measure, float(np.mean(values)))} <small>({texts})</small>"


def measures(table: TaskTable, grouped: Grouped) -> str:
    """Return every measure of every model and probe: the mean over seeds, and each seed."""
    names = list(dict.fromkeys(name for cell in table.results for name in cell.measures))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [f"<tr><th>model, probe</th>{head}<th>chosen on valid users</th></tr>"]
    for (model, probe), each in grouped.items():
        told = "".join(f"<td>{_all(name, each)}</td>" for name in names)
        chosen = escape(", ".join(_chosen(cell.chosen) for cell in each[:1]))
        lines.append(
            f"<tr><td>{escape(model)}, {escape(probe)}</td>{told}"
            f'<td class="wrap"><small>{chosen}</small></td></tr>'
        )
    return (
        "<details><summary>Every measure, every seed</summary>"
        f'<div class="scroll"><table class="plain">{"".join(lines)}</table></div></details>'
    )


def _all(name: str, each: Sequence[TaskResult]) -> str:
    found = [cell.values[name] for cell in each if name in cell.values]
    texts = [
        f"{number(name, one.value)} [{number(name, one.low)} {number(name, one.high)}]"
        for one in found
    ]
    return "<br>".join(texts)


def _chosen(chosen: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in chosen.items())
