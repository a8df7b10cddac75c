"""The expected spend is the mean of what is spent, and is known by hand where all cost the same."""

import numpy as np
from scipy.stats import binom

from clue.synthetic.expected_spend import expected_log_spend
from clue.synthetic.labels import shares_of
from clue.synthetic.spending import MEDIAN_PRICE, SpendingConfig
from clue.synthetic.world import SyntheticConfig, World, make_world


def expected(config: SyntheticConfig, world: World, counts: np.ndarray, seed: int) -> np.ndarray:
    ends = (shares_of(world.users, "first_latents"), shares_of(world.users, "latents"))
    rng = np.random.default_rng(seed)
    return expected_log_spend(rng, config, world, ends, counts, window=0.2, rounds=300)


def test_where_all_cost_the_same_it_is_that_of_a_binomial_count() -> None:
    fixed = SpendingConfig(price=0, level=0, noise=0)
    config = SyntheticConfig(users=400, items_per_service=60, spending=fixed)
    world = make_world(config)
    counts = np.random.default_rng(0).integers(0, 12, (400, 3))
    totals = counts.sum(axis=1)
    n = np.arange(40)
    exact = (binom.pmf(n, totals[:, None], 0.2) * np.log1p(MEDIAN_PRICE * n)).sum(axis=1)
    error = expected(config, world, counts, seed=1) - exact
    assert np.abs(error).max() < 0.35 and abs(error.mean()) < 0.02  # one window's sd is 1.3
    assert np.allclose(expected(config, world, 0 * counts, seed=1), 0)


def test_it_rises_with_the_level_of_a_user_and_not_with_anothers() -> None:
    config = SyntheticConfig(users=1500, items_per_service=60)
    world = make_world(config)
    counts = np.full((1500, 3), 10)
    found = expected(config, world, counts, seed=2)
    level = np.log(world.spending.level)
    assert np.corrcoef(found, level)[0, 1] > 0.95
    assert abs(np.corrcoef(found, np.random.default_rng(0).permutation(level))[0, 1]) < 0.1
