"""The table and the figure of a comparison: levels of a factor, and their paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.metrics.format import zero_width


def table(tree: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: the levels, then the differences."""
    by, factor = tree["by"], tree["factor"]
    measures = list(next(iter(tree["groups"][0]["levels"].values()))["values"])
    heads = [*by, factor, "seeds", "steps", "learning rate", *measures]
    rows = [
        [
            *group["at"].values(),
            value,
            len(level["seed"]),
            _span(level["steps"]),
            _span(level["lr"]),
            *(shown(level["values"][name]) for name in measures),
        ]
        for group in tree["groups"]
        for value, level in group["levels"].items()
    ]
    differences = [
        [
            *group["at"].values(),
            f"{one['of']} - {one['minus']}",
            *(shown(one["values"][name], sign="+") for name in measures),
        ]
        for group in tree["groups"]
        for one in group["differences"]
    ]
    lines = [*_rows(heads, rows), "", *_rows([*by, "difference, 95 %", *measures], differences)]
    return "\n".join(lines)


def _rows(heads: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


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
    values = list(dict.fromkeys(value for group in groups for value in group["levels"]))
    measures = list(next(iter(groups[0]["levels"].values()))["values"])
    figure = Figure(
        figsize=(5 * len(measures), 1.6 + 0.3 * len(groups) * len(values)), layout="constrained"
    )
    axes = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    names = [", ".join(map(str, group["at"].values())) for group in groups]
    for axis, name in zip(axes, measures, strict=True):
        for number, value in enumerate(values):
            rows = [row for row, group in enumerate(groups) if value in group["levels"]]
            bands = [groups[row]["levels"][value]["values"][name] for row in rows]
            ends = [
                [
                    abs((band[end] if band[end] is not None else band["value"]) - band["value"])
                    for band in bands
                ]
                for end in ("low", "high")
            ]
            height = np.array(rows) + 0.6 * (number + 0.5) / len(values) - 0.3
            centre = [band["value"] for band in bands]
            axis.errorbar(centre, height, xerr=ends, fmt="osD^vP*X"[number % 8], label=value, ms=4)
            for x, y, band in zip(centre, height, bands, strict=True):
                if band["low"] is not None and (flag := zero_width(*band.values())):
                    axis.annotate(flag, (x, y), xytext=(4, 2), textcoords="offset points")
        axis.set(xlabel=name, yticks=range(len(names)), yticklabels=names)
    axes[0].invert_yaxis()
    axes[0].legend(title=tree["factor"], frameon=False)
    return figure
