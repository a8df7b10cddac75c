"""Does one learning rate suit all sizes? The loss over the rate of each size, as a parabola.

The log loss of a size, over the log rate, is a parabola near its lowest point: least squares over
the rates within a factor of WINDOW of the best that was tried. Its errors are those of the
residuals of all sizes, two of five rates are too few alone, or of the seeds where those differ
more. The shared rate is that of the least total
excess over the sizes' own lowest points.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics.format import markdown
from benchmarks.scaling.fit.run_table import Runs, digest
from benchmarks.scaling.fit.seed_noise import SeedNoise, seed_noise

FEWEST = 3  # rates of a size, as a parabola needs
WINDOW = 4.01  # farther from the best rate the loss is no parabola
STEP = 2**0.5  # the best rates of all sizes lie within such a factor, and each is as well known
EXCESS = 0.003  # what the shared rate may cost a size, over the loss at its own


@dataclass(frozen=True)
class Curve:
    """A size's losses (k,) at rates (k,), means over seeds, and the parabola y = a x^2 + b x + c.

    x is the log rate over `middle`, y the log loss, `residuals` theirs. `inverse` (3, 3) times
    `variance`, that of a log loss, is the covariance of a, b and c; NaN where nothing shows it.
    `why` it has no lowest point among the rates, "" where it has one.
    """

    size: str
    width: int
    layers: int
    rates: np.ndarray
    losses: np.ndarray
    middle: float
    polynomial: np.ndarray
    residuals: np.ndarray
    inverse: np.ndarray
    variance: float
    why: str

    @property
    def free(self) -> int:
        """The degrees of freedom of the residuals."""
        return len(self.residuals) - len(self.polynomial)

    @property
    def log_best(self) -> float:
        """The log of the rate of the lowest point."""
        a, b, _ = self.polynomial
        return float(np.log(self.middle) - b / (2 * a))

    @property
    def log_best_sd(self) -> float:
        """The error of `log_best`."""
        a, b, _ = self.polynomial
        return self._sd(np.array([b / (2 * a**2), -1 / (2 * a), 0.0]))

    @property
    def lowest(self) -> float:
        """The loss of the lowest point."""
        a, b, c = self.polynomial
        return float(np.exp(c - b**2 / (4 * a)))

    def excess(self, log_rate: float) -> tuple[float, float]:
        """Return by what share the loss at a rate is above the lowest, and the error of that."""
        a, b, _ = self.polynomial
        x = log_rate - np.log(self.middle)
        over = float(a * (x + b / (2 * a)) ** 2)
        return float(np.expm1(over)), self._sd(
            np.array([x**2 - (b / (2 * a)) ** 2, x + b / a / 2, 0])
        )

    def _sd(self, slope: np.ndarray) -> float:
        return float(np.sqrt(self.variance * (slope @ self.inverse @ slope)))


def curve(rows: Runs, noise: SeedNoise) -> Curve:
    """Return the curve of the rows of one size, its variance that between seeds.

    ValueError for fewer than FEWEST rates, or runs that differ in more than their rate and seed.
    """
    size = str(rows["size"][0])
    for name in ("params", "pairs", "users", "steps", "batch", "max_events"):
        values = np.unique(rows[name])
        if len(values) > 1:
            raise ValueError(
                f"size {size} has {name} {values[0]} and {values[1]}; rates compare at equal {name}"
            )
    rates, at = np.unique(rows["lr"], return_inverse=True)
    if len(rates) < FEWEST:
        raise ValueError(f"size {size} has {len(rates)} rates; a parabola needs {FEWEST} or more")
    count = np.bincount(at)
    losses = np.bincount(at, rows["loss"]) / count
    best = rates[losses.argmin()]
    near, points = parabola(rates, float(best))
    y = np.log(losses[near])
    polynomial = np.linalg.lstsq(points, y)[0] if len(y) >= FEWEST else np.full(3, np.nan)
    seeds = float(noise.at(rows["params"][0]) ** 2 / count[near].mean())
    inverse = np.linalg.pinv(points.T @ points)
    a, b, _ = polynomial
    lowest = -b / (2 * a) if a > 0 else np.nan
    inside = np.log(rates[0] / best) < lowest < np.log(rates[-1] / best)
    why = "" if inside else _why(rates, losses)
    shape = int(rows["width"][0]), int(rows["layers"][0])
    off = y - points @ polynomial
    return Curve(size, *shape, rates, losses, float(best), polynomial, off, inverse, seeds, why)


def parabola(rates: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which rates (k,) a parabola about `middle` reads, and x^2, x, 1 of those (n, 3)."""
    x = np.log(rates / middle)
    near = np.abs(x) <= np.log(WINDOW)
    return near, np.stack([x**2, x, np.ones_like(x)], 1)[near]


def _why(rates: np.ndarray, losses: np.ndarray) -> str:
    at = int(losses.argmin())
    if at in (0, len(rates) - 1):
        end, beyond = ("least", "lower") if at == 0 else ("greatest", "higher")
        return f"the best rate is the {end} tried, {rates[at]:g}; try {beyond} ones"
    return "the loss over the rate is no parabola; try rates nearer to each other"


def judge(runs: Runs) -> dict[str, Any]:
    """Return whether one rate suits all sizes of a table, why not, and the rate of each size.

    Four criteria, each of all sizes: the lowest point is among the rates tried; its error is at
    most a STEP; the greatest best rate is at most a STEP above the least; the loss at the shared
    rate is within EXCESS of the lowest. Where one fails, a size's rate is its own. ValueError for a
    table of one size, and what `curve` raises.
    """
    sizes = sorted({str(size) for size in runs["size"]})
    if len(sizes) < 2:
        raise ValueError(f"the table has size {sizes[0]} alone; a gate needs two or more")
    noise = seed_noise(runs)
    alone = [curve(runs.take(runs["size"] == size), noise) for size in sizes]
    square = sum(float(one.residuals @ one.residuals) for one in alone if not one.why)
    free = sum(one.free for one in alone if not one.why)
    spread = square / free if free else float("nan")
    curves = [replace(one, variance=float(np.fmax(spread, one.variance))) for one in alone]
    curves.sort(key=lambda one: (one.width, one.layers))
    known = [one for one in curves if not one.why]
    bends = np.array([one.polynomial[0] for one in known])
    logs = np.array([one.log_best for one in known])
    shared = float(bends @ logs / bends.sum()) if known else float("nan")
    sds = {one.size: one.log_best_sd for one in known}
    over = {one.size: one.excess(shared) for one in known}
    step = float(np.log(STEP))
    apart = float(np.ptp(logs)) if known else float("nan")
    criteria = {
        "lowest point among the rates": _criterion(len(curves) - len(known), 0, "sizes without"),
        "error of the best rate": _criterion(_most([*sds.values()]) / step, 1, "steps of root two"),
        "best rates apart": _criterion(apart / step, 1, "steps of root two"),
        "loss at the shared rate": _criterion(
            _most([excess for excess, _ in over.values()]), EXCESS, "above a size's own best"
        ),
    }
    passes = all(one["passes"] for one in criteria.values())
    return {
        "passes": passes,
        "shared": float(np.exp(shared)),
        "criteria": criteria,
        "sizes": [_described(one, shared, passes=passes) for one in curves],
        "table": digest(runs),
    }


def _most(values: Sequence[float]) -> float:
    """Return the greatest value; NaN where one is, or there are none."""
    return float(np.max(values)) if values else float("nan")


def _criterion(value: float, limit: float, unit: str) -> dict[str, Any]:
    return {"value": value, "limit": limit, "unit": unit, "passes": bool(value <= limit + 1e-9)}


def _described(one: Curve, shared: float, *, passes: bool) -> dict[str, Any]:
    tree: dict[str, Any] = {"size": one.size, "width": one.width, "layers": one.layers}
    tree |= {"rates": one.rates, "losses": one.losses, "why": one.why}
    if one.why:
        return {**tree, "rate": None}
    best, (excess, excess_sd) = float(np.exp(one.log_best)), one.excess(shared)
    return {
        **tree,
        "rate": float(np.exp(shared)) if passes else best,
        "best": best,
        "best_sd": one.log_best_sd,  # of its log
        "lowest": one.lowest,
        "excess": excess,
        "excess_sd": excess_sd,
    }


def rate_of(file: Path, size: str) -> float:
    """Return the rate that a gate's file has for a size: the shared one, where the gate passed.

    FileNotFoundError without the file; ValueError for a size of which a gate that failed knows no
    lowest point.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"no gate {file}; `python -m benchmarks.scaling gate CONFIG` writes it"
        )
    tree = json.loads(file.read_text(encoding="utf-8"))
    if tree["passes"]:
        return float(tree["shared"])
    known = {one["size"]: one for one in tree["sizes"]}
    if size not in known:
        raise ValueError(
            f"{file} says that no rate suits all sizes, and does not have {size}; add it to the "
            f"gate with {FEWEST} rates or more"
        )
    if known[size]["rate"] is None:
        raise ValueError(f"{file} has no rate for {size}: {known[size]['why']}")
    return float(known[size]["rate"])


def table(tree: Mapping[str, Any]) -> str:
    """Return a gate as Markdown: what it says, its criteria, its sizes."""
    said = "One rate suits all sizes" if tree["passes"] else "No rate suits all sizes"
    lines = [
        [name, f"{one['value']:.3g}", f"{one['limit']:.3g}", one["unit"], _yes(one["passes"])]
        if one["value"] is not None
        else [name, "unknown", f"{one['limit']:.3g}", one["unit"], "no"]
        for name, one in tree["criteria"].items()
    ]
    sizes = [
        [one["size"], one["why"], "", "", ""]
        if one["why"]
        else [
            one["size"],
            f"{one['best']:.3g}{_error(one['best_sd'], 'x / ')}",
            f"{one['lowest']:.4f}",
            f"{one['excess']:.2%}{_error(one['excess_sd'], '+- ')}",
            f"{one['rate']:.3g}",
        ]
        for one in tree["sizes"]
    ]
    shared = "" if tree["shared"] is None else f", the shared one {tree['shared']:.3g}"
    head = ("size", "best rate", "loss there", "above it at the shared rate", "rate to take")
    return "\n\n".join(
        [
            f"{said}{shared}.",
            markdown(("criterion, the worst of the sizes", "value", "limit", "", "met"), lines),
            markdown(head, sizes),
        ]
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _error(sd: float | None, sign: str) -> str:
    if sd is None:
        return ""
    return f" {sign}{np.exp(sd):.2f}" if "x" in sign else f" {sign}{sd:.2%}"
