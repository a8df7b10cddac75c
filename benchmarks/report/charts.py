"""Every figure of the benchmarks by matplotlib: lines with intervals, and maps.

Each returns a `Figure`; `save` writes it and `inline` is markup for a page. Both give the same
bytes for the same figure. Nothing is said by colour alone: lines differ in marks and dashes,
groups in shape. Names are texts: no name is read as mathematics or as markup.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from benchmarks.metrics.bootstrap import Interval

# Okabe and Ito's, darkened to a contrast of 4.5 on white; a page's style has others for the dark.
COLOURS = (
    *("#0072b2", "#c04a00", "#00805e", "#a04a84"),
    *("#8a6d00", "#3b82c4", "#444b54", "#a83232"),
)
INK, SOFT, RULE, CARD = "#1d2126", "#5d6670", "#dcdad3", "#fefefe"
MARKS, DASHES = ("o", "s", "^", "D", "P", "v", "o", "s"), ("-", "--", ":", "-.")
HOLLOW = 6  # groups from here on are hollow
MARKED = 20  # points of a line up to which each has a mark
Role = Literal["line", "control", "background", "points"]
GLYPHS = "●■▲◆✚▼○□"  # the same shapes as text, for legends in HTML
NAME = 24  # characters of a name in a figure; what is longer ends in "…"
PANEL = (3.1, 3.0)  # inches of one of several panels
ALONE = (3.6, 2.5)  # inches of a single one: its text stays readable on a phone
STYLE: dict[str, Any] = {
    "font.size": 9,
    "figure.dpi": 72,  # places on the screen are in points
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "svg.hashsalt": "clue",
    "axes.grid": True,
    "grid.color": RULE,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), SOFT),
}


@dataclass(frozen=True, eq=False)  # known by itself: arrays have no single equality
class Line:
    """A named line through (x, y), with the ends of its intervals where `low` and `high` are.

    `x` are numbers, or names that stand at equal distances. A "control" is grey and dotted, the
    "background" is thin and unnamed, "points" are not joined.
    """

    name: str
    x: Sequence[float] | Sequence[str] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None
    role: Role = "line"

    @classmethod
    def of(cls, name: str, points: Mapping[Any, Interval], role: Role = "line") -> "Line":
        """Return the line through intervals by their x, in the order of the mapping."""
        each = list(points.values())
        ends = ([one.low for one in each], [one.high for one in each])
        return cls(name, [*points], [one.value for one in each], *ends, role)


@dataclass(frozen=True)
class Panel:
    """Lines on common axes; `log` is the base of x, `level` a named horizontal line."""

    lines: Sequence[Line]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    log: float | None = None
    level: tuple[str, float] | None = None


def line_panels(
    panels: Sequence[Panel], *, columns: int = 3, share_y: bool | Literal["row"] = False
) -> Figure:
    """Return the panels side by side, `columns` a row, with one legend below. ValueError for none.

    A line keeps its colour, mark and dashes over all panels, by its name. Where lines share the
    places of x, their intervals stand beside one another.
    """
    if not panels:
        raise ValueError("no panel to draw")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with _style():
        size = ALONE if len(panels) == 1 else (columns * PANEL[0], rows * PANEL[1])
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel()
        drawn = [line for panel in panels for line in panel.lines]
        names = dict.fromkeys(line.name for line in drawn if line.role in ("line", "points"))
        numbers = {name: number for number, name in enumerate(names)}
        legend: dict[str, Any] = {}
        for axis, panel in zip(axes, panels, strict=False):
            _panel(axis, panel, numbers, legend)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        if len(legend) > 1:
            figure.legend(
                list(legend.values()),
                list(legend),
                loc="outside lower center",
                ncols=min(2 if len(panels) == 1 else 2 * columns, len(legend)),
            )
    return figure


def scatter(points: np.ndarray, groups: Sequence[int], names: Sequence[str]) -> Figure:
    """Return a map of `points` (n, 2), each with the shape and colour of its group.

    `groups` (n,) index `names`; a group's name stands at the median of its points.
    """
    number = np.asarray(groups)
    present = sorted(set(number.tolist()))
    with _style():
        figure = Figure(figsize=(4.8, 4.8), layout="constrained")
        axis = figure.subplots()
        axis.set_axis_off()
        for group in present:
            colour, hollow = COLOURS[group % len(COLOURS)], group % len(COLOURS) >= HOLLOW
            face, edge = ("none", colour) if hollow else (colour, "none")
            style: Any = {"marker": MARKS[group % len(MARKS)], "s": 14, "alpha": 0.8}
            axis.scatter(*points[number == group].T, facecolors=face, edgecolors=edge, **style)
        figure.draw_without_rendering()
        middles = [np.median(points[number == group], axis=0) for group in present]
        places = spread(axis.transData.transform(middles), gap=(70, 17))
        places = axis.transData.inverted().transform(places).tolist()
        for group, (x, y) in zip(present, places, strict=True):
            box = {"boxstyle": "round,pad=0.2", "facecolor": CARD, "edgecolor": "none"}
            text: Any = {"ha": "center", "va": "center", "weight": "bold", "fontsize": 10}
            axis.text(x, y, plain(names[int(group)]), bbox={**box, "alpha": 0.85}, **text)
    return figure


def spread(places: np.ndarray, *, gap: tuple[float, float]) -> np.ndarray:
    """Return places (n, 2) moved upwards until none is within `gap` (across, up) of another."""
    moved = np.array(places, float)
    order = np.argsort(moved[:, 1], kind="stable")
    for number, at in enumerate(order.tolist()):
        while (np.abs(moved[order[:number]] - moved[at]) < np.array(gap) - 1e-9).all(1).any():
            moved[at, 1] += 1.0
    return moved


def save(figure: Figure, *files: Path) -> None:
    """Write the figure to each file, SVG or PNG by its suffix, the same bytes whenever drawn."""
    without: dict[str, Any] = {
        ".svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
        ".png": {"Software": None},
    }
    for file in files:
        if file.suffix not in without:
            raise ValueError(f"{file}: a figure is .svg or .png, not {file.suffix!r}")
        file.parent.mkdir(parents=True, exist_ok=True)
        with _style():
            figure.savefig(file, dpi=200, metadata=without[file.suffix])


def inline(figure: Figure, label: str) -> Markup:
    """Return the figure as SVG for the inside of a page, its texts as text; `label` names it.

    It has no id that another figure of the page has, no style of its own and no address.
    """
    file = io.StringIO()
    with _style(**{"svg.fonttype": "none", "svg.hashsalt": label}):
        metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=metadata, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # matplotlib writes one
    inside = text[text.index(">") + 1 :]
    inside = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inside, count=1, flags=re.DOTALL)
    inside = re.sub(r'<g id="[^"]*"', "<g", inside)
    inside = re.sub(r">\s+<", "><", inside)
    return Markup(f'<svg {box[0]} role="img" aria-label="{escape(label)}">{inside.strip()}')


def tick_values(low: float, high: float, count: int = 3) -> list[float]:
    """Return about `count` round numbers inside low..high, ascending."""
    return [float(x) for x in MaxNLocator(count).tick_values(low, high) if low <= x <= high]


def plain(name: str, most: int = NAME) -> str:
    """Return a name as a figure prints it: cut to `most` characters, no dollar a formula."""
    cut = name if len(name) <= most else name[: most - 1] + "…"
    return cut.replace("$", r"\$")


@contextmanager
def _style(**more: Any) -> Generator[None]:
    """Set the style of all figures, and silence about characters that the font lacks."""
    style: Any = {**STYLE, **more}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _panel(axis: Axes, panel: Panel, numbers: Mapping[str, int], legend: dict[str, Any]) -> None:
    """Draw a panel and add the marks of its lines to `legend` by name."""
    shown = [line for line in panel.lines if line.role != "background"]
    names = next(
        (line.x for line in panel.lines if len(line.x) and isinstance(line.x[0], str)), None
    )
    for line in panel.lines:
        x = np.arange(len(line.x)) if names else np.array(line.x, float)
        if line.role == "background":
            axis.plot(x, line.y, color=SOFT, lw=0.8, alpha=0.55)
            continue
        aside = shown.index(line) - (len(shown) - 1) / 2
        if line.low is not None and len(shown) > 1 and len(x) <= MARKED:
            x = x + 0.06 * aside if names else x * 1.03**aside if panel.log else x
        legend[plain(line.name)] = _line(axis, x, line, numbers.get(line.name, 0))
    if panel.level is not None:
        name, height = panel.level
        legend[plain(name)] = axis.axhline(height, color=SOFT, lw=1.2, ls=(0, (2, 3)))
    x_label, y_label = [textwrap.fill(plain(t, 90), 38) for t in (panel.x_label, panel.y_label)]
    title = "\n".join(plain(line, 40) for line in panel.title.splitlines())
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    if names is not None:
        axis.set_xticks(range(len(names)), [plain(str(name)) for name in names])
    elif panel.log is not None:
        axis.set_xscale("log", base=panel.log)
        values = sorted({float(x) for line in panel.lines for x in line.x})
        if len(values) <= MARKED:
            axis.xaxis.set_major_locator(FixedLocator(values))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
            axis.xaxis.set_minor_locator(NullLocator())
    else:
        _few_ticks(axis)


def _line(axis: Axes, x: np.ndarray, line: Line, number: int) -> Any:
    """Draw a line with its intervals, many as a band without marks. Return what a legend shows."""
    control, dense = line.role == "control", line.role != "points" and len(x) > MARKED
    colour = SOFT if control else COLOURS[number % len(COLOURS)]
    errors = None
    if line.low is not None and line.high is not None:
        y, low, high = (np.array(values, float) for values in (line.y, line.low, line.high))
        if dense:
            axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        else:
            errors = np.nan_to_num(np.stack([y - low, high - y]))
    return axis.errorbar(
        x,
        line.y,
        yerr=errors,
        color=colour,
        marker="x" if control else MARKS[number % len(MARKS)],
        markevery=[-1] if dense else None,
        linestyle={"points": "", "control": ":"}.get(line.role, DASHES[number % len(DASHES)]),
        lw=1.6,
        markersize=5,
        capsize=2,
    )


def _few_ticks(axis: Axes) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(5))
