"""The noise of a seed by size: it is found, a fit weighs by it, an interval has it in it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.least_squares import fit
from benchmarks.scaling.fit.seed_noise import seed_noise
from benchmarks.scaling.fit.sensitivity import choices, fitted
from benchmarks.scaling.fit.study import FitConfig, laws_of
from tests.benchmarks.scaling.tables import row, runs

SEEDS = {16: 8, 24: 6, 32: 4, 48: 2, 64: 2, 96: 1}
LENGTHS = (2**14, 2**16, 2**18, 2**20)
LATER = row(160, 2**21)
SMALLEST, FALLS, DRAWS = 0.04, 0.7, 30


def sigma(params: int) -> float:
    """Four per cent at the smallest size and .6 % at the largest that is fitted."""
    return SMALLEST * (params / row(16, 2**14)["params"]) ** -FALLS


def noisy(draw: np.random.Generator, width: int, pairs: int, seed: int) -> dict[str, object]:
    sd = sigma(row(width, pairs)["params"])
    return row(width, pairs, seed=seed, factor=float(np.exp(draw.normal(0, sd))))


def planted(draw: np.random.Generator) -> list[dict[str, object]]:
    sizes = [(width, seed) for width, seeds in SEEDS.items() for seed in range(seeds)]
    return [noisy(draw, width, pairs, seed) for width, seed in sizes for pairs in LENGTHS]


@dataclass(frozen=True)
class Drawn:
    """Of one drawn table: the band of a run beyond, what it came to, and both fits' log errors."""

    band: Band
    observed: float
    weighted: float
    equal: float


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    config = FitConfig(table=Path("none"), starts=4, resamples=100)
    x = np.array([[float(LATER["params"]), float(LATER["pairs"])]])
    many: list[Drawn] = []
    for number in range(DRAWS):
        draw = np.random.default_rng([7, number])
        laws = laws_of(config, runs(planted(draw)), ("surface",))
        scales = laws.scales("surface", x[:, 0])
        band = laws["surface"].predict(x, scales, seed=number)[0]
        plain = fitted(replace(laws.sample("surface"), scales=np.ones(1)), most=4)
        observed = LATER["loss"] * float(np.exp(draw.normal(0, sigma(LATER["params"]))))
        errors = (np.log(one.loss(x)[0] / LATER["loss"]) for one in (laws["surface"].fit, plain))
        many.append(Drawn(band, observed, *map(float, errors)))
    return many


def test_the_interval_of_one_run_holds_it_as_often_as_it_says(drawn: list[Drawn]) -> None:
    for level, least, most in ((80, 0.68, 0.92), (95, 0.88, 1.0)):
        inside = float(np.mean([one.band.holds(one.observed, level) for one in drawn]))
        assert least <= inside <= most, f"{level} %: {inside:.0%}"
    # as wide as the runs of that size are noisy, not as those of the least size
    widths = [(one.band.high80 - one.band.low80) / one.band.value for one in drawn]
    assert np.median(widths) < 2 * 1.28 * sigma(row(16, 2**14)["params"]) / 2


def test_the_fit_that_weighs_by_noise_is_less_wrong(drawn: list[Drawn]) -> None:
    weighted, equal = (
        float(np.sqrt(np.mean(np.square(errors))))
        for errors in ([one.weighted for one in drawn], [one.equal for one in drawn])
    )
    assert len(drawn) == DRAWS and weighted < 0.8 * equal, f"{weighted:.3%} and {equal:.3%}"


def test_the_noise_and_how_it_falls_are_those_that_were_planted() -> None:
    draw = np.random.default_rng(0)
    many = [noisy(draw, width, 2**16, seed) for width in (16, 48) for seed in range(100)]
    noise = seed_noise(runs(many))
    assert noise.freedom == 198 and abs(noise.falls / FALLS - 1) < 0.15
    for width in (16, 48, 160):
        params = row(width, 2**16)["params"]
        assert float(noise.at(np.array(params))) == pytest.approx(sigma(params), rel=0.2)
    single = seed_noise(runs([row(16, 2**16)]))
    assert single.freedom == 0 and np.isnan(single.sd)


def test_noise_of_one_size_or_that_grows_is_taken_as_constant() -> None:
    draw = np.random.default_rng(1)
    one = [noisy(draw, 16, 2**16, seed) for seed in range(9)]
    assert seed_noise(runs(one)).falls == 0
    sds = {16: 0.005, 48: 0.05}
    grows = [
        row(width, 2**16, seed=seed, factor=float(np.exp(draw.normal(0, sd))))
        for width, sd in sds.items()
        for seed in range(20)
    ]
    assert seed_noise(runs(grows)).falls < 1e-3


def test_a_residual_counts_over_its_scale() -> None:
    sample = laws_of(
        FitConfig(table=Path("none"), starts=2, resamples=10),
        runs(planted(np.random.default_rng(2))),
        ("surface",),
    ).sample("surface")
    assert np.exp(np.log(sample.scales).mean()) == pytest.approx(1.0)
    twice = replace(sample, scales=2 * sample.scales)
    one, other = (fitted(each, delta=1.0, most=2) for each in (sample, twice))  # squares alone
    np.testing.assert_allclose(2 * other.residuals, one.residuals, atol=1e-5)
    # rows of no weight are as good as rows that are not there
    mask = np.arange(len(sample)) % 5 > 0
    silent = replace(sample, scales=np.where(mask, 1.0, 1e9))
    there = replace(sample.take(mask), scales=np.ones(1))
    x = sample.x[:3]
    np.testing.assert_allclose(
        fitted(silent, most=4).loss(x), fitted(there, most=4).loss(x), rtol=1e-4
    )


def test_equal_weights_are_one_of_the_choices() -> None:
    laws = laws_of(
        FitConfig(table=Path("none"), starts=2, resamples=10),
        runs(planted(np.random.default_rng(3))),
        ("surface",),
    )
    law, sample = laws["surface"].fit, laws.sample("surface")
    made = choices(laws.rows["surface"], sample.factors, law, sample.x[:1], most=1)
    plain = fit(law.law, sample.x, sample.losses, most=1)
    (equal,) = (one for one in made if one.name == "equal weights")
    assert equal.reference == pytest.approx(float(plain.loss(sample.x[:1])[0]), rel=1e-6)
