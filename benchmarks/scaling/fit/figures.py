"""The figures of a study: the compute law, the optimum, the surface, residuals; others beside.

Lines are told apart by dashes and marks, sizes by a scale whose lightness says what its colour
says; each is written as SVG, for print and for a page, and as PNG.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from benchmarks.metrics.format import zero_width
from benchmarks.scaling.fit import diagnostic_figures as checks
from benchmarks.scaling.fit.isoflop import SIZES, Cost, optimum
from benchmarks.scaling.fit.law_intervals import Band, Bootstrap
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.run_table import DAY, Runs, read_parquet
from benchmarks.scaling.fit.selection import budgets, main_grid
from benchmarks.scaling.fit.study import FitConfig, Laws

LAW, OTHER, BAND = "#0072b2", "#d55e00", "#888888"  # Okabe and Ito's blue and vermilion, and grey
MARKS = "osD^vP*X<>"
SCALE = "cividis"


def draw(config: FitConfig, runs: Runs, laws: Laws, tree: Mapping[str, Any]) -> dict[str, str]:
    """Writes OUT/figures/NAME.svg and .png of all that the table allows; gives why others are not.

    `runs` are those of all roles, `tree` is the study's JSON.
    """
    wanted: dict[str, Callable[[], Figure]] = {
        "learning_curves": lambda: learning_curves(config, laws),
        "compute": lambda: compute(runs, laws),
        "isoflop": lambda: isoflop(laws, tree, config.size),
        "surface": lambda: surface(laws),
        "factors": lambda: checks.factors(laws),
        "negatives": lambda: checks.negatives(laws),
        "ladder": lambda: checks.extrapolation(tree),
        "scores": lambda: checks.scores(config.scores),
        "residuals": lambda: checks.residuals(laws),
    }
    folder = config.out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    refused: dict[str, str] = {}
    with mpl.rc_context(
        {"svg.hashsalt": "clue", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    ):
        for name, make in wanted.items():
            try:
                save(make(), folder / name)
            except (ValueError, FileNotFoundError) as error:
                refused[name] = str(error)
    return refused


def save(figure: Figure, stem: Path) -> None:
    """Writes a figure as SVG and PNG, the same bytes for the same figure."""
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=200, metadata={"Software": None})


def law_of(laws: Laws, name: str) -> Bootstrap:
    """Return a law; ValueError with why it is not there."""
    if name not in laws.found:
        raise ValueError(f"no law {name}: {laws.refused[name]}")
    return laws.found[name]


def days(axis: Axes) -> None:
    """Puts PF-days above an axis of FLOPs."""
    ways = lambda x: np.asarray(x) / DAY, lambda x: np.asarray(x) * DAY
    above = axis.secondary_xaxis("top", functions=ways)
    above.set_xlabel("PF-days")


def bands(axis: Axes, x: np.ndarray, found: list[Band], *, minus: float = 0.0, label: str) -> None:
    """Draws a curve with its intervals of 80 and 95 %."""
    for low, high, alpha in (("low95", "high95", 0.18), ("low80", "high80", 0.30)):
        edges = [np.array([getattr(b, end) for b in found]) - minus for end in (low, high)]
        axis.fill_between(x, np.maximum(edges[0], 1e-9), edges[1], color=BAND, alpha=alpha, lw=0)
    flags = [zero_width(b.value, b.low95, b.high95) for b in found]
    label += flags[0] if all(flags) else ""
    axis.plot(x, np.array([b.value for b in found]) - minus, color=LAW, label=label)


def losses(axis: Axes, shown: np.ndarray) -> None:
    """Makes the axis of losses (n,) logarithmic, with plain numbers, and as high as these need.

    A band may be many times as high as the runs, and would leave them a corner.
    """
    known = np.log(shown[shown > 0])
    room = max(0.02, 0.15 * np.ptp(known))
    checks.plain_numbers(axis, *np.exp([known.min() - room, known.max() + room]))


def named_loss(runs: Runs) -> str:
    """Return the loss with its K: exponents of different K do not compare."""
    return f"held-out CE_{runs['negatives'][0]} (nats)"


def learning_curves(config: FitConfig, laws: Laws) -> Figure:
    """Loss over compute along every training, coloured by size, with the law below them.

    Without `curves` the ends of equal size and seed are joined instead.
    """
    runs = main_grid(laws.runs)
    norm = LogNorm(runs["params"].min(), runs["params"].max())
    colours = mpl.colormaps[SCALE]
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axis = figure.subplots()
    lines: list[tuple[float, np.ndarray, np.ndarray]] = []
    if config.curves:
        table = read_parquet(config.curves, ("point", "flops", "loss")).to_pandas()
        sizes = dict(zip(runs["point"], runs["params"], strict=True))
        for point, mine in table.groupby("point"):
            if point in sizes:
                mine = mine.sort_values("flops")
                lines.append((sizes[point], mine["flops"].to_numpy(), mine["loss"].to_numpy()))
    else:
        for size, seed in sorted({*zip(runs["params"], runs["seed"], strict=True)}):
            mine = runs.take((runs["params"] == size) & (runs["seed"] == seed))
            order = np.argsort(mine["flops"])
            lines.append((size, mine["flops"][order], mine["loss"][order]))
    for size, x, y in lines:
        axis.plot(x, y, color=colours(norm(size)), lw=1, alpha=0.8)
        axis.plot(x[-1:], y[-1:], "o", color=colours(norm(size)), ms=3)
    if "compute" in laws.found:
        over = _range(laws.rows["compute"]["flops"])
        bands(axis, over, laws.found["compute"].curve(over[:, None]), label="L(C)")
        axis.legend(frameon=False)
    axis.set(xscale="log", xlabel="training FLOPs", ylabel=named_loss(runs))
    losses(axis, np.concatenate([runs["loss"], *(y for _, _, y in lines)]))
    days(axis)
    figure.colorbar(ScalarMappable(norm, SCALE), ax=axis, label="parameters")
    return figure


def _range(x: np.ndarray, beyond: float = 1.0) -> np.ndarray:
    return np.geomspace(x.min(), x.max() * beyond, 80)


def compute(runs: Runs, laws: Laws) -> Figure:
    """L(C), and L - E, a straight line if the floor E is right, unless that lies on its bound.

    Held-out runs are hollow, with the interval that the law has for them.
    """
    found, rows = law_of(laws, "compute"), laws.rows["compute"]
    held = runs.take(runs["role"] == "held_out")
    most = max(rows["flops"].max(), held["flops"].max() if len(held) else 0)
    over = np.geomspace(rows["flops"].min(), most * 1.5, 80)
    floors = [0.0, *([] if "E" in found.fit.on_bounds else [float(found.fit.theta[0])])]
    figure = Figure(figsize=(1 + 3.5 * len(floors), 4), layout="constrained")
    axes = figure.subplots(1, len(floors), squeeze=False)[0]
    for axis, minus in zip(axes, floors, strict=True):
        bands(axis, over, found.curve(over[:, None]), minus=minus, label="law, 80 and 95 %")
        pure = laws.found["compute, E = 0"].fit.loss(over[:, None]) - minus
        axis.plot(over, np.where(pure > 0, pure, np.nan), "--", color=OTHER, label="E = 0")
        axis.plot(rows["flops"], rows["loss"] - minus, "o", color="black", ms=4, label="fitted")
        shown = [*(rows["loss"] - minus)]
        if len(held):
            told = found.predict(held["flops"][:, None].astype(np.float64))
            edges = [[b.value - b.low95 for b in told], [b.high95 - b.value for b in told]]
            middle = [b.value - minus for b in told]
            axis.errorbar(
                held["flops"], middle, yerr=edges, fmt="_", color=LAW, capsize=4, label="predicted"
            )
            axis.plot(
                held["flops"], held["loss"] - minus, "o", mfc="white", mec="black", label="held out"
            )
            shown += [*(held["loss"] - minus), *(b.low95 - minus for b in told)]
            shown += [b.high95 - minus for b in told]
        name = named_loss(rows)
        axis.set(xscale="log", xlabel="training FLOPs")
        losses(axis, np.array(shown))
        axis.set_ylabel(f"{name} - {minus:.3g}" if minus else name)
        days(axis)
    figure.axes[0].legend(frameon=False)
    return figure


def isoflop(laws: Laws, tree: Mapping[str, Any], size: str) -> Figure:
    """Losses over size at equal compute with their parabolas; best size and data over compute."""
    rows = main_grid(laws.runs)
    number = budgets(rows["flops"])
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    norm = LogNorm(rows["flops"].min(), rows["flops"].max())
    colours = mpl.colormaps[SCALE]
    for budget in range(number.max() + 1):
        mine = rows.take(number == budget)
        if len(np.unique(mine[size])) < SIZES:
            continue
        colour, mark = colours(norm(mine["flops"].mean())), MARKS[budget % len(MARKS)]
        left.plot(mine[size], mine["loss"], mark, color=colour, ms=4)
    found = tree["isoflop"]["parabolas"]
    if not found:
        raise ValueError(f"no budget has {SIZES} sizes: no curve of equal compute")
    for one in found:
        x = np.geomspace(min(one["sizes"]), max(one["sizes"]), 50)
        left.plot(x, np.polyval(one["polynomial"], np.log(x)), color=colours(norm(one["flops"])))
        if one["kept"]:
            left.plot(one["size"], one["loss"], "k+", ms=9)
    left.set(xscale="log", xlabel="parameters", ylabel=named_loss(rows))
    figure.colorbar(ScalarMappable(norm, SCALE), ax=left, label="training FLOPs")
    if "optimum" not in tree:
        raise ValueError("no law of size and data: no optimum to draw")
    best = tree["optimum"]
    x = np.array(best["flops"])
    for axis, name, label in ((middle, "size", "best parameters"), (right, "data", "best pairs")):
        bands(axis, x, [Band(**b) for b in best[name]], label="from L(N, D)")
        kept = [one for one in found if one["kept"]]
        if name == "size" and kept:
            places = [one["flops"] for one in kept], [one["size"] for one in kept]
            axis.plot(*places, "k+", ms=9, label="minimum of a parabola")
        axis.axvline(rows["flops"].max(), color=BAND, ls=":")
        axis.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel=label)
        axis.legend(frameon=False)
        days(axis)
    return figure


def surface(laws: Laws) -> Figure:
    """Contours of L(N, D), the runs, and the frontier of the best size and data."""
    found, sample = law_of(laws, "surface"), laws.sample("surface")
    law = found.fit.law
    assert isinstance(law, PowerLaw)
    sizes, data = (_range(column, 3) for column in sample.x.T)
    grid = np.stack(np.meshgrid(sizes, data), -1).reshape(-1, 2)
    losses = found.fit.loss(grid).reshape(len(data), len(sizes))
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axis = figure.subplots()
    lines = axis.contour(data, sizes, losses.T, levels=12, cmap=SCALE)
    axis.clabel(lines, fontsize=7)
    points = axis.scatter(sample.x[:, 1], sample.x[:, 0], s=14, color="black", label="runs")
    points.set_zorder(3)
    cost = Cost.of(sample.flops, *sample.x.T)
    flops = _range(sample.flops, 10)
    best, most = optimum(law, found.fit.theta, cost, flops)
    axis.plot(most, best, "--", color=OTHER, lw=2, label="best for a compute")
    axis.set(xscale="log", yscale="log", xlabel=sample.factors[1], ylabel=sample.factors[0])
    axis.set(xlim=(data.min(), data.max()), ylim=(sizes.min(), sizes.max()))
    axis.legend(frameon=True)
    return figure
