"""The forms: their derivatives, their published values, what a fit finds again on exact points."""

import numpy as np
import pytest

from benchmarks.scaling.fit.laws import Law, PowerLaw, RepeatedLaw
from benchmarks.scaling.fit.least_squares import fit
from benchmarks.scaling.validation.chinchilla import TRUTH
from benchmarks.scaling.validation.reference import muennighoff_study
from tests.benchmarks.scaling.data import FOLDER, needs_data

DRAW = np.random.default_rng(0)
SIZES = np.exp(DRAW.uniform(np.log(1e7), np.log(1e10), 60))
DATA = np.exp(DRAW.uniform(np.log(1e9), np.log(1e12), 60))
PLANE = np.stack([SIZES, DATA], 1)
# a size is above and below the best one for the distinct data, data are read once and many times
SPACE = np.stack([SIZES, DATA, DATA / np.exp(DRAW.uniform(-1, 3, 60))], 1)


def numeric(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The derivatives of the log loss by central differences."""
    columns: list[np.ndarray] = []
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = 1e-6 * max(1.0, abs(theta[i]))
        up, down = np.log(law.loss(theta + step, x)), np.log(law.loss(theta - step, x))
        columns.append((up - down) / (2 * step[i]))
    return np.stack(columns, -1)


SURFACE = PowerLaw.on(("N", "D"), PLANE)
THETA = SURFACE.parameters(TRUTH)


@pytest.mark.parametrize(
    ("law", "theta", "x"),
    [
        (SURFACE, THETA, PLANE),
        (PowerLaw.on(("N", "D"), PLANE, irreducible=False), THETA[1:], PLANE),
        (PowerLaw.on(("C",), PLANE[:, :1]), THETA[:3], PLANE[:, :1]),
        (
            RepeatedLaw.on(("N", "D", "U"), SPACE),
            np.r_[THETA, np.log(15.0), np.log(5.0)],
            SPACE,
        ),
    ],
)
def test_derivatives_are_those_of_finite_differences(
    law: Law, theta: np.ndarray, x: np.ndarray
) -> None:
    slopes = law.slopes(theta, x)
    assert slopes.shape == (len(x), len(law.names))
    np.testing.assert_allclose(slopes, numeric(law, theta, x), rtol=1e-5, atol=1e-7)
    both = np.stack([theta, theta * 1.01])
    assert np.array_equal(law.slopes(both, x)[0], slopes)
    assert np.array_equal(law.loss(both, x)[0], law.loss(theta, x))


def test_the_surface_is_its_formula() -> None:
    e, a, alpha, b, beta = TRUTH.values()
    expected = e + a * SIZES**-alpha + b * DATA**-beta
    np.testing.assert_allclose(SURFACE.loss(THETA, PLANE), expected, rtol=1e-12)
    told = SURFACE.coefficients(THETA)
    assert told == pytest.approx(TRUTH)


def test_coefficients_of_exact_points_are_found_to_six_digits() -> None:
    found = fit(SURFACE, PLANE, SURFACE.loss(THETA, PLANE), most=54)
    assert dict(SURFACE.coefficients(found.theta)) == pytest.approx(TRUTH, rel=1e-6)
    assert found.agreeing > 0.9
    assert found.flags == []


def test_a_single_factor_has_its_scale() -> None:
    x = np.logspace(3, 7, 12)[:, None]
    law = PowerLaw.on(("C",), x)
    found = fit(law, x, 1.5 + (4e4 / x[:, 0]) ** 0.3, most=12)
    told = law.coefficients(found.theta)
    assert told["C0"] == pytest.approx(4e4, rel=1e-6)
    assert (told["E"], told["a_C"]) == pytest.approx((1.5, 0.3), rel=1e-6)


def test_without_a_floor_the_exponent_is_another() -> None:
    x = np.logspace(0, 3, 12)[:, None]
    losses = 1.5 + 2 * x[:, 0] ** -0.2
    pure = PowerLaw.on(("C",), x, irreducible=False)
    assert fit(pure, x, losses, most=6).theta[1] < 0.1


def slow_repeated(size: float, read: float, distinct: float) -> float:
    """The formula of Muennighoff et al. 2023 written out for a single point."""
    e, a, alpha, b, beta = TRUTH.values()
    distinct = min(distinct, read)  # what was not read cannot count
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    best = min(size, g * (g * distinct) ** (beta / alpha))
    again, excess = read / distinct - 1, size / best - 1
    data = distinct * (1 + 15 * (1 - np.exp(-again / 15)))
    grown = best * (1 + 5 * (1 - np.exp(-excess / 5)))
    return e + a * grown**-alpha + b * data**-beta


def test_repeated_data_count_as_the_paper_says() -> None:
    law = RepeatedLaw.on(("N", "D", "U"), SPACE)
    theta = np.r_[PowerLaw(("N", "D"), law.centre).parameters(TRUTH), np.log(15.0), np.log(5.0)]
    expected = [slow_repeated(*row) for row in SPACE.tolist()]
    np.testing.assert_allclose(law.loss(theta, SPACE), expected, rtol=1e-12)
    once = SPACE.copy()
    once[:, 2] = once[:, 1] = 1e15  # read once, and so many that no size is too large
    plain = PowerLaw(("N", "D"), law.centre).loss(theta[:5], once[:, :2])
    np.testing.assert_allclose(law.loss(theta, once), plain, rtol=1e-12)
    found = fit(law, SPACE, np.array(expected), most=27)
    np.testing.assert_allclose(found.theta, theta, rtol=1e-6)


@needs_data
def test_the_two_published_values_of_repeated_data() -> None:
    rows = muennighoff_study(FOLDER)
    assert len(rows) == 2
    for row in rows:
        assert row["ours"] == pytest.approx(row["published"], rel=1e-12)
