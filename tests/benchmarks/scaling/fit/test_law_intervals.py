"""The intervals: what they draw, and how often they hold the truth."""

import numpy as np

from benchmarks.scaling.fit.law_intervals import Band, bootstrap, draws, strata
from benchmarks.scaling.fit.selection import Sample
from benchmarks.scaling.fit.sensitivity import fitted
from benchmarks.scaling.validation.coverage import compute_design, coverage
from tests.benchmarks.scaling.tables import rows, runs


def test_a_training_is_drawn_with_all_its_rows() -> None:
    clusters = np.repeat(np.arange(12), 3)
    flops = np.tile([1e9, 1e10, 1e11], 12) * np.repeat(np.logspace(0, 2, 12), 3)
    weights = draws(clusters, flops, resamples=50, seed=0)
    assert weights.shape == (50, 36)
    assert (weights.reshape(50, 12, 3) == weights.reshape(50, 12, 3)[:, :, :1]).all()
    assert (weights.sum(1) == 36).all()
    # six cheap trainings and six expensive ones are in every draw
    assert (weights[:, :18].sum(1) == 18).all()
    assert weights[:, :18].std() > 0.5


def test_strata_keep_a_budget_together() -> None:
    logs = np.log(np.repeat([1e9, 1e10, 1e11], [4, 5, 7]))
    found = strata(logs, fewest=6)
    assert [len(one) for one in found] == [9, 7]
    assert sorted(np.concatenate(found)) == list(range(16))
    assert len(strata(logs[:3])) == 1


def test_the_interval_of_95_percent_holds_the_truth_as_often() -> None:
    found = coverage(compute_design(16), sets=40, resamples=100)
    assert found.keys() == {"E", "a_C", "curve", "run", "run, 80 %"}
    assert 0.90 <= np.mean([found[x] for x in ("E", "a_C", "curve", "run")]) <= 0.98
    assert 0.65 <= found["run, 80 %"] <= 0.95


def test_a_new_run_spreads_more_than_the_law() -> None:
    sample = Sample.of(runs(rows()), ("params", "pairs"))
    found = bootstrap(fitted(sample, most=4), sample, resamples=200, noise=(0.02, 100))
    x = sample.x[-1:]
    curve, run = found.curve(x)[0], found.predict(x)[0]
    assert run.value == curve.value
    assert run.low95 < run.low80 < curve.low80 < curve.value < curve.high80 < run.high80
    assert (run.high95 - run.low95) / run.value > 3 * 0.02
    again = bootstrap(fitted(sample, most=4), sample, resamples=200, noise=(0.02, 100))
    assert again.predict(x)[0] == run


def test_a_band_leaves_out_what_is_not_finite() -> None:
    band = Band.of(1.0, np.array([np.nan, 0.0, 1.0, 2.0, np.inf]))
    assert band.low95 < 0.1 and band.high95 < 2.1
    assert band.holds(1.5) and not band.holds(1.99, 80) and not band.holds(2.5)
    assert np.isnan(Band.of(1.0, np.array([np.nan])).low95)
