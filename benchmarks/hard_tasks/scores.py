"""What a model scores in a task, its intervals, and the cell that keeps them on the disk."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.metrics.bootstrap import (
    Interval,
    Statistic,
    bootstrap,
    centred,
    coverage_of,
    summary,
)

FORMAT = 1
Key: TypeAlias = tuple[str, str]  # condition (a group, a length, a rate, a step) and measure


@dataclass(frozen=True)
class Scores:
    """One model in one task: `columns` of values over the same Q questions of `users` (Q,).

    A column (Q,) holds numbers, NaN where the condition does not ask that question, and counts as
    its mean; one of integers (Q, k) holds lists, and counts as the share of the `items` in them.
    `ratios` are one column's mean over another's.
    """

    users: np.ndarray
    columns: dict[Key, np.ndarray]
    items: int
    ratios: dict[Key, tuple[Key, Key]] = field(default_factory=dict[Key, tuple[Key, Key]])

    def statistics(self) -> dict[Key, Statistic]:
        """Return all measures as functions of the questions' weights."""
        found: dict[Key, Statistic] = {}
        for key, column in self.columns.items():
            lists = column.ndim == 2
            found[key] = coverage_of(column, self.items) if lists else known_mean(column)
        for key, (above, below) in self.ratios.items():
            found[key] = _ratio(found[above], found[below])
        return found


def known_mean(values: np.ndarray) -> Statistic:
    """Return the statistic "weighted mean of those values (Q,) that are not NaN"."""
    known = np.isfinite(values).astype(np.float64)
    filled = np.where(known > 0, values, 0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return _divided(weights @ filled, weights @ known)

    return statistic


def _ratio(above: Statistic, below: Statistic) -> Statistic:
    return lambda weights: _divided(above(weights), below(weights))


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


@dataclass(frozen=True)
class Cell:
    """A model's measures in a task: of each key the value (M,) and the resamples (M, R).

    `users` (Q,) were asked; cells of equal users, resamples and seed can be subtracted.
    """

    keys: list[Key]
    users: np.ndarray
    values: np.ndarray
    drawn: np.ndarray

    def measures(self) -> dict[Key, Interval]:
        """Return the intervals of 95 %."""
        return dict(zip(self.keys, summary(self.values, self.drawn), strict=True))

    def minus(self, other: "Cell") -> dict[Key, Interval]:
        """Return the paired differences to another cell; ValueError where others were asked."""
        if self.keys != other.keys or not np.array_equal(self.users, other.users):
            raise ValueError(
                "the two models answered different questions; delete their cells and run again"
            )
        gaps = summary(self.values - other.values, self.drawn - other.drawn)
        return dict(zip(self.keys, gaps, strict=True))


def measure(scores: Scores, *, resamples: int, seed: int) -> Cell:
    """Return the cell of a model's scores, by a bootstrap over users."""
    statistics = scores.statistics()
    keys = list(statistics)
    values, drawn = bootstrap(
        list(statistics.values()), scores.users, resamples=resamples, seed=seed
    )
    for at, key in enumerate(keys):
        if key in scores.columns and scores.columns[key].ndim == 2:
            drawn[at] = centred(values[at], drawn[at])
    return Cell(keys, scores.users, values, drawn)


def write_cell(cell: Cell, file: Path, of: Mapping[str, Any]) -> None:
    """Writes the cell: FILE (JSON) is what it is `of` and its intervals, beside it the resamples.

    FILE comes last and by a rename: where it is, the cell is whole.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".npz").open("wb") as stream:
        arrays = {"users": cell.users, "values": cell.values, "drawn": cell.drawn}
        np.savez(stream, allow_pickle=False, **arrays)
    lines = [
        {"condition": condition, "measure": name, **asdict(found)}
        for (condition, name), found in cell.measures().items()
    ]
    tree = {"format": FORMAT, "of": of, "measures": lines}
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


def read_cell(file: Path, of: Mapping[str, Any]) -> Cell | None:
    """Return the finished cell at `file`, or None where there is none of just this."""
    if not (file.is_file() and file.with_suffix(".npz").is_file()):
        return None
    tree = json.loads(file.read_text(encoding="utf-8"))
    if tree["format"] != FORMAT or tree["of"] != json.loads(json.dumps(of)):
        return None
    arrays = np.load(file.with_suffix(".npz"))
    keys = [(line["condition"], line["measure"]) for line in tree["measures"]]
    return Cell(keys, arrays["users"], arrays["values"], arrays["drawn"])
