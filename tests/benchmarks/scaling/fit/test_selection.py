"""Which runs a law is fitted on."""

import numpy as np

from benchmarks.scaling.fit.selection import (
    best_rates,
    budgets,
    edge_rates,
    frontier,
    largest,
    main_grid,
    one_factor,
)
from tests.benchmarks.scaling.tables import row, rows, runs


def test_budgets_are_ascending_groups() -> None:
    assert budgets(np.array([10.0, 1.0, 1.2, 11.0, 100.0])).tolist() == [1, 0, 0, 1, 2]


def test_the_frontier_is_what_nothing_cheaper_beats() -> None:
    found = frontier(runs(rows(noise=0.0)))
    order = np.argsort(found["flops"])
    losses = found["loss"][order]
    whole = runs(rows(noise=0.0))
    for flops, loss in zip(found["flops"], found["loss"], strict=True):
        assert not (whole["loss"][whole["flops"] < flops * 0.8] < loss).any()
    assert (np.diff(np.unique(losses)[::-1]) < 0).all() and len(np.unique(losses)) >= 10
    assert largest(found["flops"], found["loss"]) == losses.min()


def test_one_factor_varies_and_the_rest_is_held() -> None:
    axis = [row(48, 2**18, batch=batch) for batch in (64, 128, 512, 1024)]
    whole = runs([*rows(), *axis])
    found = one_factor(whole, "batch")
    assert sorted(found["batch"]) == [64, 128, 256, 512, 1024]
    assert set(found["params"]) == {24 * 48**2 + 4800} and set(found["pairs"]) == {2**18}
    equal = [row(48, 2**20, batch=1024), row(48, 2**17, batch=128)]
    held = ("params", "steps", "users", "max_events")
    steps = one_factor(runs([*rows(), *equal]), "batch", held)
    assert set(steps["steps"]) == {1024} and sorted(steps["batch"]) == [128, 256, 1024]
    sizes = one_factor(whole, "params")
    assert len(np.unique(sizes["params"])) == 6 and len(np.unique(sizes["pairs"])) == 1
    assert sizes["pairs"][0] == 2**20
    assert len(main_grid(whole)) == 50


def test_only_the_best_learning_rate_stays_and_edges_are_counted() -> None:
    tried = [row(64, 2**18, lr=lr, factor=f) for lr, f in ((1e-3, 1.1), (3e-3, 0.9), (9e-3, 1.2))]
    found = runs([*rows(), *tried])
    mine = best_rates(found)
    assert len(mine) == 50
    assert mine["lr"][(mine["params"] == 24 * 64**2 + 6400) & (mine["pairs"] == 2**18)] == 3e-3
    assert edge_rates(found) == 0
    assert edge_rates(runs([*rows(), tried[1]])) == 1
