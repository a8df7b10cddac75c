"""What becomes of a synthetic world's users, from known laws: who stops, who is what, who clicks.

Every outcome is drawn from a probability that is stored beside it, so the best score that any
model can reach on it is that of the probability itself. The world's log keeps every draw that it
has without outcomes: these come from generators of their own.

Shapes: N users, Q topics, E events, C classes of the attribute, M impressions.
"""

import sys
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue.config import run_command, to_yaml
from clue.synthetic.draws import draw_rows
from clue.synthetic.expected_spend import expected_log_spend
from clue.synthetic.world import EPOCH, SyntheticConfig, World, make_world

HELP = """Writes a synthetic world with outcomes whose probabilities are known.

    python -m clue.synthetic.labels world.users=5000 world.out=data/mini

events, items, users: the world of clue.synthetic.world, less the last events of those who stop;
pretrain_events: what pretraining may read; outcomes and impressions: what to predict."""


@dataclass(frozen=True, kw_only=True)
class OutcomesConfig:
    """The laws of the outcomes; `world` is the log's, and its `out` is where all is written.

    `window` is the last share of the days, in which users stop or do not, and are shown items.
    The logit of stopping is `stop` + `engagement` * (standardised log of a user's events in a
    service) + `interest` * (share of the world's first interest as the window opens). The logits
    of the `classes` are a user's mean latents times a normal matrix of scale `sharpness`. Who stays
    sees `impressions` items in the window, half of them drawn by interest and half uniformly;
    the logit of a click is `click` + `relevance` * log(Q * share of the item's topic + .1) + an
    effect of the item of standard deviation `item_effect`. What a user is expected to spend in the
    window is the mean over `rounds` simulated ones.
    """

    world: SyntheticConfig = field(default_factory=SyntheticConfig)
    window: float = 0.15
    stop: float = -1.5
    engagement: float = -1.0
    interest: float = 4.0
    classes: int = 4
    sharpness: float = 3.0
    impressions: int = 8
    click: float = -1.0
    relevance: float = 0.8
    item_effect: float = 0.5
    rounds: int = 64

    def __post_init__(self) -> None:
        """Validate that outcomes can follow the laws."""
        if not 0 < self.window < 1:
            raise ValueError(f"window={self.window} is a share of the days; it must lie in (0, 1)")
        if self.classes < 2 or self.impressions < 1 or self.rounds < 1:
            raise ValueError(
                f"classes={self.classes}, impressions={self.impressions}, rounds={self.rounds}: "
                "at least 2, 1 and 1"
            )

    @property
    def window_start(self) -> int:
        """The first second of the window."""
        return EPOCH + int((1 - self.window) * self.world.days * 86_400)

    def moments(self, timestamps: np.ndarray) -> np.ndarray:
        """Return times as shares of the whole log, 0 its first second and 1 its end."""
        return (timestamps - EPOCH) / (self.world.days * 86_400)


@dataclass(frozen=True)
class Outcomes:
    """A world, its log as the outcomes leave it, and the outcomes with their probabilities.

    `events`: the world's, without those of the window of users who stop. `pretrain_events`: those
    before the window, without each user's last of all: what pretraining may read.
    `items`: the world's with `popularity`, the weight by which an item is drawn.
    `outcomes`: user_id, churned, churn_probability, attribute, attribute_probability (list of C),
    spend (log(1 + what is bought in the window), 0 of who stops) and spend_expectation, given the
    truth but not who stops: its R2 is what a model that reads the log before the window may reach.
    `impressions`: user_id, service, item_id, timestamp, clicked, probability, in order of time.
    """

    world: World
    events: pa.Table
    pretrain_events: pa.Table
    items: pa.Table
    outcomes: pa.Table
    impressions: pa.Table


def make_outcomes(config: OutcomesConfig) -> Outcomes:
    """Return the world of `config` and what becomes of its users.

    Raises ValueError for a config that no world can follow.
    """
    world = make_world(config.world)
    first, last = (shares_of(world.users, name) for name in ("first_latents", "latents"))
    user = places(world.users["user_id"], world.events["user_id"])
    counts = _counts(config, world, user)
    hazard = stop_probability(config, counts, latents_at(first, last, 1 - config.window))
    churned = _generator(config, 1).random(len(hazard)) < hazard
    of_class, attribute = _attributes(config, (first + last) / 2)
    times = world.events["timestamp"].to_numpy()
    is_kept = ~churned[user] | (times < config.window_start)
    in_window = is_kept & (times >= config.window_start)
    bought = np.where(in_window, world.events["amount"].to_numpy(), 0)
    if_none_stops = expected_log_spend(
        _generator(config, 4),
        config.world,
        world,
        (first, last),
        counts,
        config.window,
        config.rounds,
    )
    events = world.events.filter(pa.array(is_kept))
    outcomes = pa.table(
        {
            "user_id": world.users["user_id"],
            "churned": churned,
            "churn_probability": hazard,
            "attribute": attribute.astype(np.int32),
            "attribute_probability": pa.array(list(of_class)),
            "spend": np.log1p(np.bincount(user, bought, len(hazard))),
            "spend_expectation": (1 - hazard) * if_none_stops,
        }
    )
    return Outcomes(
        world,
        events,
        pretrain_events(events, config.window_start),
        world.items.append_column("popularity", pa.array(world.popularity)),
        outcomes,
        _impressions(config, world, (first, last), np.flatnonzero(~churned)),
    )


def write_outcomes(config: OutcomesConfig) -> Outcomes:
    """Write all tables into `config.world.out`, and last the config as world.yaml; return them."""
    made, directory = make_outcomes(config), config.world.out
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(made.world.users, directory / "users.parquet")
    for name in ("events", "pretrain_events", "items", "outcomes", "impressions"):
        pq.write_table(getattr(made, name), directory / f"{name}.parquet")
    (directory / "world.yaml").write_text(to_yaml(config), encoding="utf-8")
    return made


def shares_of(users: pa.Table, column: str) -> np.ndarray:
    """Return a column of lists of shares as (N, Q) float64."""
    lists = users[column].combine_chunks()
    return lists.flatten().to_numpy().reshape(len(lists), -1).astype(np.float64)


def places(known: pa.Array | pa.ChunkedArray, asked: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the row in `known`, distinct ids, of each of `asked`, -1 for one that is not there."""
    row = {name: number for number, name in enumerate(known.to_pylist())}
    return np.array([row.get(name, -1) for name in asked.to_pylist()], np.int64)


def latents_at(first: np.ndarray, last: np.ndarray, moments: np.ndarray | float) -> np.ndarray:
    """Return shares (n, Q) at `moments`, one for all or (n, 1): a straight line from first to last.

    An event at that moment has the topic t with the probability of column t, but for noise.
    """
    return (1 - moments) * first + moments * last


def pretrain_events(events: pa.Table, window_start: int) -> pa.Table:
    """Return the `events`, in order of time, before the window and without each user's last."""
    reversed_users = events["user_id"].to_numpy()[::-1]
    is_last = np.zeros(events.num_rows, bool)
    is_last[events.num_rows - 1 - np.unique(reversed_users, return_index=True)[1]] = True
    early = events["timestamp"].to_numpy() < window_start
    return events.filter(pa.array(early & ~is_last))


def _generator(config: OutcomesConfig, number: int) -> np.random.Generator:
    return np.random.default_rng([config.world.seed, number])


def _chance(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def _counts(config: OutcomesConfig, world: World, user: np.ndarray) -> np.ndarray:
    """Return how many events each user has in each service, (N, S); `user` (E,) is the events'."""
    service = places(pa.array(config.world.services), world.events["service"])
    shape = (config.world.users, len(config.world.services))
    return np.bincount(user * shape[1] + service, minlength=shape[0] * shape[1]).reshape(shape)


def stop_probability(config: OutcomesConfig, counts: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Return the probability of stopping of every user, (N,)."""
    rate = np.log(counts.sum(axis=1) / (counts > 0).sum(axis=1))
    engaged = (rate - rate.mean()) / max(rate.std(), 1e-9)
    interest = latents.reshape(len(counts), config.world.interests, -1).sum(axis=2)[:, 0]
    return _chance(config.stop + config.engagement * engaged + config.interest * interest)


def attribute_probability(config: OutcomesConfig, latents: np.ndarray) -> np.ndarray:
    """Return the probabilities (N, C) of the classes, of mean `latents` (N, Q)."""
    return _classes(_generator(config, 2), config, latents)


def _attributes(config: OutcomesConfig, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class probabilities (N, C) and the class (N,) of every user."""
    rng = _generator(config, 2)
    probabilities = _classes(rng, config, latents)
    return probabilities, draw_rows(rng, probabilities, np.arange(len(latents)))


def _classes(rng: np.random.Generator, config: OutcomesConfig, latents: np.ndarray) -> np.ndarray:
    matrix = config.sharpness * rng.standard_normal((latents.shape[1], config.classes))
    weights = np.exp(latents @ matrix)
    return weights / weights.sum(axis=1, keepdims=True)


def _impressions(
    config: OutcomesConfig, world: World, ends: tuple[np.ndarray, np.ndarray], stay: np.ndarray
) -> pa.Table:
    """Return what the users `stay` are shown in the window; `ends` are first and last latents."""
    rng = _generator(config, 3)
    user = np.repeat(stay, config.impressions)
    moment = 1 - config.window * (1 - rng.random(len(user)))
    share = latents_at(ends[0][user], ends[1][user], moment[:, None])
    size, topics = config.world.items_per_service, share.shape[1]
    service = rng.integers(len(config.world.services), size=len(user))
    wanted = draw_rows(rng, share, np.arange(len(user)))
    item_topic = world.items["topic"].to_numpy()
    # Within a service the items are sorted by topic: those of one are a range.
    start = np.stack(
        [np.searchsorted(part, np.arange(topics + 1)) for part in item_topic.reshape(-1, size)]
    )
    low, high = start[service, wanted], start[service, wanted + 1]
    low, high = np.where(rng.random(len(user)) < 0.5, np.stack([low, high]), [[0], [size]])
    item = service * size + low + (rng.random(len(user)) * (high - low)).astype(np.int64)
    effect = config.item_effect * rng.standard_normal(len(item_topic))
    affinity = np.log(topics * share[np.arange(len(user)), item_topic[item]] + 0.1)
    probability = _chance(config.click + config.relevance * affinity + effect[item])
    clicked = rng.random(len(user)) < probability
    order = np.argsort(moment, kind="stable")
    return pa.table(
        {
            "user_id": world.users["user_id"].combine_chunks().take(pa.array(user[order])),
            "service": world.items["service"].combine_chunks().take(pa.array(item[order])),
            "item_id": world.items["item_id"].combine_chunks().take(pa.array(item[order])),
            "timestamp": EPOCH + (moment[order] * config.world.days * 86_400).astype(np.int64),
            "clicked": clicked[order],
            "probability": probability[order],
        }
    )


def main() -> None:
    """Run the command line."""

    def report(config: OutcomesConfig) -> str:
        made = write_outcomes(config)
        return (
            f"{config.world.out}: {made.events.num_rows:,} events of {config.world.users:,} users, "
            f"{made.impressions.num_rows:,} impressions; "
            "next: clue prepare configs/prepare/mini_pretrain.yaml\n"
        )

    sys.stdout.write(run_command(OutcomesConfig, report, description=HELP))


if __name__ == "__main__":
    main()
