"""A block of noise costs next to nothing, a small block beside a wide one is read, by the closed
form that scikit-learn's ridge has at the penalties that were chosen."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.baselines.block_penalties import (
    ALPHAS,
    FACTORS,
    NormalEquations,
    Penalties,
    search,
    search_rows,
)
from benchmarks.baselines.probes import Target, linear, predict
from benchmarks.metrics.bootstrap import auroc_of, r2_of

TRAIN, VALID, TEST = 2000, 500, 4000
ONE = np.ones((1, TEST))


def users(target: Target, seed: int, signal: list[tuple[int, float]]) -> tuple[np.ndarray, Any]:
    """Return users' blocks of given widths and strengths side by side, and what they tell."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(TRAIN + VALID + TEST, sum(width for width, _ in signal)))
    weight = np.concatenate([rng.normal(size=w) * s / max(w, 1) ** 0.5 for w, s in signal])
    y = x @ weight + rng.normal(size=len(x))
    if target == "number":
        return x, y
    if target == "class":
        return x, (y > 0).astype(np.int64)
    return x, np.stack([y > 0, y > 1], axis=1).astype(np.int64)


def score(target: Target, x: np.ndarray, y: np.ndarray, blocks: dict[str, slice]) -> float:
    """Return the mean AUROC, or the R2, of the linear probe on the test users."""
    edges = TRAIN, TRAIN + VALID
    parts = (x[: edges[0]], y[: edges[0]]), (x[edges[0] : edges[1]], y[edges[0] : edges[1]])
    values = linear(*parts, x[edges[1] :], target, blocks).values
    truth = y[edges[1] :]
    if target == "number":
        return float(r2_of(values, truth)(ONE)[0])
    if target == "class":
        values, truth = values[:, 1:], truth[:, None]
    pairs = zip(values.T, truth.T, strict=True)
    return float(np.mean([auroc_of(v, label > 0)(ONE)[0] for v, label in pairs]))


@pytest.mark.parametrize("target", ["class", "labels", "number"])
def test_noise_beside_an_informative_block_costs_next_to_nothing(target: Target) -> None:
    lost: list[tuple[float, float]] = []
    for seed in range(2):
        x, y = users(target, seed, [(8, 0.5), (256, 0.0)])
        alone = score(target, x[:, :8], y, {"vector": slice(0, 8)})
        one = score(target, x, y, {"vector": slice(0, 264)})
        blocks = score(target, x, y, {"told": slice(0, 8), "noise": slice(8, 264)})
        lost.append((alone - one, alone - blocks))
    single, separate = np.array(lost).T
    assert len(lost) == 2 and separate.max() < 0.003
    assert single.min() > 0.01


@pytest.mark.parametrize("target", ["class", "number"])
def test_a_signal_split_over_blocks_of_different_scale_is_found(target: Target) -> None:
    x, y = users(target, 5, [(4, 0.7), (60, 0.7), (400, 0.0)])
    blocks = {"few": slice(0, 4), "many": slice(4, 64), "noise": slice(64, 464)}
    scale = np.concatenate([np.full(4, 1e3), np.full(60, 1e-3), np.ones(400)])
    both = score(target, x * scale, y, blocks)
    alone = [score(target, x[:, c], y, {"vector": slice(None)}) for c in blocks.values()]
    assert both > max(alone) + 0.02
    assert both > score(target, x, y, {"vector": slice(None)}) + 0.005
    train, valid = ((x[part], y[part]) for part in (slice(TRAIN), slice(TRAIN, TRAIN + VALID)))
    shuffled = np.random.default_rng(0).permutation(y)
    found = predict("linear", target, train, valid, x, blocks=blocks)
    chosen = found.chosen["factors"]
    assert chosen["noise"] < chosen["many"] <= chosen["few"]
    nothing = score(target, x, shuffled, blocks)
    assert abs(nothing - (0.5 if target == "class" else 0)) < 0.03


def test_the_weights_equal_ridge_on_scaled_columns() -> None:
    x, y = users("number", 1, [(5, 0.5), (9, 0.5), (7, 0.0)])
    blocks = {"a": slice(0, 5), "b": slice(5, 14), "c": slice(14, 21)}
    x -= x[:TRAIN].mean(0)
    y = (y - y[:TRAIN].mean())[:, None]
    parts = (x[:TRAIN], y[:TRAIN]), (x[TRAIN : TRAIN + VALID], y[TRAIN : TRAIN + VALID])
    equations = NormalEquations(*parts, blocks)
    chosen = search(equations)
    asked = Penalties(chosen.alpha, {"a": 3.0, "b": 0.1, "c": 0.0})
    for penalties in (chosen, asked):
        factor = penalties.of_columns(blocks, 21)
        fit = Ridge(alpha=penalties.alpha).fit(x[:TRAIN] * factor, y[:TRAIN])
        assert equations.weights(penalties)[:, 0] == pytest.approx(fit.coef_.ravel() * factor)
    assert equations.loss(chosen) <= equations.loss(asked)
    single = [Penalties(alpha, dict.fromkeys(blocks, 1.0)) for alpha in ALPHAS]
    assert equations.loss(chosen) <= min(map(equations.loss, single))
    assert set(chosen.factors.values()) <= set(FACTORS)


def test_the_loss_is_the_error_on_rows_that_are_not_fitted_on_and_the_price_of_blocks() -> None:
    x, y = users("number", 2, [(5, 0.5), (9, 0.5)])
    blocks = {"a": slice(0, 5), "b": slice(5, 14)}
    x, y = x - x[:TRAIN].mean(0), (y - y[:TRAIN].mean())[:, None]
    parts = (x[:TRAIN], y[:TRAIN]), (x[TRAIN : TRAIN + VALID], y[TRAIN : TRAIN + VALID])
    penalties = Penalties(10.0, {"a": 1.0, "b": 0.0})
    fold = np.random.default_rng(0).permutation(TRAIN) % 3
    errors: list[np.ndarray] = []
    for number in range(4):
        other = fold == number
        fit = Ridge(alpha=10.0, fit_intercept=False).fit(x[:TRAIN, :5][~other], y[:TRAIN][~other])
        held = (x[:TRAIN][other], y[:TRAIN][other]) if number < 3 else parts[1]
        errors.append((fit.predict(held[0][:, :5]).reshape(-1) - held[1][:, 0]) ** 2)
    each = np.concatenate(errors)
    assert len(each) == TRAIN + VALID
    expected = each.mean() * (1 + 3 / (TRAIN + VALID))
    assert NormalEquations(*parts, blocks).loss(penalties) == pytest.approx(expected)


def test_of_many_rows_a_fixed_part_is_read() -> None:
    assert np.array_equal(search_rows(7), np.arange(7))
    rows = search_rows(50_000)
    assert len(np.unique(rows)) == 20_000 and np.array_equal(rows, search_rows(50_000))
