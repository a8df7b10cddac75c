"""What a log tells of a synthetic world's users: draws of their latents given what they did.

The oracle of oracle.py knows the latents themselves, which no log of finite length tells. Here they
are drawn from their posterior under the laws of the world, given a history, and the answers are the
means over the draws: what is best for a model that reads the log, were it told the laws.

Gibbs sampling (Geman & Geman 1984): which of the first latents, those drifted to, and popularity
alone an event follows is drawn given the latents, and those, Dirichlet both, given the counts of
topics (Griffiths & Steyvers 2004, "Finding scientific topics", does the same of words).

n users, Q topics of I interests, S draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm

from benchmarks.baselines.oracle import Oracle
from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot
from clue.data.ragged import Ragged
from clue.synthetic.expected_spend import log_spend
from clue.synthetic.labels import attribute_probability, stop_probability
from clue.synthetic.spending import Spending
from clue.synthetic.world import SyntheticConfig, concentrations

LOG_ORACLE = "oracle of the log"
DRAWS = 60
BURN_IN, BETWEEN = 30, 3  # rounds before the first draw, and from one to the next


@dataclass(frozen=True)
class Draws:
    """Latents on the first and on the last day, both float32 (S, n, Q)."""

    first: np.ndarray
    last: np.ndarray

    def at(self, moments: np.ndarray | float) -> np.ndarray:
        """Return the posterior mean (n, Q) at `moments`, one for all or (n, 1)."""
        return (1 - moments) * self.first.mean(0) + moments * self.last.mean(0)


def posterior(truth: Oracle, items: Ragged, times: Ragged, count: int, seed: int) -> Draws:
    """Return `count` draws of the latents of n users who met `items` of the corpus at `times`."""
    world = truth.config.world
    rng = np.random.default_rng(seed)
    users, topics = len(items), truth.first.shape[1]
    row = np.repeat(np.arange(users), items.lengths)
    topic = truth.topic[items.values]
    service = truth.corpus.item_service[items.values]
    of_topic = np.bincount(truth.corpus.item_service * topics + truth.topic, truth.popularity)[
        service * topics + topic
    ]
    of_service = np.bincount(truth.corpus.item_service, truth.popularity)[service]
    drifted = world.drift * truth.config.moments(times.values)
    shares = np.full((2, users, topics), 1 / topics)
    weight = np.stack([(1 - drifted) / of_topic, drifted / of_topic]) * (1 - world.noise)
    chance = world.noise / of_service
    first = np.empty((count, users, topics), np.float32)
    last = np.empty_like(first)
    for step in range(BURN_IN + BETWEEN * (count - 1) + 1):
        own, other = weight * shares[:, row, topic]
        point = rng.random(len(row)) * (own + other + chance)
        for number, chosen in enumerate((point < own, (point >= own) & (point < own + other))):
            counts = np.bincount(row[chosen] * topics + topic[chosen], minlength=users * topics)
            shares[number] = _shares(rng, counts.reshape(users, world.interests, -1), world)
        if step >= BURN_IN and not (step - BURN_IN) % BETWEEN:
            at = (step - BURN_IN) // BETWEEN
            first[at] = shares[0]
            last[at] = (1 - world.drift) * shares[0] + world.drift * shares[1]
    return Draws(first, last)


def _shares(rng: np.random.Generator, counts: np.ndarray, world: SyntheticConfig) -> np.ndarray:
    """Return shares (n, Q) of topics, given the counts (n, I, Q / I) of those drawn from them."""
    if not world.nested:
        each = counts.reshape(len(counts), -1)
        each = rng.standard_gamma(concentrations(world, each.shape[1]) + each) + 1e-300
        return each / each.sum(1, keepdims=True)
    of_interest, of_topic = (concentrations(world, size) for size in counts.shape[1:])
    interest = rng.standard_gamma(of_interest + counts.sum(2)) + 1e-300
    within = rng.standard_gamma(of_topic + counts) + 1e-300
    each = (interest / interest.sum(1, keepdims=True))[:, :, None]
    each = each * within / within.sum(2, keepdims=True)
    return each.reshape(len(counts), -1)


def totals(world: SyntheticConfig, most: int) -> np.ndarray:
    """Return the law (most + 1,) of how many events a user has in a service on all days."""
    middle = np.log(world.mean_events) - world.activity**2 / 2
    # rounded to a whole number, and at least 1 where the service is used at all
    at_most = norm.cdf(np.log(np.arange(1, most + 1) + 0.5), middle, max(world.activity, 1e-9))
    return np.concatenate([[world.absent], (1 - world.absent) * np.diff(at_most, prepend=0.0)])


def to_come(
    world: SyntheticConfig, window: float, counts: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return how many events n users will have in a window, (draws, n, S), given `counts` (n, S).

    Each of a user's events lies in the window with its share of the days, and `counts` are those
    before it. Of the law of the total this reads each service's alone, not that a user who does
    much in one does more in another.
    """
    most = int(4 * counts.max(initial=1) + 4 * world.mean_events)
    total = np.arange(most + 1)
    law = totals(world, most)
    drawn = np.empty((draws, *counts.shape), np.int64)
    for before in np.unique(counts):
        given = law * binom.pmf(before, total, 1 - window)
        here = counts == before
        size = (draws, int(here.sum()))
        drawn[:, here] = rng.choice(total, size, p=given / given.sum()) - before
    return drawn


class LogOracle:
    """The oracle that reads a log: its answers to each of the world's questions.

    It knows the laws and all of the items, and of a user what a model may read.
    """

    name, seed, similarity = LOG_ORACLE, 0, slice(None)

    def __init__(self, truth: Oracle) -> None:
        """Read nothing more."""
        self.truth, self.fingerprint = truth, f"posterior-{DRAWS}-{truth.fingerprint}"

    @property
    def blocks(self) -> Mapping[str, slice]:
        """One, the whole vector."""
        return one_block(self.truth.first.shape[1] + 1)

    def draws(self, past: Snapshot) -> Draws:
        """Return draws of the latents of users with such pasts."""
        items, times = Ragged.merge_by_time(past.parts)
        return posterior(self.truth, items, times, DRAWS, seed=0)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return (n, Q + 1), the mean latents at `past.cutoff` and a 1, as `TrueLatents` does."""
        moments = self.truth.config.moments(past.cutoff)[:, None]
        return np.concatenate([self.draws(past).at(moments), np.ones((len(past), 1))], axis=1)

    def items(self) -> np.ndarray:
        """Return the items' vectors (I, Q + 1)."""
        return self.truth.item_vectors()

    def attributes(self, past: Snapshot) -> np.ndarray:
        """Return the probabilities (n, C) of the classes of the attribute."""
        draws, config = self.draws(past), self.truth.config
        each = [
            attribute_probability(config, (first + last) / 2)
            for first, last in zip(draws.first, draws.last, strict=True)
        ]
        return np.mean(each, axis=0)

    def churn(self, past: Snapshot) -> np.ndarray:
        """Return the probabilities (n, 2) of staying and of stopping, of pasts before the window.

        How many events a user has on all days is what they had by then, by the days.
        """
        draws, config = self.draws(past), self.truth.config
        counts = np.stack([items.lengths for items, _ in past.parts], axis=1) / (1 - config.window)
        counts[~counts.any(1), 0] = 1  # of whom nothing is known
        at = 1 - config.window
        each = [
            stop_probability(config, counts, (1 - at) * first + at * last)
            for first, last in zip(draws.first, draws.last, strict=True)
        ]
        stops = np.mean(each, axis=0)
        return np.stack([1 - stops, stops], axis=1)

    def spend(self, past: Snapshot) -> np.ndarray:
        """Return E[log(1 + what is bought in the window)] (n,) of pasts before it.

        The log of an amount is normal about that of the item's price and of the user's level,
        whose own is normal about 0: its posterior is normal too.
        """
        config, rng = self.truth.config, np.random.default_rng(1)
        world, law = config.world, config.world.spending
        table = self.truth.table("items")
        price = table["price"].to_numpy()
        shape = len(world.services), -1
        items = tuple(table[name].to_numpy().reshape(shape) for name in ("topic", "popularity"))
        prices = price[self.truth.rows(table["item_id"], self.truth.corpus.item_ids)]
        above, seen = np.zeros(len(past)), np.zeros(len(past))
        for (events, _), fields in zip(past.parts, past.amounts, strict=True):
            row = np.repeat(np.arange(len(past)), events.lengths)
            over = np.log(fields["amount"].values / prices[events.values])
            above += np.bincount(row, over, len(past))
            seen += events.lengths
        precision = 1 / law.level**2 + seen / law.noise**2
        draws = self.draws(past)
        counts = np.stack([events.lengths for events, _ in past.parts], axis=1)
        coming = to_come(world, config.window, counts, len(draws.first), rng)
        total = np.zeros(len(past))
        for first, last, in_window in zip(draws.first, draws.last, coming, strict=True):
            error = rng.standard_normal(len(past)) / np.sqrt(precision)
            level = np.exp(above / law.noise**2 / precision + error)
            spending = Spending(law, price, level, np.empty((0, 0)))
            total += log_spend(rng, world, items, spending, (first, last), in_window, config.window)
        stays = self.churn(past)[:, 0]
        return stays * total / len(draws.first)
