"""The fitter: the published optimum, traps that it flags, and what must not change its answer."""

import numpy as np
import pytest
from scipy.optimize import minimize

from benchmarks.scaling.fit.isoflop import error_frontier
from benchmarks.scaling.fit.laws import PowerLaw
from benchmarks.scaling.fit.least_squares import described, fit, stopped_early
from benchmarks.scaling.fit.newton import huber, refit
from benchmarks.scaling.fit.selection import Sample
from benchmarks.scaling.fit.sensitivity import fitted
from benchmarks.scaling.validation.chinchilla import NAMES, TRUTH, mean_trap
from benchmarks.scaling.validation.published import chinchilla, expected, misfitting, openclip
from tests.benchmarks.scaling.data import FOLDER, needs_data


@pytest.fixture(scope="module")
def noisy() -> Sample:
    """Run at sizes and lengths like Chinchilla's, drawn from the published coefficients."""
    draw = np.random.default_rng(1)
    flops = 10 ** draw.uniform(18.5, 21.5, 120)
    size = np.sqrt(flops / 120) * np.exp(draw.normal(0, 0.8, 120))
    x = np.stack([size, flops / 6 / size], 1)
    law = PowerLaw.on(("N", "D"), x)
    losses = law.loss(law.parameters(TRUTH), x) * np.exp(draw.normal(0, 0.004, 120))
    return Sample(("N", "D"), x, losses, np.arange(120), flops)


def test_every_start_ends_at_the_coefficients(noisy: Sample) -> None:
    found = fitted(noisy, most=54)
    told = found.law.coefficients(found.theta)
    assert found.agreeing == 1 and found.flags == []
    assert found.condition < 100
    for name in ("E", "a_N", "a_D"):
        assert told[name] == pytest.approx(TRUTH[name], rel=0.12)
    assert found.spread == pytest.approx(0.004, rel=0.2)


def test_a_second_optimiser_finds_no_less(noisy: Sample) -> None:
    found = fitted(noisy)
    law, logs = found.law, np.log(noisy.losses)

    def objective(theta: np.ndarray) -> float:
        return 1e3 * float(huber(np.log(law.loss(theta, noisy.x)) - logs, 1e-3).sum())

    low, high = law.bounds(noisy.losses)
    other = minimize(
        objective,
        found.theta * 1.02,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000, "maxfun": 50_000},
    )
    assert found.objective <= other.fun / 1e3 * (1 + 1e-9)
    assert found.objective == pytest.approx(other.fun / 1e3, rel=1e-3)


def test_refitting_weighted_runs_is_fitting_them_repeated(noisy: Sample) -> None:
    found = fitted(noisy)
    draw = np.random.default_rng(0)
    weights = draw.multinomial(120, np.full(120, 1 / 120), size=4).astype(np.float64)
    thetas = refit(found.law, found.theta, noisy.x, np.log(noisy.losses), weights)
    for theta, times in zip(thetas, weights, strict=True):
        rows = np.repeat(np.arange(120), times.astype(int))
        again = fit(found.law, noisy.x[rows], noisy.losses[rows], starts=found.theta[None])
        np.testing.assert_allclose(theta, again.theta, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_trap_of_a_mean_is_flagged(noisy: Sample, seed: int) -> None:
    found = fitted(noisy)
    assert stopped_early(found.law, found.theta, noisy.x, noisy.losses) is None
    off = found.theta * (1 + 0.05 * np.random.default_rng(seed).normal(size=5))
    trap = mean_trap(noisy, off)
    assert trap["objective"] > found.objective * 1.001
    assert "minimise the sum, not the mean" in trap["flag"]


def test_starts_that_disagree_are_flagged(noisy: Sample) -> None:
    found = fitted(noisy)
    seen = described(found.law, found.theta, noisy.x, noisy.losses, agreed=(0.08, 500))
    assert "only 8% of 500 starts" in seen.flags[0]


def test_a_floor_on_its_bound_is_flagged() -> None:
    x = np.logspace(0, 2, 10)[:, None]
    losses = 2 * x[:, 0] ** -0.1 * np.exp(np.random.default_rng(0).normal(0, 1e-4, 10))
    found = fit(PowerLaw.on(("C",), x), x, losses, most=12)
    assert "E" in found.on_bounds
    assert any("E = " in flag and "on its bound" in flag for flag in found.flags)


def test_what_stands_on_a_bound_is_still_the_optimum() -> None:
    x = np.logspace(0, 2, 10)[:, None]
    losses = 2 * x[:, 0] ** -0.1 - 0.2  # a floor below 0 would fit exactly
    law = PowerLaw.on(("C",), x)
    found = fit(law, x, losses, most=12)
    again = refit(law, found.theta, x, np.log(losses), np.ones((1, 10)))[0]
    assert found.on_bounds == ("E",)
    np.testing.assert_allclose(again[1:], found.theta[1:], rtol=1e-5)


def test_too_few_runs_and_constant_factors_are_refused() -> None:
    x = np.array([[1.0], [2.0], [3.0]])
    law = PowerLaw.on(("C",), x)
    with pytest.raises(ValueError, match="3 runs for 3 parameters"):
        fit(law, x, np.ones(3))
    with pytest.raises(ValueError, match="batch is 8 in all runs"):
        fit(PowerLaw(("batch",), (0.0,)), np.full((9, 1), 8.0), np.ones(9))


@needs_data
def test_chinchilla_to_four_digits() -> None:
    known = expected(FOLDER)["epoch_chinchilla"]["huber_delta_1e-3_sum"]
    sample = chinchilla(FOLDER)
    found = fitted(sample, most=16)
    told = found.law.coefficients(found.theta)
    assert len(sample) == 240 and found.agreeing == 1
    assert found.objective == pytest.approx(known["objective"], rel=1e-7)
    for name, key in NAMES.items():
        assert told[key] == pytest.approx(known[name], rel=1e-4)
        paper = expected(FOLDER)["epoch_chinchilla"]["published_paper_fit_with_scale"]
        assert abs(told[key] - paper[name]) < paper["se"][name]


@needs_data
def test_openclip_frontiers_are_the_published_ones() -> None:
    known = expected(FOLDER)["openclip_scaling"]["published"]
    found = openclip(FOLDER)
    assert found.keys() == known.keys()
    for name, (macs, errors) in found.items():
        factor, exponent = error_frontier(macs, errors)
        assert (round(factor, 2), round(-exponent, 2)) == tuple(known[name])
        assert len(macs) == 29


@needs_data
def test_without_embeddings_the_floor_hits_its_bound() -> None:
    assert fitted(misfitting(FOLDER, "N"), most=6).flags == []
    assert "E" in fitted(misfitting(FOLDER, "N_no_emb"), most=6).on_bounds
