"""The figures of what may be wrong: factors, negatives, the ladder, task scores, residuals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from benchmarks.metrics.bootstrap import bootstrap, spearman_of, summary
from benchmarks.metrics.correlation import kendall_of
from benchmarks.metrics.format import zero_width
from benchmarks.scaling.fit.downstream_scores import read_scores
from benchmarks.scaling.fit.selection import HELD, Sample
from benchmarks.scaling.fit.sensitivity import fitted
from benchmarks.scaling.fit.study import Laws

LAW, OTHER, THIRD = "#0072b2", "#d55e00", "#009e73"
LABELS = {
    "params": "parameters",
    "pairs": "pairs read",
    "users": "distinct users",
    "max_events": "events of a history",
    "batch": "batch (equal pairs)",
    "batch at equal steps": "batch (equal steps)",
}


def plain_numbers(axis: Axes, low: float, high: float) -> None:
    """Makes y logarithmic from low to high, with numbers at round places: 4.5, not 10^0.65."""
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    wide = high > 10 * low
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def factors(laws: Laws) -> Figure:
    """One panel for each factor that varies alone; ValueError where none does."""
    names = [name for name in (*HELD, "batch at equal steps") if name in laws.found]
    if not names:
        raise ValueError("no factor varies alone in enough runs")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        found, sample = laws.found[name], laws.sample(name)
        x = np.geomspace(sample.x.min(), sample.x.max(), 60)
        told = found.curve(x[:, None])
        axis.fill_between(
            x, [b.low95 for b in told], [b.high95 for b in told], color="#888888", alpha=0.25, lw=0
        )
        axis.plot(x, [b.value for b in told], color=LAW)
        axis.plot(sample.x[:, 0], sample.losses, "ko", ms=4)
        slope = found.coefficients()[f"a_{sample.factors[0]}"]
        flag = zero_width(slope.value, slope.low95, slope.high95)
        title = f"a = {slope.value:.2g} [{slope.low95:.2g} {slope.high95:.2g}]{flag}"
        axis.set_title(title, fontsize=9)
        axis.set(xscale="log", yscale="log", xlabel=LABELS[name])
        plain_numbers(axis, *axis.get_ylim())
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_locator(NullLocator())
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    axes[0].set_ylabel(f"held-out CE_{laws.runs['negatives'][0]} (nats)")
    return figure


def negatives(laws: Laws) -> Figure:
    """Exponent and floor of L(C) at each K for which the table has a loss; ValueError for one."""
    if "compute" not in laws.found:
        raise ValueError(f"no law compute: {laws.refused['compute']}")
    rows = laws.rows["compute"]
    if len(rows.negatives) < 2:
        raise ValueError(f"the table has the loss at one K, {rows.negatives[0]}")
    found = [fitted(Sample.of(rows.at(k), ("flops",))) for k in rows.negatives]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for axis, at, label in zip(
        figure.subplots(1, 2), (2, 0), ("exponent", "E (nats)"), strict=True
    ):
        axis.plot(rows.negatives, [one.theta[at] for one in found], "o-", color=LAW)
        axis.set(xscale="log", xlabel="negatives K", ylabel=f"{label} of L(C)")
    return figure


def extrapolation(tree: Mapping[str, Any]) -> Figure:
    """Signed error over how far beyond its cut a law was asked, beside the trivial predictors."""
    ladders = {name: rungs for name, rungs in tree["ladder"].items() if rungs}
    if not ladders:
        raise ValueError("no cut leaves enough runs below and one above")
    figure = Figure(figsize=(4.4 * len(ladders), 3.6), layout="constrained")
    axes = figure.subplots(1, len(ladders), squeeze=False)[0]
    shown = (
        ("error", "law", "o", LAW),
        ("pure", "pure power law", "^", OTHER),
        ("last", "largest run so far", "x", THIRD),
    )
    for axis, (name, rungs) in zip(axes, ladders.items(), strict=True):
        x = [rung["factor"] for rung in rungs]
        for key, label, mark, colour in shown[::-1]:
            y = [100 * rung[key] for rung in rungs]
            axis.plot(x, y, mark, color=colour, ms=4, label=label, alpha=0.8)
        axis.axhline(0, color="black", lw=0.8)
        axis.set_title(name)
        axis.set(xscale="log", xlabel="compute of the run / largest fitted")
        axis.set_yscale("symlog", linthresh=5)
    axes[0].set_ylabel("predicted / observed - 1 (%)")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def scores(file: Path | None) -> Figure:
    """Score over loss of checkpoints, a panel for each task, with rank correlations and intervals.

    Positive means that lower loss goes with a higher score. ValueError without scores.
    """
    if file is None:
        raise ValueError("no scores given: scores=FILE of loss, task and score of checkpoints")
    tasks = {task: points for task, points in read_scores(file).items() if len(points.losses) > 2}
    if not tasks:
        raise ValueError(f"{file}: no task has 3 checkpoints or more")
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (task, points) in zip(axes, tasks.items(), strict=False):
        both = [make(-points.losses, points.scores) for make in (kendall_of, spearman_of)]
        found = summary(*bootstrap(both, np.arange(len(points.losses)), resamples=2000, seed=0))
        axis.plot(points.losses, points.scores, "o", color=LAW, ms=4)
        told = [
            f"{name} {x.value:.2f} [{x.low:.2f} {x.high:.2f}]{zero_width(x.value, x.low, x.high)}"
            for name, x in zip(("tau", "rho"), found, strict=True)
        ]
        axis.set_title("\n".join((task, *told)), fontsize=8)
        axis.invert_xaxis()
        axis.set_xlabel("held-out loss (nats), lower to the right")
    for axis in axes[len(tasks) :]:
        axis.set_axis_off()
    axes[0].set_ylabel("score")
    return figure


def residuals(laws: Laws) -> Figure:
    """Log residuals of the surface, or else of the compute law, over compute and each factor."""
    name = next((name for name in ("surface", "compute") if name in laws.found), None)
    if name is None:
        raise ValueError("neither a surface nor a compute law was fitted")
    found, sample = laws.found[name].fit, laws.sample(name)
    columns = {"training FLOPs": sample.flops}
    columns |= {f: x for f, x in zip(sample.factors, sample.x.T, strict=True) if f != "flops"}
    figure = Figure(figsize=(3.1 * len(columns), 3), layout="constrained")
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axis, (label, x) in zip(axes, columns.items(), strict=True):
        axis.axhspan(-100 * found.spread, 100 * found.spread, color="#888888", alpha=0.2, lw=0)
        axis.plot(x, 100 * found.residuals, "ko", ms=3)
        axis.axhline(0, color=LAW)
        axis.set(xscale="log", xlabel=label)
    axes[0].set_ylabel("log(predicted / observed) (%)")
    return figure
