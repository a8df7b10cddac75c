"""What a synthetic world's users are expected to spend in a window to come, given the truth.

The expectation is the mean over simulated windows: each event of a user lies in the window with
the window's share of the days, and then follows the laws of the world. With R windows its own
variance is 1/R of what no model can foresee.
"""

import numpy as np

from clue.synthetic.draws import draw_items, draw_rows
from clue.synthetic.spending import Spending
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
    items = item_topic, world.popularity.reshape(item_topic.shape)
    total = np.zeros(config.users)
    for _ in range(rounds):
        in_window = rng.binomial(counts, window)
        total += log_spend(rng, config, items, world.spending, latents, in_window, window)
    return total / rounds


def log_spend(
    rng: np.random.Generator,
    config: SyntheticConfig,
    items: tuple[np.ndarray, np.ndarray],
    spending: Spending,
    latents: tuple[np.ndarray, np.ndarray],
    in_window: np.ndarray,
    window: float,
) -> np.ndarray:
    """Return log(1 + what each of n users buys) (n,) in one simulated window.

    `items` are the topics and the weights of those of each service, both (S, I); `latents` as
    above, and `in_window` (n, S) counts the users' events in the window.
    """
    users = len(in_window)
    pair = np.repeat(np.arange(in_window.size), in_window.ravel())
    user, service = np.divmod(pair, len(config.services))
    moment = 1 - window * rng.random(len(user))
    rows = np.where(rng.random(len(user)) < moment, user + users, user)
    topic = draw_rows(rng, np.concatenate(latents), rows)
    item = np.empty(len(user), np.int64)
    for number, (its_topics, its_weights) in enumerate(zip(*items, strict=True)):
        here = service == number
        drawn = draw_items(rng, its_weights, its_topics, topic[here], config.noise)
        item[here] = drawn + number * len(its_topics)
    return np.log1p(np.bincount(user, spending.amounts(rng, user, item), users))
