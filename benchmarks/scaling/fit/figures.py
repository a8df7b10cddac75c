"""The figures of a study: laws over their runs, the optimum, and what may be wrong with them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FuncFormatter,
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from benchmarks.metrics.correlation import correlations
from benchmarks.metrics.format import zero_width
from benchmarks.report.charts import MARKED, Line, Panel, Role, line_panels, save
from benchmarks.scaling.fit.downstream_scores import read_scores
from benchmarks.scaling.fit.isoflop import SIZES, Cost, optimum
from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.run_table import DAY, Runs, read_parquet
from benchmarks.scaling.fit.selection import HELD, main_grid
from benchmarks.scaling.fit.study import FitConfig, Laws

LABELS = {
    "params": "parameters",
    "pairs": "pairs read",
    "users": "distinct users",
    "max_events": "events of a history",
    "batch": "batch (equal pairs)",
    "batch at equal steps": "batch (equal steps)",
}
FLOPS = "training FLOPs"


def draw(config: FitConfig, runs: Runs, laws: Laws, tree: Mapping[str, Any]) -> dict[str, str]:
    """Write OUT/figures/NAME.svg and .png of all that the table allows; return why others are not.

    `runs` are those of all roles, `tree` is the study's JSON.
    """
    figures: dict[str, Callable[[], Figure]] = {
        "learning_curves": partial(learning_curves, config, laws),
        "compute": partial(compute, runs, laws),
        "isoflop": partial(isoflop, laws, tree, config.size),
        "surface": partial(surface, laws),
        "factors": partial(factors, laws),
        "ladder": partial(extrapolation, tree),
        "scores": partial(scores, config.scores),
        "residuals": partial(residuals, laws),
    }
    refused: dict[str, str] = {}
    for name, make in figures.items():
        stem = config.out / "figures" / name
        try:
            save(make(), stem.with_suffix(".svg"), stem.with_suffix(".png"))
        except (ValueError, FileNotFoundError) as error:
            refused[name] = str(error)
    return refused


def logarithmic(panels: Sequence[Panel], size: tuple[float, float]) -> Figure:
    """Return the panels with y logarithmic and in plain numbers, and PF-days above the FLOPs.

    Axes are as high as the runs need: a band may be far higher, and would leave them a corner.
    """
    figure = line_panels(panels)
    figure.set_size_inches(*size)
    for axis, panel in zip([*figure.axes], panels, strict=False):
        lines = [line for line in panel.lines if line.role == "points" or len(line.x) <= MARKED]
        ends = [end for line in lines for end in (line.y, line.low, line.high) if end is not None]
        shown = np.concatenate(ends)
        known = np.log(shown[shown > 0])
        room = max(0.02, 0.15 * np.ptp(known))
        low, high = np.exp([known.min() - room, known.max() + room])
        axis.set(yscale="log", ylim=(low, high))
        wide = high > 10 * low
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axis.yaxis.set_minor_locator(NullLocator())
        if panel.x_label == FLOPS:
            ways = lambda x: np.asarray(x) / DAY, lambda x: np.asarray(x) * DAY
            above = axis.secondary_xaxis("top", functions=ways)
            above.set_xlabel("PF-days")
            left, right = axis.get_xlim()
            for x_axis in (axis.xaxis, above.xaxis) if right < 30 * left else ():
                # matplotlib's own labels of one decade lie over each other in so narrow a panel
                x_axis.set_major_locator(LogLocator(subs=(1, 3)))
                x_axis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False))
                x_axis.set_minor_formatter(NullFormatter())
    return figure


def banded(
    name: str, x: np.ndarray, bands: Sequence[Band], minus: float = 0.0, role: Role = "line"
) -> list[Line]:
    """Return a curve with its intervals of 95 and of 80 %, less a constant."""
    values = np.array([(b.value, b.low95, b.high95, b.low80, b.high80) for b in bands]).T - minus
    flat = [zero_width(b.value, b.low95, b.high95) for b in bands]
    name += flat[0] if all(flat) else ""
    return [
        Line(f"{name}, {level} %", x, values[0], np.maximum(values[at], 1e-9), values[at + 1], role)
        for level, at in ((95, 1), (80, 3))
    ]


def named_loss(runs: Runs) -> str:
    """Return the loss with its K: exponents of different K do not compare."""
    return f"held-out CE_{runs['negatives'][0]} (nats)"


def _range(x: np.ndarray, beyond: float = 1.0) -> np.ndarray:
    return np.geomspace(x.min(), x.max() * beyond, 80)


def learning_curves(config: FitConfig, laws: Laws) -> Figure:
    """Return the loss over compute along every training by its size, with the law below them.

    Without `curves` the ends of equal size and seed are joined instead.
    """
    runs = main_grid(laws.runs)
    if config.curves:
        table = read_parquet(config.curves, ("point", "flops", "loss")).to_pandas()
        sizes = dict(zip(runs["point"], runs["params"], strict=True))
        table = table.assign(params=table["point"].map(sizes))
    else:
        columns = {name: runs[name] for name in ("params", "flops", "loss")}
        table = pd.DataFrame({"point": runs["seed"], **columns})
    curves = [rows for _, rows in table.sort_values("flops").groupby(["params", "point"])]
    lines = [
        Line(f"{rows['params'].iloc[0]:,.0f} parameters", [*rows["flops"]], [*rows["loss"]])
        for rows in curves
    ]
    lines.append(Line("ends of runs", runs["flops"], runs["loss"], role="points"))
    if "compute" in laws.fits:
        x = _range(laws.rows["compute"]["flops"])
        lines += banded("L(C)", x, laws["compute"].curve(x[:, None]), role="control")
    return logarithmic([Panel(lines, "", FLOPS, named_loss(runs), 10)], (6, 5))


def compute(runs: Runs, laws: Laws) -> Figure:
    """Return L(C), and L - E, a straight line if the floor E is right, unless E is on its bound.

    Held-out runs stand beside the interval that the law has for them.
    """
    law, rows = laws["compute"], laws.rows["compute"]
    held = runs.take(runs["role"] == "held_out")
    x = _range(np.concatenate([rows["flops"], held["flops"]]), 1.5)
    pure = laws["compute, E = 0"].fit.loss(x[:, None])
    floors = [0.0, *([] if "E" in law.fit.on_bounds else [float(law.fit.theta[0])])]
    panels: list[Panel] = []
    for minus in floors:
        lines = banded("law", x, law.curve(x[:, None]), minus)
        lines.append(Line("E = 0", x, np.where(pure > minus, pure - minus, np.nan)))
        lines.append(Line("fitted", rows["flops"], rows["loss"] - minus, role="points"))
        if len(held):
            scales = laws.scales("compute", held[laws.size])
            bands = law.predict(held["flops"][:, None].astype(np.float64), scales)
            value, low, high = np.array([(b.value, b.low95, b.high95) for b in bands]).T - minus
            lines.append(Line("predicted", held["flops"], value, low, high, role="points"))
            lines.append(Line("held out", held["flops"], held["loss"] - minus, role="points"))
        y_label = named_loss(rows) + (f" - {minus:.3g}" if minus else "")
        panels.append(Panel(lines, "", FLOPS, y_label, 10))
    return logarithmic(panels, (1.5 + 3.5 * len(panels), 4.5))


def isoflop(laws: Laws, tree: Mapping[str, Any], size: str) -> Figure:
    """Return losses over size at equal compute with their parabolas; the optimum over compute."""
    rows = main_grid(laws.runs)
    curves = tree["isoflop"]["parabolas"]
    if not curves:
        raise ValueError(f"no budget has {SIZES} sizes: no curve of equal compute")
    if "optimum" not in tree:
        raise ValueError("no law of size and data: no optimum to draw")
    best, kept = tree["optimum"], [one for one in curves if one["kept"]]
    lines: list[Line] = []
    for one in curves:
        name, x = f"{one['flops']:.2g} FLOPs", np.geomspace(min(one["sizes"]), max(one["sizes"]))
        lines.append(Line(name, x, np.polyval(one["polynomial"], np.log(x))))
        lines.append(Line(name, one["sizes"], one["losses"], role="points"))
    flops, sizes, minima = ([one[key] for one in kept] for key in ("flops", "size", "loss"))
    lowest = "minimum of a parabola"
    lines.append(Line(lowest, sizes, minima, role="points"))
    panels = [Panel(lines, "", "parameters", named_loss(rows), 10)]
    for key, label in (("size", "best parameters"), ("data", "best pairs")):
        bands = [Band(**b) for b in best[key]]
        lines = banded("L(N, D)", np.array(best["flops"]), bands)
        lines += [Line(lowest, flops, sizes, role="points")] if key == "size" else []
        ends = [min(b.value for b in bands), max(b.value for b in bands)]
        lines.append(Line("largest run", [rows["flops"].max()] * 2, ends, role="control"))
        panels.append(Panel(lines, "", FLOPS, label, 10))
    return logarithmic(panels, (9.5, 4))


def surface(laws: Laws) -> Figure:
    """Return the contours of L(N, D), the runs, and the frontier of the best size and data."""
    fit, sample = laws["surface"].fit, laws.sample("surface")
    assert isinstance(fit.law, PowerLaw)
    sizes, data = (_range(column, 3) for column in sample.x.T)
    grid = np.stack(np.meshgrid(sizes, data), -1).reshape(-1, 2)
    flops = _range(sample.flops, 10)
    best = optimum(fit.law, fit.theta, Cost.of(sample.flops, *sample.x.T), flops)
    runs = Line("runs", sample.x[:, 1], sample.x[:, 0], role="points")
    lines = [Line("best for a compute", best[1], best[0]), runs]
    figure = line_panels([Panel(lines, "", sample.factors[1], sample.factors[0], 10)])
    figure.set_size_inches(5.2, 4.4)
    axis = figure.axes[0]
    heights = axis.contour(data, sizes, fit.loss(grid).reshape(80, 80).T, 12, cmap="cividis")
    axis.clabel(heights, fontsize=7)
    axis.set(yscale="log", xlim=(data.min(), data.max()), ylim=(sizes.min(), sizes.max()))
    return figure


def factors(laws: Laws) -> Figure:
    """Return a panel for each factor that varies alone; ValueError where none does."""
    names = [name for name in (*HELD, "batch at equal steps") if name in laws.fits]
    if not names:
        raise ValueError("no factor varies alone in enough runs")
    panels: list[Panel] = []
    for name in names:
        drawn, sample = laws[name], laws.sample(name)
        x = _range(sample.x)
        slope = drawn.coefficients()[f"a_{sample.factors[0]}"]
        flag = zero_width(slope.value, slope.low95, slope.high95)
        title = f"a = {slope.value:.2g} [{slope.low95:.2g} {slope.high95:.2g}]{flag}"
        runs = Line("runs", sample.x[:, 0], sample.losses, role="points")
        lines = [*banded("law", x, drawn.curve(x[:, None])), runs]
        panels.append(Panel(lines, title, LABELS[name], named_loss(laws.runs), 10))
    columns = min(3, len(panels))
    figure = logarithmic(panels, (3.1 * columns, 3.0 * -(-len(panels) // columns)))
    for axis in figure.axes:  # as on narrow axes of FLOPs, matplotlib's own labels overlap
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(NullFormatter())
    return figure


def extrapolation(tree: Mapping[str, Any]) -> Figure:
    """Return signed errors over how far beyond its cut a law was asked, and trivial predictors'."""
    shown = {"error": "law", "pure": "pure power law", "last": "largest run so far"}
    panels: list[Panel] = []
    for name, rungs in tree["ladder"].items():
        x = [rung["factor"] for rung in rungs]
        lines = [
            Line(label, x, [100 * rung[key] for rung in rungs], role="points")
            for key, label in shown.items()
        ]
        labels = "compute of the run / largest fitted", "predicted / observed - 1 (%)"
        panels += [Panel(lines, name, *labels, 10, ("no error", 0.0))] if rungs else []
    if not panels:
        raise ValueError("no cut leaves enough runs below and one above")
    figure = line_panels(panels)
    for axis in figure.axes:
        axis.set_yscale("symlog", linthresh=5)
    return figure


def scores(file: Path | None) -> Figure:
    """Return score over loss of checkpoints by task, with rank correlations and intervals.

    Positive means that lower loss goes with a higher score. ValueError without scores.
    """
    if file is None:
        raise ValueError("no scores given: scores=FILE of loss, task and score of checkpoints")
    tasks = {task: points for task, points in read_scores(file).items() if len(points.losses) > 2}
    if not tasks:
        raise ValueError(f"{file}: no task has 3 checkpoints or more")
    panels: list[Panel] = []
    for task, points in tasks.items():
        pairs = [(x, {task: y}) for x, y in zip(points.losses, points.scores, strict=True)]
        ranks = correlations(pairs, {task: False}, resamples=2000)[task]
        texts = [
            f"{name} {x.value:.2f} [{x.low:.2f} {x.high:.2f}]{zero_width(x.value, x.low, x.high)}"
            for name, x in zip(("tau", "rho"), ranks.values(), strict=True)
        ]
        lines = [Line("checkpoints", points.losses, points.scores, role="points")]
        x_label = "held-out loss (nats), lower to the right"
        panels.append(Panel(lines, "\n".join((task, *texts)), x_label, "score"))
    figure = line_panels(panels)
    for axis in figure.axes[: len(panels)]:
        axis.invert_xaxis()
    return figure


def residuals(laws: Laws) -> Figure:
    """Return log residuals of the surface, or of the compute law, over compute and each factor."""
    name = "surface" if "surface" in laws.fits else "compute"
    fit, sample = laws[name].fit, laws.sample(name)
    columns = {FLOPS: sample.flops, **dict(zip(sample.factors, sample.x.T, strict=True))}
    columns.pop("flops", None)
    panels: list[Panel] = []
    for label, x in columns.items():
        lines = [Line("runs", x, 100 * fit.residuals, role="points")]
        ends, sd = [x.min(), x.max()], 100 * fit.spread
        lines += [Line("one sd", ends, [y, y], role="control") for y in (sd, -sd)]
        panels.append(Panel(lines, "", label, "log(predicted / observed) (%)", 10, ("none", 0.0)))
    return line_panels(panels, share_y=True)
