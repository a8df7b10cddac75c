"""Figures as inline SVG: no script, no font, no request; colours come from the page's style.

Nothing is told by colour alone: lines differ in dashes and carry their name at the end, groups of
points differ in shape and carry their name in their middle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from benchmarks.metrics.bootstrap import Interval

WIDTH, HEIGHT = 440, 270
LEFT, TOP, BOTTOM = 46, 14, 36
NAME = 20  # characters of a name at the end of a line; what is longer ends in "…"
KINDS = 8  # colours and shapes that the style knows
SHAPES = (
    '<circle r="3.4"/>',
    '<path d="M-3.3-3.3H3.3V3.3H-3.3Z"/>',
    '<path d="M0-4.4L4.2 3.2H-4.2Z"/>',
    '<path d="M0-4.8L4.2 0L0 4.8L-4.2 0Z"/>',
    '<path d="M-4.2-1.2H-1.2V-4.2H1.2V-1.2H4.2V1.2H1.2V4.2H-1.2V1.2H-4.2Z"/>',
    '<path d="M0 4.4L4.2-3.2H-4.2Z"/>',
    '<circle r="2.6" class="hollow"/>',
    '<path d="M-3-3H3V3H-3Z" class="hollow"/>',
)


@dataclass(frozen=True)
class Line:
    """A named line through (x, y); a `thin` one stays in the background and unnamed."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    thin: bool = False


def line_chart(lines: Sequence[Line], *, x_label: str, level: tuple[str, float] | None) -> str:
    """Return a chart of `lines` over a common axis, with a named horizontal `level` (chance)."""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y] + ([level[1]] if level else [])
    x_axis, y_axis = ticks(min(xs), max(xs), 4), ticks(min(ys), max(ys), 5)
    low, high = min(y_axis[0], *ys), max(y_axis[-1], *ys)
    first, last = min(xs), max(xs)
    names = [shortened(line.name) for line in lines if not line.thin]
    longest = max(len(name) for name in [*names, level[0] if level else ""])
    edge = WIDTH - 8 - 7.2 * longest

    def at(x: float, y: float) -> tuple[float, float]:
        right, up = (x - first) / (last - first or 1), (y - low) / (high - low or 1)
        return LEFT + right * (edge - LEFT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_grid_y(at(first, y)[1], edge, y) for y in y_axis]
    parts += [_tick_x(at(x, low)[0], x) for x in x_axis if first <= x <= last]
    parts.append(_text((LEFT + edge) / 2, HEIGHT - 4, x_label, "middle", "note"))
    ends: list[tuple[float, str, str]] = []
    for number, line in enumerate(lines):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in map(at, line.x, line.y))
        style = "thin" if line.thin else f"line k{number % KINDS} dash{number % 4}"
        parts.append(f'<polyline class="{style}" points="{points}"/>')
        if not line.thin:
            x, y = at(line.x[-1], line.y[-1])
            parts.append(f'<circle class="p k{number % KINDS}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
            ends.append((y, shortened(line.name), f"k{number % KINDS}"))
    if level:
        height = at(first, level[1])[1]
        parts.append(f'<path class="level" d="M{LEFT} {height:.1f}H{edge:.1f}"/>')
        ends.append((height, level[0], "note"))
    for height, name, style in spread(ends, gap=15):
        parts.append(_text(edge + 6, height + 4, name, "start", f"end {style}"))
    return _svg(WIDTH, HEIGHT, parts, ", ".join(line.name for line in lines))


def scatter(points: np.ndarray, groups: Sequence[int], names: Sequence[str]) -> str:
    """Return a map of `points` (n, 2), each with the shape and colour of its group, groups named.

    `groups` (n,) index `names`; a group's name stands at the median of its points.
    """
    size = 480
    low, high = points.min(0), points.max(0)
    placed = 16 + (points - low) / np.where(high > low, high - low, 1) * (size - 32)
    number = np.asarray(groups)
    marks = [
        f'<g transform="translate({x:.1f} {y:.1f})" class="p k{g % KINDS}">{SHAPES[g % KINDS]}</g>'
        for (x, y), g in zip(placed, number, strict=True)
    ]
    middles = [(g, np.median(placed[number == g], axis=0)) for g in sorted(set(number.tolist()))]
    labels = spread([(float(m[1]), str(g), f"{m[0]:.0f}") for g, m in middles], gap=18)
    for height, group, left in labels:
        name = shortened(names[int(group)])
        x = min(max(float(left), 4 * len(name) + 4), size - 4 * len(name) - 4)
        marks.append(_text(x, height + 4, name, "middle", "label"))
    return _svg(size, size, marks, f"{len(points)} users in groups {', '.join(names)}")


def interval_bar(found: Interval, low: float, high: float) -> str:
    """Return a bar over the interval with its value marked, on the scale low..high."""
    width, span = 96, (high - low) or 1
    a, b, c = ((x - low) / span * (width - 8) + 4 for x in (found.low, found.high, found.value))
    return (
        f'<svg class="bar" viewBox="0 0 {width} 10" aria-hidden="true">'
        f'<path class="rail" d="M2 5H{width - 2}"/><path class="range" d="M{a:.1f} 5H{b:.1f}"/>'
        f'<circle cx="{c:.1f}" cy="5" r="3.2"/></svg>'
    )


def shape(group: int) -> str:
    """Return the mark of a group alone, for a legend."""
    mark = f'<g transform="translate(6 6)" class="p k{group % KINDS}">{SHAPES[group % KINDS]}</g>'
    return f'<svg class="mark" viewBox="0 0 12 12" aria-hidden="true">{mark}</svg>'


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers that lie in and around low..high, ascending."""
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    rough = (high - low) / count
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * m for m in (1, 2, 2.5, 5, 10) if base * m >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    found = [round(step * (first + i), 12) for i in range(count + 3)]
    return [tick for tick in found if tick <= high + step * 0.999]


def shortened(name: str) -> str:
    """Return the name, or its first NAME characters and an ellipsis."""
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def spread(labels: Sequence[tuple[float, str, str]], *, gap: float) -> list[tuple[float, str, str]]:
    """Return the labels (height, text, style) from top to bottom, at least `gap` apart."""
    placed: list[tuple[float, str, str]] = []
    for height, text, style in sorted(labels):
        above = placed[-1][0] + gap if placed else height
        placed.append((max(height, above), text, style))
    return placed


def _grid_y(height: float, edge: float, value: float) -> str:
    line = f'<path class="grid" d="M{LEFT} {height:.1f}H{edge:.1f}"/>'
    return line + _text(LEFT - 6, height + 4, f"{value:g}", "end", "note")


def _tick_x(place: float, value: float) -> str:
    return _text(place, HEIGHT - BOTTOM + 16, f"{value:g}", "middle", "note")


def _text(x: float, y: float, text: str, anchor: str, style: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} class="{style}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return head + "".join(parts) + "</svg>"
