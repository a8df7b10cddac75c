"""Amounts and channels follow their laws: a user's level times an item's price, a user's taste."""

import numpy as np
import pytest

from clue.config import load
from clue.synthetic.spending import MEDIAN_PRICE, SpendingConfig, draw_spending

CONFIG = SpendingConfig()


def test_an_amount_is_level_times_price_times_a_factor() -> None:
    rng = np.random.default_rng(0)
    spending = draw_spending(rng, CONFIG, users=2000, items=3000)
    user, item = rng.integers(2000, size=100_000), rng.integers(3000, size=100_000)
    amounts = spending.amounts(rng, user, item)
    factor = np.log(amounts) - np.log(spending.level[user]) - np.log(spending.price[item])
    assert abs(factor.mean()) < 0.006 and abs(factor.std() - CONFIG.noise) < 0.004
    for values, sigma in (
        (np.log(spending.level), CONFIG.level),
        (np.log(spending.price / MEDIAN_PRICE), CONFIG.price),
    ):
        assert abs(values.mean()) < 4 * sigma / np.sqrt(len(values))
        assert abs(values.std() / sigma - 1) < 0.07
    # The level is the user's alone: with another's, the amounts say nothing of it.
    logs = np.log(amounts)
    assert np.corrcoef(logs, np.log(spending.level)[user])[0, 1] > 0.6
    assert abs(np.corrcoef(logs, np.log(rng.permutation(spending.level))[user])[0, 1]) < 0.1


def test_channels_follow_each_users_shares() -> None:
    rng = np.random.default_rng(0)
    spending = draw_spending(rng, CONFIG, users=40, items=1)
    user = np.repeat(np.arange(40), 5000)
    channels = spending.channels(rng, user).reshape(40, 5000)
    for number, name in enumerate(CONFIG.channels):
        error = (channels == name).mean(axis=1) - spending.channel_shares[:, number]
        assert np.abs(error).max() < 0.03  # 4 standard errors
    shares = draw_spending(rng, CONFIG, users=5000, items=1).channel_shares
    # The variance of a share of a symmetric Dirichlet law over C channels.
    of_channels = len(CONFIG.channels)
    variance = (1 - 1 / of_channels) / of_channels / (of_channels * CONFIG.loyalty + 1)
    assert abs(shares.var() / variance - 1) < 0.04


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("noise=-1", "noise=-1.0 must be at least 0"),
        ("loyalty=0", "loyalty=0.0 above"),
        ("channels=[]", "name at least one, each once"),
        ("channels=[web, web]", "name at least one, each once"),
    ],
)
def test_laws_that_cannot_be_are_refused(change: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load(SpendingConfig, None, [change])
