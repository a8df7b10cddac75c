"""The optimum of a surface is the least loss that its compute buys."""

import numpy as np
import pytest

from benchmarks.scaling.fit.isoflop import (
    Cost,
    error_frontier,
    optima,
    optimum,
    parabola,
    parabolas,
)
from benchmarks.scaling.fit.law_intervals import bootstrap
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.selection import Sample
from benchmarks.scaling.fit.sensitivity import fitted
from benchmarks.scaling.validation.chinchilla import TRUTH
from tests.benchmarks.scaling.tables import row, rows, runs, surface

LAW = PowerLaw(("N", "D"), (20.0, 24.0))
THETA = LAW.parameters(TRUTH)


@pytest.mark.parametrize("cost", [Cost(6.0, 1.0, 0.0), Cost(90.0, 0.8, 0.0)])
def test_no_other_size_is_better(cost: Cost) -> None:
    flops = np.array([1e19, 1e21])
    size, data = optimum(LAW, THETA, cost, flops)
    np.testing.assert_allclose(cost.factor * size**cost.power * data, flops)
    for budget, best in zip(flops, size, strict=True):
        grid = np.geomspace(best / 30, best * 30, 4001)
        others = budget / (cost.factor * grid**cost.power)
        losses = LAW.loss(THETA, np.stack([grid, others], 1))
        assert grid[np.argmin(losses)] == pytest.approx(best, rel=2e-3)


def test_the_cost_is_found_and_its_miss_told() -> None:
    sizes, data = np.array([1e6, 1e6, 1e7, 1e8]), np.array([1e8, 1e9, 1e9, 1e9])
    found = Cost.of(90 * sizes**0.8 * data, sizes, data)
    assert (found.factor, found.power) == pytest.approx((90, 0.8))
    assert found.error < 1e-9
    assert Cost.of(np.array([1.0, 1.1, 1, 1]) * 6 * sizes * data, sizes, data).error > 0.03
    with pytest.raises(ValueError, match="a cost needs several sizes"):
        Cost.of(data, np.full(4, 1e6), data)


def test_a_minimum_at_the_edge_is_not_kept() -> None:
    sizes = np.geomspace(1e6, 1e8, 7)
    inside = parabola(1e18, sizes, 2 + 0.1 * (np.log(sizes) - np.log(1e7)) ** 2)
    assert inside.kept
    assert (inside.size, inside.loss) == pytest.approx((1e7, 2.0))
    np.testing.assert_allclose(np.polyval(inside.polynomial, np.log(sizes)), inside.losses)
    for middle in (1e5, 1e9):
        assert not parabola(1e18, sizes, 2 + 0.1 * (np.log(sizes) - np.log(middle)) ** 2).kept
    assert not parabola(1e18, sizes, 2 - 0.1 * (np.log(sizes) - np.log(1e7)) ** 2).kept


def test_parabolas_stand_near_the_optimum_of_the_surface() -> None:
    widths = (24, 32, 48, 64, 96)
    budget = [row(w, round(3e10 / 6 / (24 * w**2 + 100 * w))) for w in widths]
    (found,) = parabolas(runs(budget))
    grid = np.geomspace(1e4, 3e5, 1000)
    best = grid[np.argmin(surface(grid, 3e10 / 6 / grid))]
    assert found.kept and found.size == pytest.approx(best, rel=0.15)
    assert parabolas(runs(budget[:4])) == []


def test_optima_come_with_bands() -> None:
    sample = Sample.of(runs(rows(seed=1)), ("params", "pairs"))
    drawn = bootstrap(fitted(sample, most=4), sample, resamples=100)
    found = optima(drawn, Cost.of(sample.flops, *sample.x.T), np.array([1e11, 1e13]))
    assert found.exponent.holds(0.36 / (0.33 + 0.36))
    for size, data, flops in zip(found.size, found.data, found.flops, strict=True):
        assert size.low95 < size.value < size.high95
        assert 6 * size.value * data.value == pytest.approx(flops, rel=1e-6)
    pure = bootstrap(fitted(sample, irreducible=False, most=4), sample, resamples=10)
    with pytest.raises(ValueError, match="needs L"):
        optima(pure, Cost(6, 1, 0), np.array([1e11]))


def test_an_exact_error_frontier_is_found() -> None:
    flops = np.logspace(9, 12, 40)
    factor, exponent = error_frontier(flops, 5 * flops**-0.11)
    assert exponent == pytest.approx(0.11, rel=0.1)
    assert factor == pytest.approx(5, rel=0.3)
