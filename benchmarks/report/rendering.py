"""Pages from templates, which escape whatever they print, and the bars that their tables hold."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import number, p_value, signed
from benchmarks.report.charts import COLOURS, GLYPHS, tick_values
from benchmarks.suite.significance import PairedDifference
from benchmarks.suite.summary import CHANCE, CONTROL, ORACLE, OURS

Kind = Literal["ours", "baseline", "control", "oracle"]
EDGE = 3.0  # percent of a track on either side, for marks at the ends

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Bar:
    """A line of a dot plot: a name, its interval and, right of it, a text and a note below.

    `seeds` are small marks, drawn where there are several.
    """

    name: str
    interval: Interval
    text: str
    note: str
    kind: Kind
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Scale:
    """The common scale of bars, from `low` to `high`."""

    low: float
    high: float

    @classmethod
    def of(cls, bars: Iterable[Bar], *, zero: bool = False) -> "Scale":
        """Return the scale from the least to the greatest of all finite ends, seeds and `zero`."""
        ends = [x for b in bars for x in (*vars(b.interval).values(), *b.seeds)]
        known = [x for x in ends if math.isfinite(x)] + [0.0] * zero
        return cls(min(known), max(known)) if known else cls(0.0, 1.0)

    def percent(self, value: float) -> float:
        """Return where a value stands on a track, in percent of its width."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(EDGE + (100 - 2 * EDGE) * share, 1)

    @property
    def ticks(self) -> list[float]:
        """The round numbers below the tracks."""
        return tick_values(self.low, self.high)


def kind_of(model: str) -> Kind:
    """Return what a row is, by its name."""
    if model.startswith(ORACLE):
        return "oracle"
    if model.startswith((CONTROL, CHANCE)):
        return "control"
    return "ours" if OURS in model else "baseline"


def verdict(one: PairedDifference) -> str:
    """Return what a difference shows at the level of .05."""
    if not one.holm < 0.05:  # NaN too
        return "undecided"
    return "better" if one.gain > 0 else "worse"


def write_page(template: str, out: Path, **parts: Any) -> Path:
    """Write the page of a template and return its path."""
    page = TEMPLATES.get_template(template).render(colours=COLOURS, glyphs=GLYPHS, **parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page + "\n", encoding="utf-8")
    return out


FILTERS: dict[str, Any] = {
    "number": number,
    "signed": signed,
    "p_value": p_value,
    "verdict": verdict,
}
TEMPLATES.filters.update(FILTERS)
FINITE: Any = math.isfinite
TEMPLATES.tests["finite"] = FINITE
