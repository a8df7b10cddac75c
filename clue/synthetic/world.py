"""A synthetic world: users whose hidden interests drive what they do in several services.

Every interest has sub-topics, every sub-topic has items in every service, and no two services speak
of an interest in the same words, so vectors of one user from two services can agree only through
what users do. The truth is returned beside the logs.

Shapes: N users, S services, Q = interests * sub-topics topics, E events.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue.config import run_command
from clue.synthetic.draws import draw_items, draw_rows
from clue.synthetic.spending import Spending, SpendingConfig, draw_spending
from clue.synthetic.titles import FORMS, Words, make_titles, read_words

HELP = """Writes a synthetic world: events.parquet, items.parquet and its truth, users.parquet.

    python -m clue.synthetic.world users=20000 out=data/synthetic"""

EPOCH = 1_700_000_000  # the first second of the log
SPENDING = 11  # with the seed, the generator of amounts and channels


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """The size and the laws of a world.

    `mean_events` is the mean of a user's events in a service in use, `activity` the sigma of
    their lognormal law, `absent` the chance that a service is not used. `drift` is the share
    of a user's interests replaced from the first day to the last, `noise` the share of events that
    follow popularity alone; popularity is rank to the power of -`popularity`. `focus` is the
    concentration of the Dirichlet laws over interests and over sub-topics: smaller is narrower;
    with `skew` it is that of the mean one, and in proportion to rank to the power of -`skew`, so
    that some are common and some rare. Without `nested` there is one Dirichlet law over all topics:
    sub-topics of an interest then have no more to do with each other than with others.
    `spending` has the laws of amounts and channels; the rest of the world does not depend on them.
    """

    users: int = 4000  # How many users.
    services: list[str] = field(default_factory=lambda: ["shop", "news", "films"])
    items_per_service: int = 1200  # Items of each service.
    interests: int = 8  # Interests Q of the world; a user has shares of them.
    mean_events: float = 20.0
    activity: float = 0.8
    absent: float = 0.15
    drift: float = 0.3
    noise: float = 0.1
    popularity: float = 0.8
    focus: float = 0.3
    nested: bool = True  # Sub-topics are chosen inside an interest.
    skew: float = 0.0  # How unequal interests are, and the sub-topics of each; 0: all alike.
    days: int = 180  # Days that the logs span.
    spending: SpendingConfig = field(default_factory=SpendingConfig)
    seed: int = 0  # Of the world and its users.
    out: Path = Path("data/synthetic")  # The directory of the logs.


@dataclass(frozen=True)
class World:
    """The logs and, beside them, their truth.

    `events`: user_id, service, item_id, timestamp (epoch seconds), amount, channel, in order of
    time. `items`: service, item_id, title, and the truth: category (the interest), topic
    (0 .. Q-1), price. `users`: user_id, and the truth: interest (the number of the main one on the
    last day), category (its name), latents and first_latents (lists of Q shares, on the last and on
    the first day), spend_level, channel_shares (a list, as in `spending.channels`).
    `topics` names the Q topics, "interest/sub-topic"; `popularity` (S * items_per_service,) is the
    weight by which each of `items` is drawn among those of its topic, or, as noise, of its service.
    """

    events: pa.Table
    items: pa.Table
    users: pa.Table
    topics: tuple[str, ...]
    popularity: np.ndarray
    spending: Spending


def make_world(config: SyntheticConfig) -> World:
    """Return the world of `config`; the same config always gives the same one.

    Raises ValueError for a config that no world can follow.
    """
    check(config)
    rng = np.random.default_rng(config.seed)
    words = dict(list(read_words().items())[: config.interests])
    topics = tuple(f"{interest}/{sub}" for interest, subs in words.items() for sub in subs)
    first, last = draw_latents(rng, config, len(topics))
    user, service, moment = draw_activity(rng, config)
    # A user's interests move in a straight line, so an event follows the first or the last ones.
    rows = np.where(rng.random(len(user)) < moment, user + config.users, user)
    topic = draw_rows(rng, np.concatenate([first, last]), rows)
    item_topic = [topics_of_items(rng, config, len(topics)) for _ in config.services]
    item = np.empty(len(user), dtype=np.int64)
    weights: list[np.ndarray] = []
    for number, its_topics in enumerate(item_topic):
        here = service == number
        weights.append((rng.permutation(len(its_topics)) + 1.0) ** -config.popularity)
        drawn = draw_items(rng, weights[-1], its_topics, topic[here], config.noise)
        item[here] = drawn + number * config.items_per_service
    items = items_table(rng, config, words, topics, np.concatenate(item_topic))
    user_ids = pa.array([f"u{n:07d}" for n in range(config.users)])
    order = np.argsort(moment, kind="stable")
    user, item = user[order], item[order]
    beside = np.random.default_rng([config.seed, SPENDING])
    spending = draw_spending(beside, config.spending, config.users, items.num_rows)
    events = pa.table(
        {
            "user_id": user_ids.take(pa.array(user)),
            "service": items["service"].combine_chunks().take(pa.array(item)),
            "item_id": items["item_id"].combine_chunks().take(pa.array(item)),
            "timestamp": EPOCH + (moment[order] * config.days * 86_400).astype(np.int64),
            "amount": spending.amounts(beside, user, item),
            "channel": spending.channels(beside, user),
        }
    )
    interest = last.reshape(config.users, config.interests, -1).sum(axis=2).argmax(axis=1)
    users = pa.table(
        {
            "user_id": user_ids,
            "interest": interest.astype(np.int32),
            "category": np.array(list(words))[interest],
            "latents": _lists(last),
            "first_latents": _lists(first),
            "spend_level": spending.level,
            "channel_shares": _lists(spending.channel_shares),
        }
    )
    items = items.append_column("price", pa.array(spending.price))
    return World(events, items, users, topics, np.concatenate(weights), spending)


def write_world(config: SyntheticConfig, directory: Path) -> World:
    """Write a world's three tables into `directory` as Parquet and return it."""
    world = make_world(config)
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("events", "items", "users"):
        pq.write_table(getattr(world, name), directory / f"{name}.parquet")
    return world


def check(config: SyntheticConfig) -> None:
    """Raise ValueError for a config that no world can follow."""
    words = read_words()
    topics = sum(len(subs) for subs in list(words.values())[: config.interests])
    unknown = [name for name in config.services if name not in FORMS]
    if unknown or len(set(config.services)) != len(config.services) or not config.services:
        raise ValueError(f"services={config.services}: choose from {', '.join(FORMS)}, each once")
    limits = {
        "users": (config.users, 1, 10**9),
        "interests": (config.interests, 1, len(words)),
        "items_per_service": (config.items_per_service, topics, 10**8),
        "mean_events": (config.mean_events, 1, 10**6),
        "absent": (config.absent, 0, 1),
        "drift": (config.drift, 0, 1),
        "noise": (config.noise, 0, 1),
        "days": (config.days, 1, 36_500),
    }
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise ValueError(f"{name}={value} must lie in [{least}, {most}]")
    if config.focus <= 0 or config.activity < 0:
        raise ValueError(f"focus={config.focus}, activity={config.activity}: must be positive")
    if not 0 <= config.skew <= 3:  # at 3 the rarest of 12 has a concentration of .002
        raise ValueError(f"skew={config.skew} must lie in [0, 3]")


def draw_latents(
    rng: np.random.Generator, config: SyntheticConfig, topics: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return every user's share of each topic on the first and the last day, both (N, Q)."""

    def draw() -> np.ndarray:
        if not config.nested:
            return rng.dirichlet(concentrations(config, topics), config.users)
        of_interest = rng.dirichlet(concentrations(config, config.interests), config.users)
        of_topic = rng.dirichlet(
            concentrations(config, topics // config.interests), (config.users, config.interests)
        )
        return (of_interest[:, :, None] * of_topic).reshape(config.users, topics)

    first = draw()
    return first, (1 - config.drift) * first + config.drift * draw()


def concentrations(config: SyntheticConfig, count: int) -> np.ndarray:
    """Return those of the Dirichlet law over `count` interests or sub-topics (count,)."""
    common = np.arange(1.0, count + 1) ** -config.skew
    return config.focus * common / common.mean()


def draw_activity(
    rng: np.random.Generator, config: SyntheticConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return user, service and moment in [0, 1) of every event, all (E,)."""
    shape = (config.users, len(config.services))
    sigma = config.activity
    # Two thirds of the variance belong to the user, one third to their taste for the service.
    spread = np.sqrt(2 / 3) * rng.standard_normal((config.users, 1))
    spread = sigma * (spread + np.sqrt(1 / 3) * rng.standard_normal(shape))
    counts = np.exp(np.log(config.mean_events) - sigma**2 / 2 + spread).round().clip(min=1)
    present = rng.random(shape) >= config.absent
    anywhere = rng.integers(shape[1], size=config.users)
    present[np.arange(config.users), anywhere] |= ~present.any(axis=1)
    flat = np.repeat(np.arange(present.size), (counts * present).astype(np.int64).ravel())
    return flat // shape[1], flat % shape[1], rng.random(len(flat))


def topics_of_items(rng: np.random.Generator, config: SyntheticConfig, topics: int) -> np.ndarray:
    """Return the topic of every item of a service, ascending; no topic is without an item."""
    rest = rng.integers(topics, size=config.items_per_service - topics)
    return np.sort(np.concatenate([np.arange(topics), rest]))


def items_table(
    rng: np.random.Generator,
    config: SyntheticConfig,
    words: Words,
    topics: tuple[str, ...],
    item_topic: np.ndarray,
) -> pa.Table:
    """Return the items of all services in the order of `item_topic`, (S * items_per_service,)."""
    size, interests = config.items_per_service, list(words)
    titles: list[str] = []
    parts = np.split(item_topic, len(config.services))
    for service, its_topics in zip(config.services, parts, strict=True):
        about: list[tuple[int, list[str]]] = []
        for topic in its_topics:
            interest, _, sub_topic = topics[topic].partition("/")
            about.append((interests.index(interest), words[interest][sub_topic][service]))
        titles += make_titles(rng, service, about)
    names = [f"{service}-{n:06d}" for service in config.services for n in range(size)]
    return pa.table(
        {
            "service": pa.array([name.split("-")[0] for name in names]),
            "item_id": pa.array(names),
            "title": pa.array(titles),
            "category": pa.array([topics[t].partition("/")[0] for t in item_topic]),
            "topic": pa.array(item_topic.astype(np.int32)),
        }
    )


def _lists(shares: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(
        pa.array(shares.astype(np.float32).ravel()), shares.shape[1]
    ).cast(pa.list_(pa.float32()))


def main() -> None:
    """Run the command line."""

    def report(config: SyntheticConfig) -> str:
        world = write_world(config, config.out)
        return (
            f"{config.out}: {world.events.num_rows:,} events of {config.users:,} users; "
            "next: clue prepare configs/prepare/synthetic.yaml\n"
        )

    sys.stdout.write(run_command(SyntheticConfig, report, description=HELP))


if __name__ == "__main__":
    main()
