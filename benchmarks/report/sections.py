"""A task's part of a page: its rows, who is beaten, slices, probes and measures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.metrics.format import number, p_value, signed
from benchmarks.report.rendering import Bar, Scale, kind_of
from benchmarks.suite.results import TaskResult
from benchmarks.suite.significance import PairedDifference, compare_to
from benchmarks.suite.summary import CONTROL, ORACLE, OURS, Row, TaskTable, widest

FEWEST = 20  # queries of a slice that is drawn


@dataclass(frozen=True)
class Panel:
    """One value of a slice: ours, the best baseline and untrained on its queries."""

    label: str
    queries: int
    bars: list[Bar]


@dataclass(frozen=True)
class Slice:
    """A kind of slice: panels on one scale, and the values with too few queries to draw."""

    kind: str
    panels: list[Panel]
    small: list[str]

    @property
    def scale(self) -> Scale:
        """The scale of all panels."""
        return Scale.of(bar for panel in self.panels for bar in panel.bars)


class Section:
    """What the template of a task prints; `deltas` are ours minus its other rows, corrected."""

    def __init__(self, table: TaskTable, differences: Sequence[PairedDifference]) -> None:
        """Arrange the results of `table`."""
        self.table = table
        self.about = about(table)
        oracles = [row for row in table.rows.values() if row.model.startswith(ORACLE)]
        self.bars = [row_bar(table, row) for row in [*oracles, *table.ranked]]
        self.scale = Scale.of(self.bars)
        self.deltas = [delta_bar(table.measure, one) for one in differences]
        self.delta_scale = Scale.of(self.deltas, zero=True)
        self.slices = slices(table)
        self.results: dict[tuple[str, str], list[TaskResult]] = {}
        for result in table.results:
            self.results.setdefault((result.model, result.probe), []).append(result)
        self.measures = list(dict.fromkeys(n for r in table.results for n in r.measures))
        self.probes = list(dict.fromkeys(probe for _, probe in self.results))

    @property
    def by_probe(self) -> dict[str, list[tuple[str, str]]]:
        """Each model's mean by each probe, and its seeds where there are several."""
        models = dict.fromkeys(model for model, _ in self.results)
        return {m: [self._seeds(self.results.get((m, p), [])) for p in self.probes] for m in models}

    def _seeds(self, results: Sequence[TaskResult]) -> tuple[str, str]:
        values = [result.values[self.table.measure].value for result in results]
        texts = [number(self.table.measure, value) for value in values]
        if len(values) < 2:
            return "".join(texts), ""
        return number(self.table.measure, float(np.mean(values))), " ".join(texts)


def all_differences(tasks: Sequence[TaskTable]) -> dict[str, list[PairedDifference]]:
    """Return by task ours minus every other row; each row is corrected over its own tasks."""
    by_task: dict[str, list[PairedDifference]] = {}
    for model in dict.fromkeys(row.model for table in tasks for row in table.ranked):
        if model != OURS:
            for one in compare_to(tasks, lambda table, model=model: table.rows.get(model)):
                by_task.setdefault(one.task, []).append(one)
    return {task: sorted(each, key=lambda one: one.gain) for task, each in by_task.items()}


def about(table: TaskTable) -> str:
    """Return the measure, how many were asked, our gain and our share of an oracle's."""
    first, ours = table.results[0], table.rows.get(OURS)
    better = ", lower is better" if table.lower_is_better else ""
    text = f"{table.measure}{better}; {first.users:,} users, {first.count:,} queries"
    if ours is None:
        return text
    gain, attained = table.gain(ours), table.attained(ours)
    if np.isfinite(gain):
        text += f". Normalised gain {gain:.2f}"
    if np.isfinite(attained):
        text += f", {attained:.0%} of what the truth attains"
    return text


def row_bar(table: TaskTable, row: Row) -> Bar:
    """Return a row with its interval and its seeds."""
    low, high = (number(table.measure, x) for x in (row.found.low, row.found.high))
    between = f"{low} to {high}" if low and high else ""
    value = number(table.measure, row.value)
    return Bar(row.model, row.found, value, between, kind_of(row.model), row.seeds)


def delta_bar(measure: str, one: PairedDifference) -> Bar:
    """Return ours minus another row on the same users, with the corrected p-value."""
    value = signed(measure, one.delta).split(" ", 1)[0]
    p = f", p {p_value(one.holm)}" if np.isfinite(one.holm) else ""
    effect = [f"{one.relative:+.0%}"] if np.isfinite(one.relative) else []
    effect += [f"{one.in_deviations:+.1f} sd"] if np.isfinite(one.in_deviations) else []
    return Bar(one.baseline, one.delta, value + p, ", ".join(effect), kind_of(one.baseline))


def slices(table: TaskTable) -> list[Slice]:
    """Return ours, the best baseline and untrained on each slice.

    A bar is the mean over seeds, as wide as that of the widest seed. Slices of fewer than FEWEST
    queries are only named: their intervals would set the scale.
    """
    wanted = [table.rows.get(OURS), table.best_baseline, table.rows.get(CONTROL)]
    rows = [row for row in wanted if row is not None]
    kinds = dict.fromkeys(name for row in rows for result in row.results for name in result.slices)
    return [_slice(table, rows, kind) for kind in kinds]


def _slice(table: TaskTable, rows: Sequence[Row], kind: str) -> Slice:
    counts: dict[str, int] = {}
    panels: list[Panel] = []
    for row in rows:
        for result in row.results:
            counts |= {label: n for label, (_, n) in result.slices.get(kind, {}).items()}
    for label in sorted(counts, key=_order):
        bars: list[Bar] = []
        for row in rows if counts[label] >= FEWEST else []:
            known = [
                r.slices[kind][label][0] for r in row.results if label in r.slices.get(kind, {})
            ]
            if known:
                mean = widest(known)
                text = number(table.measure, mean.value)
                bars.append(Bar(row.model, mean, text, "", kind_of(row.model)))
        if bars:
            panels.append(Panel(label, counts[label], bars))
    small = [f"{label} ({count})" for label, count in counts.items() if count < FEWEST]
    return Slice(kind, panels, sorted(small, key=_order))


def _order(label: str) -> tuple[int, str]:
    digits = label.rstrip("+").split("-", 1)[0]
    return (int(digits) if digits.isdigit() else 0, label)
