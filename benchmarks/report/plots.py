"""Figures of the transfer report: dots on bars that stretch with the page, loss against score.

Inline SVG as in benchmarks/figures.py. Places are in percent, so that text keeps its size on a
phone. Shapes say what colours say: ours is a square, a baseline a disc, a control hollow, an oracle
a diamond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from benchmarks.figures import SHAPES, ticks
from benchmarks.metrics.bootstrap import Interval

STYLE = """
.rows { display: grid; grid-template-columns: minmax(6rem, auto) minmax(6rem, 1fr) auto;
  gap: 0 10px; align-items: center; font-size: .88rem; }
.rows > * { min-width: 0; } .rows .name { overflow-wrap: anywhere; line-height: 1.25; }
.rows .name small { color: var(--soft); display: block; }
.rows .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
  line-height: 1.2; padding: 3px 0; }
.rows .num small { color: var(--soft); display: block; } .rows .ours { font-weight: 700; }
.note { font-size: .85rem; }
svg.track { height: 24px; overflow: visible; }
.track .rail { stroke: var(--rule); } .track .range { stroke: currentColor; stroke-width: 3; }
.track .zero { stroke: var(--soft); stroke-dasharray: 2 3; }
.track .seed { stroke: currentColor; stroke-width: 1.5; }
.track text { fill: var(--soft); font-size: 11px; }
.track .p, .loss .p { opacity: 1; } .track svg { height: 1px; overflow: visible; }
.soft-mark { color: var(--soft); }
.hollow { fill: var(--card) !important; stroke: currentColor; stroke-width: 1.6; }
.panels { display: grid; gap: 14px 22px; margin: 6px 0 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
.panels h4 { margin: 0; } .panels .rows { font-size: .8rem; }
.loss text { font-size: 11px; }
td.r0 { background: color-mix(in srgb, var(--k0) 48%, var(--card)); font-weight: 700; }
td.r1 { background: color-mix(in srgb, var(--k0) 32%, var(--card)); }
td.r2 { background: color-mix(in srgb, var(--k0) 14%, var(--card)); }
td.r0 small, td.r1 small { color: var(--ink); }
section { margin-top: 40px; } section h3 { font-size: 1.1rem; margin: 0; }
section .note { margin: 0 0 8px; } .card > h4:first-child { margin-top: 0; }
table.board th, table.board td { padding: 6px 10px; } table.board td small { font-size: .72rem; }
table.board td:not(:first-child), table.board th:not(:first-child) { text-align: right; }
table.board th { white-space: normal; vertical-align: bottom; }
table.board th:first-child, table.board td:first-child { position: sticky; left: 0; z-index: 1;
  background: var(--card); min-width: 8.5rem; }
table.board tr.total td { border-bottom: 2px solid var(--rule); }
table.board td a { color: inherit; }
table.plain td, table.plain th { padding: 5px 12px 5px 0; }
table.plain td small { display: inline; }
"""
EDGE = 3  # percent of a track on either side, for marks at the ends
LOSS_WIDTH, LOSS_HEIGHT = 300, 190


@dataclass(frozen=True)
class Dot:
    """A line of a dot plot: what stands left, its value and interval, and what stands right.

    `kind` is "ours", "baseline", "control" or "oracle"; `seeds` are small marks, if several.
    """

    name: str
    found: Interval
    text: str
    kind: str
    seeds: Sequence[float] = ()


def dot_plot(
    dots: Sequence[Dot], *, zero: bool = False, scale: tuple[float, float] | None = None
) -> str:
    """Return the lines on a common scale, their own unless given, with its axis below.

    With `zero` their own scale has 0, marked through all lines.
    """
    low, high = scale or scale_of(dots, zero=zero)
    lines = [
        f'<div class="name {dot.kind}">{escape(dot.name)}</div>'
        f"{_track(dot, low, high, zero=zero)}"
        f'<div class="num {dot.kind}">{dot.text}</div>'
        for dot in dots
    ]
    inside = [x for x in ticks(low, high, 4) if low <= x <= high]
    marks = "".join(
        f'<text x="{_place(x, low, high)}" y="12" text-anchor="middle">{x:g}</text>' for x in inside
    )
    lines.append(f'<div></div><svg class="track" aria-hidden="true">{marks}</svg><div></div>')
    return f'<div class="rows">{"".join(lines)}</div>'


def scale_of(dots: Sequence[Dot], *, zero: bool) -> tuple[float, float]:
    """Return the least and the greatest of all finite ends, seeds and, where asked, 0."""
    ends = [x for d in dots for x in (d.found.value, d.found.low, d.found.high, *d.seeds)]
    known = [x for x in ends if np.isfinite(x)] + [0.0] * zero
    return (min(known), max(known)) if known else (0.0, 1.0)


def _place(value: float, low: float, high: float) -> str:
    share = (value - low) / ((high - low) or 1)
    return f"{EDGE + (100 - 2 * EDGE) * share:.1f}%"


def _track(dot: Dot, low: float, high: float, *, zero: bool) -> str:
    found = dot.found
    parts = ['<line class="rail" x1="0" x2="100%" y1="12" y2="12"/>']
    if zero:
        x = _place(0, low, high)
        parts.append(f'<line class="zero" x1="{x}" x2="{x}" y1="-2" y2="26"/>')
    if np.isfinite([found.low, found.high]).all():
        a, b = (_place(x, low, high) for x in (found.low, found.high))
        parts.append(f'<line class="range" x1="{a}" x2="{b}" y1="12" y2="12"/>')
    if len(dot.seeds) > 1:
        for x in (_place(seed, low, high) for seed in dot.seeds if np.isfinite(seed)):
            parts.append(f'<line class="seed" x1="{x}" x2="{x}" y1="3" y2="8"/>')
    if np.isfinite(found.value):
        x = _place(found.value, low, high)
        parts.append(f'<svg x="{x}" y="12" class="p">{MARKS[dot.kind]}</svg>')
    label = escape(f"{dot.name} {found.value:.4g} [{found.low:.4g} {found.high:.4g}]")
    return (
        f'<svg class="track {COLOURS[dot.kind]}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


COLOURS = {"ours": "k0", "baseline": "k1", "control": "soft-mark", "oracle": "k2"}
MARKS = {
    "ours": '<path d="M-5-5H5V5H-5Z"/>',
    "baseline": '<circle r="4.6"/>',
    "control": '<circle r="4" class="hollow"/>',
    "oracle": '<path d="M0-6.4L5.6 0L0 6.4L-5.6 0Z"/>',
}


def loss_chart(points: Sequence[tuple[str, float, float]], measure: str) -> str:
    """Return (name, loss, score) of checkpoints: the lower the loss, the further right."""
    losses, scores = [loss for _, loss, _ in points], [score for _, _, score in points]
    ys = ticks(min(scores), max(scores), 3)
    left, top, right, bottom = 44, 16, LOSS_WIDTH - 16, LOSS_HEIGHT - 40
    margin = 0.06 * (max(losses) - min(losses)) or 1.0
    x0, x1 = min(losses) - margin, max(losses) + margin
    xs = [x for x in ticks(x0, x1, 4) if x0 <= x <= x1]
    y0, y1 = min(ys[0], *scores), max(ys[-1], *scores)

    def at(loss: float, score: float) -> tuple[float, float]:
        across, up = (x1 - loss) / ((x1 - x0) or 1), (score - y0) / ((y1 - y0) or 1)
        return left + across * (right - left), bottom - up * (bottom - top)

    parts: list[str] = []
    for y in ys:
        height = at(x0, y)[1]
        parts.append(f'<path class="grid" d="M{left} {height:.1f}H{right}"/>')
        parts.append(_text(left - 6, height + 4, f"{y:g}", "end"))
    parts += [_text(at(x, y0)[0], bottom + 16, f"{x:g}", "middle") for x in xs]
    parts.append(_text((left + right) / 2, LOSS_HEIGHT - 6, "entropy, nats, lower →", "middle"))
    named: list[tuple[float, float]] = []
    for name, loss, score in [points[0], points[-1], *points[1:-1]]:
        x, y = at(loss, score)
        parts.append(
            f'<g class="p k0" transform="translate({x:.1f} {y:.1f})">{SHAPES[0]}'
            f"<title>{escape(name)}: {loss:.3f}, {score:.4g}</title></g>"
        )
        if all(abs(x - a) > 30 or abs(y - b) > 13 for a, b in named):
            named.append((x, y))
            parts.append(_text(x, y - 7, name.removeprefix("step "), "middle"))
    label = escape(f"loss against {measure}")
    box = f'viewBox="0 0 {LOSS_WIDTH} {LOSS_HEIGHT}"'
    return f'<svg class="loss" {box} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="note" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
