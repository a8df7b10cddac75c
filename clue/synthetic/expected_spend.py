"""What a synthetic world's users are expected to spend in a window to come, given the truth.

The expectation is the mean over simulated windows: each event of a user lies in the window with
the window's share of the days, and then follows the laws of the world. With R windows its own
variance is 1/R of what no model can foresee.
"""

import numpy as np

from clue.synthetic.draws import draw_items, draw_rows
from clue.synthetic.world import SyntheticConfig, World


def expected_log_spend(
    rng: np.random.Generator,
    config: SyntheticConfig,
    world: World,
    latents: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
    window: float,
    rounds: int,
) -> np.ndarray:
    """Return E[log(1 + what a user buys in the window)] of every user (N,), if none stops.

    `latents` are the shares of topics on the first and the last day, both (N, Q), `counts` (N, S)
    the users' events over all days, `window` the last share of the days.
    """
    item_topic = world.items["topic"].to_numpy().reshape(len(config.services), -1)
    weights = world.popularity.reshape(item_topic.shape)
    shares = np.concatenate(latents)
    total = np.zeros(config.users)
    for _ in range(rounds):
        in_window = rng.binomial(counts, window)
        pair = np.repeat(np.arange(in_window.size), in_window.ravel())
        user, service = np.divmod(pair, len(config.services))
        moment = 1 - window * rng.random(len(user))
        rows = np.where(rng.random(len(user)) < moment, user + config.users, user)
        topic = draw_rows(rng, shares, rows)
        item = np.empty(len(user), np.int64)
        for number, (its_weights, its_topics) in enumerate(zip(weights, item_topic, strict=True)):
            here = service == number
            drawn = draw_items(rng, its_weights, its_topics, topic[here], config.noise)
            item[here] = drawn + number * config.items_per_service
        amounts = world.spending.amounts(rng, user, item)
        total += np.log1p(np.bincount(user, amounts, config.users))
    return total / rounds
