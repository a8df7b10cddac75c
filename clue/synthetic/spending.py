"""What the events of a synthetic world cost, and by which channel they come.

These laws draw from generators of their own, so that the world they are added to stays what it is.

Shapes: N users, I items, C channels, E events.
"""

from dataclasses import dataclass, field

import numpy as np

from clue.synthetic.draws import draw_rows

MEDIAN_PRICE = 10.0


@dataclass(frozen=True, kw_only=True)
class SpendingConfig:
    """What events cost and by which of the `channels` they come.

    The logs of an item's price, of a user's level and of what an event adds are normal, with the
    standard deviations `price`, `level` and `noise`; an amount is the product of the three. A
    user's shares of the channels are Dirichlet of concentration `loyalty`: smaller is more loyal.
    """

    price: float = 0.7
    level: float = 0.8
    noise: float = 0.4
    channels: list[str] = field(default_factory=lambda: ["web", "app", "store"])
    loyalty: float = 0.5

    def __post_init__(self) -> None:
        """Validate that amounts and channels can be drawn."""
        if min(self.price, self.level, self.noise) < 0 or self.loyalty <= 0:
            raise ValueError(
                f"price={self.price}, level={self.level}, noise={self.noise} must be at least 0 "
                f"and loyalty={self.loyalty} above"
            )
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels={self.channels}: name at least one, each once")


@dataclass(frozen=True)
class Spending:
    """The truth: prices (I,), levels (N,) and shares of the channels (N, C)."""

    config: SpendingConfig
    price: np.ndarray
    level: np.ndarray
    channel_shares: np.ndarray

    def amounts(self, rng: np.random.Generator, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return what events of users and items, both (E,), cost."""
        factor = np.exp(self.config.noise * rng.standard_normal(len(user)))
        return self.level[user] * self.price[item] * factor

    def channels(self, rng: np.random.Generator, user: np.ndarray) -> np.ndarray:
        """Return the names of the channels by which events of users (E,) come."""
        return np.array(self.config.channels)[self.channel_codes(rng, user)]

    def channel_codes(self, rng: np.random.Generator, user: np.ndarray) -> np.ndarray:
        """Return the numbers of those channels, int64 (E,)."""
        return draw_rows(rng, self.channel_shares, user)


def draw_spending(
    rng: np.random.Generator, config: SpendingConfig, users: int, items: int
) -> Spending:
    """Return the prices of so many items, and the levels and preferences of so many users."""
    return Spending(
        config,
        MEDIAN_PRICE * np.exp(config.price * rng.standard_normal(items)),
        np.exp(config.level * rng.standard_normal(users)),
        rng.dirichlet(np.full(len(config.channels), config.loyalty), users),
    )
