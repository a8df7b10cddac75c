"""Every probe reads what is there and nothing that is not; what it chooses it chooses on valid."""

# pyright: standard

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks.baselines import probes
from benchmarks.baselines.network_probe import mlp
from benchmarks.baselines.probes import Target, predict, ridge
from benchmarks.metrics.bootstrap import auroc_of, interval, r2_of
from benchmarks.protocols import Probe


def people(seed: int, target: Target, *, told: bool) -> tuple[np.ndarray, np.ndarray]:
    """1,200 users of 12 features, the first of which tell the label, or nothing does."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1200, 12))
    number = rng.normal(size=(1200, 3))
    y = {
        "class": (number[:, 0] > 0).astype(int),
        "labels": (number > 0).astype(int),
        "number": number[:, 0],
    }[target]
    if told:
        x[:, :3] = number * 5
    return x, y


def predicted(probe: Probe, target: Target, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    parts = (x[:400], y[:400]), (x[400:800], y[400:800]), x[800:]
    return predict(probe, target, *parts).values


@pytest.mark.parametrize("target", ["class", "labels", "number"])
@pytest.mark.parametrize("probe", ["linear", "lightgbm", "mlp-32"])
def test_a_leaked_label_is_read_and_shuffled_ones_are_chance(
    monkeypatch: pytest.MonkeyPatch, probe: Probe, target: Target
) -> None:
    # Three epochs of 400 rows are twelve steps: too few for the network to learn what it is shown.
    monkeypatch.setattr(probes, "mlp", partial(mlp, epochs=20))
    for told in (True, False):
        x, y = people(1, target, told=told)
        found = predicted(probe, target, x, y)
        assert np.isfinite(found).all()
        if target == "number":
            r2 = interval(r2_of(found, y[800:]), np.arange(400), resamples=200)
            assert r2.value > 0.9 if told else r2.low < 0
            continue
        if target == "class":
            assert found.sum(1) == pytest.approx(np.ones(400))
            found, y = found[:, [1]], y[:, None]
        assert found.shape == (400, y.shape[1])
        for scores, label in zip(found.T, y[800:].T, strict=True):
            area = interval(auroc_of(scores, label > 0), np.arange(400), resamples=500)
            assert area.value > 0.98 if told else area.low < 0.5 < area.high


def test_linear_of_a_number_equals_ridge_at_the_alpha_of_the_least_valid_error() -> None:
    x, y = people(2, "number", told=False)
    y = y + x[:, 4]
    mean, spread = x[:400].mean(0), x[:400].std(0)
    z = (x - mean) / spread
    fits = {a: Ridge(alpha=a).fit(z[:400], y[:400]) for a in probes.ALPHAS}
    error = {a: ((f.predict(z[400:800]) - y[400:800]) ** 2).mean() for a, f in fits.items()}
    best = min(error, key=error.__getitem__)
    found = ridge((x[:400], y[:400]), (x[400:800], y[400:800]), x[800:])
    assert found.chosen == {"alpha": best}
    assert found.values == pytest.approx(fits[best].predict(z[800:]))


def test_a_ridge_of_single_precision_vectors_that_hardly_vary_is_solved_in_double() -> None:
    x, y = people(10, "number", told=False)
    x = (x[:, :2] @ np.ones((2, 12)) + 1e-3 * x).astype(np.float32)
    one, two = (
        ridge((f[:400], y[:400]), (f[400:800], y[400:800]), f[800:]).values
        for f in (x, x.astype(np.float64))
    )
    assert one.dtype == np.float64
    assert np.array_equal(one, two)


def test_linear_of_a_class_equals_scikit_learn_at_the_c_that_it_chose() -> None:
    x, y = people(3, "class", told=False)
    x[:, 0] += y
    parts = (x[:400], y[:400]), (x[400:800], y[400:800]), x[800:]
    found = predict("linear", "class", *parts)
    z = (x - x[:400].mean(0)) / x[:400].std(0)
    fit = LogisticRegression(C=found.chosen["C"], tol=1e-6, max_iter=2000).fit(z[:400], y[:400])
    assert found.values == pytest.approx(fit.predict_proba(z[800:]), abs=5e-3)


def test_each_probe_reads_several_classes() -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 4, 1200)
    x = rng.normal(size=(1200, 6))
    x[:, :4] += 6 * np.eye(4)[y]
    for probe in ("linear", "lightgbm", "mlp-32"):
        found = predicted(probe, "class", x, y)
        assert found.shape == (400, 4)
        assert (found.argmax(1) == y[800:]).mean() > 0.9


@pytest.mark.parametrize("probe", ["forest", "mlp-wide"])
def test_an_unknown_probe_is_refused(probe: Probe) -> None:
    x, y = people(9, "class", told=True)
    with pytest.raises(ValueError, match=f"no probe '{probe}'; there are linear, lightgbm and mlp"):
        predicted(probe, "class", x, y)


@pytest.mark.parametrize("target", ["class", "labels", "number"])
def test_a_vector_of_one_block_is_read_as_without_blocks(target: Target) -> None:
    x, y = people(11, target, told=True)
    parts = (x[:400], y[:400]), (x[400:800], y[400:800]), x[800:]
    one = predict("linear", target, *parts)
    two = predict("linear", target, *parts, blocks={"vector": slice(0, 12)})
    assert np.array_equal(one.values, two.values) and one.chosen == two.chosen
    assert "factors" not in one.chosen
