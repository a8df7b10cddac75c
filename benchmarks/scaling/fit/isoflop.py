"""What to train for a compute: from the surface, and, as a picture and a check, by parabolas.

A parabola through the losses of one budget over log size is biased where the sizes are wide, off
centre, or where the exponents of size and data differ, noise or not (Czech et al. 2026, arXiv
2603.22339): the surface is the law that is reported.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.scaling.fit.law_intervals import Band, Bootstrap
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.run_table import Runs
from benchmarks.scaling.fit.selection import best_rates, budgets

SIZES = 5  # of a budget, at least


@dataclass(frozen=True)
class Parabola:
    """One budget: its mean FLOPs, sizes and losses (n,), the polynomial of log size (3,).

    `kept` says that the minimum is a minimum and lies strictly between the sizes; `size` and `loss`
    are there.
    """

    flops: float
    sizes: np.ndarray
    losses: np.ndarray
    polynomial: np.ndarray
    kept: bool
    size: float
    loss: float


def parabolas(runs: Runs, size: str = "params", tolerance: float = 0.25) -> list[Parabola]:
    """Return a parabola for each budget of SIZES sizes or more, at their best learning rates."""
    runs = best_rates(runs)
    number = budgets(runs["flops"], tolerance)
    each = [runs.take(number == budget) for budget in range(number.max() + 1)]
    return [
        parabola(
            float(np.exp(np.log(rows["flops"]).mean())), rows[size].astype(np.float64), rows["loss"]
        )
        for rows in each
        if len(np.unique(rows[size])) >= SIZES
    ]


def parabola(flops: float, sizes: np.ndarray, losses: np.ndarray) -> Parabola:
    """Return the least-squares parabola of losses (n,) over log sizes (n,)."""
    logs = np.log(sizes)
    middle = logs.mean()
    polynomial = np.polyfit(logs - middle, losses, 2)
    bend, slope, height = polynomial
    lowest = middle - slope / (2 * bend) if bend > 0 else np.nan
    kept = bool(logs.min() < lowest < logs.max())
    loss = height - slope**2 / (4 * bend) if kept else np.nan
    around = np.array([bend, slope - 2 * bend * middle, height - slope * middle + bend * middle**2])
    best = float(np.exp(lowest)) if kept else float("nan")
    return Parabola(flops, sizes, losses, around, kept, best, float(loss))


def power(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return factor and exponent of y = factor x^exponent, a straight line through logs (n,)."""
    exponent, height = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(height)), float(exponent)


@dataclass(frozen=True)
class Cost:
    """FLOPs of a training: factor N^power D. `error` is the largest relative miss among the runs.

    Transformers alone have power 1 and factor 6; logits, tables and short runs bend it.
    """

    factor: float
    power: float
    error: float

    @staticmethod
    def of(flops: np.ndarray, sizes: np.ndarray, data: np.ndarray) -> "Cost":
        """Return the cost of runs (n,); ValueError where all have one size."""
        if len(np.unique(sizes)) < 2:
            raise ValueError(f"all runs have {sizes[0]:g} parameters; a cost needs several sizes")
        factor, exponent = power(sizes, flops / data)
        miss = np.abs(factor * sizes**exponent * data / flops - 1)
        return Cost(factor, exponent, float(miss.max()))


def optimum(
    law: PowerLaw, thetas: np.ndarray, cost: Cost, flops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best size and data (..., m) for FLOPs (m,) by parameters (..., 5) of L(N, D).

    Where a further FLOP buys as much by either: a A N^-a = q b B D^-b, with F = factor N^q D.
    """
    _, c, a, d, b = (thetas[..., i, None] for i in range(5))
    log_a, log_b = c + a * law.centre[0], d + b * law.centre[1]
    spend = np.log(flops / cost.factor)
    size = (np.log(a / (cost.power * b)) + log_a - log_b + b * spend) / (a + cost.power * b)
    return np.exp(size), np.exp(spend - cost.power * size)


@dataclass(frozen=True)
class Optimum:
    """Best size, data and loss of compute-optimal runs at each of several FLOPs (m,)."""

    flops: np.ndarray
    exponent: Band  # of the best size over compute
    size: list[Band]
    data: list[Band]
    loss: list[Band]


def optima(drawn: Bootstrap, cost: Cost, flops: np.ndarray) -> Optimum:
    """Return the bands of the optimum of a surface; ValueError for any other law."""
    law, theta, thetas = drawn.fit.law, drawn.fit.theta, drawn.thetas
    if not isinstance(law, PowerLaw) or len(law.factors) != 2 or not law.irreducible:
        raise ValueError(f"an optimum needs L(N, D) with E, not a law of {', '.join(law.factors)}")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        best, best_of = optimum(law, theta, cost, flops), optimum(law, thetas, cost, flops)
        loss = law.loss(theta, np.stack(best, 1))
        losses = [law.loss(each, np.stack(x, 1)) for each, *x in zip(thetas, *best_of, strict=True)]
    exponent, *exponents = (each[4] / (each[2] + cost.power * each[4]) for each in (theta, *thetas))

    def bands(values: np.ndarray, drawn_values: np.ndarray) -> list[Band]:
        return [drawn.scale(float(v), d) for v, d in zip(values, drawn_values.T, strict=True)]

    slope = drawn.scale(float(exponent), np.array(exponents))
    return Optimum(flops, slope, *map(bands, (*best, loss), (*best_of, np.stack(losses))))


def error_frontier(flops: np.ndarray, errors: np.ndarray, bins: int = 5) -> tuple[float, float]:
    """Return b and a of error = b F^-a, by the least error of each of `bins` bins of log FLOPs.

    The bins are of equal width, from the least log10 to 0.1 above the greatest, a point at each
    middle (Cherti et al. 2023, "Reproducible Scaling Laws for Contrastive Language-Image
    Learning", arXiv 2212.07143).
    """
    logs = np.log10(flops)
    edges = np.linspace(logs.min(), logs.max() + 0.1, bins + 1)
    inside = np.digitize(logs, edges) - 1
    filled = np.unique(inside)
    middle = (edges[filled] + edges[filled + 1]) / 2
    factor, exponent = power(10**middle, np.array([errors[inside == one].min() for one in filled]))
    return factor, -exponent
