"""How numbers are printed, on a terminal, in Markdown and on a page: `.057 [.048 .067]`."""

from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.metrics.bootstrap import Interval


def digits(measure: str) -> int:
    """Return how many decimals a measure is printed with: 2 for nats, 3 for the others."""
    return 2 if "entropy" in measure else 3


def show(measure: str, interval: Interval) -> str:
    """Return `.057 [.048 .067]`, with two decimals for nats."""
    texts = [f"{x:.{digits(measure)}f}" for x in (interval.value, interval.low, interval.high)]
    value, low, high = (t.replace("0.", ".", 1) if t.startswith("0.") else t for t in texts)
    return f"{value} [{low} {high}]"


def number(measure: str, value: float) -> str:
    """Return a value alone, "" for NaN."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.{digits(measure)}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def signed(measure: str, interval: Interval) -> str:
    """Return a difference with its sign, and its interval where that is known."""
    texts = [f"{x:+.{digits(measure)}f}" for x in (interval.value, interval.low, interval.high)]
    value, low, high = (t[0] + t[2:] if t[1:3] == "0." else t for t in texts)
    return f"{value} [{low} {high}]" if np.isfinite(interval.low) else value


def zero_width(value: float, low: float, high: float) -> str:
    """Return " (zero width)" for an interval that four digits do not tell from its value, else "".

    As many runs as parameters, or equal values, spread nothing: such an interval is no certainty.
    """
    return " (zero width)" if high - low <= 1e-4 * abs(value) else ""


def p_value(p: float) -> str:
    """Return a p-value, "" for NaN."""
    return "" if not np.isfinite(p) else f"{p:.3f}".replace("0.", ".", 1)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return the lines as text in columns of equal width."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
