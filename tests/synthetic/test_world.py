import hashlib
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clue.config import load
from clue.synthetic.spending import SpendingConfig
from clue.synthetic.world import SyntheticConfig, World, make_world, write_world

SMALL = SyntheticConfig(users=1500, items_per_service=300, interests=6)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(SMALL)


def topic_shares(world: World, config: SyntheticConfig) -> np.ndarray:
    """The shares of the topics in what each user did, (services, N, Q), zero rows for no events."""
    topic_of = dict(
        zip(world.items["item_id"].to_pylist(), world.items["topic"].to_pylist(), strict=True)
    )
    counts = np.zeros((len(config.services), config.users, len(world.topics)))
    for user, service, item in zip(
        *(world.events[name].to_pylist() for name in ("user_id", "service", "item_id")), strict=True
    ):
        counts[config.services.index(service), int(user[1:]), topic_of[item]] += 1
    return counts / counts.sum(axis=2, keepdims=True).clip(min=1)


def ranks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The place of b's own row among all rows of b, by cosine to a's; ties count half."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-9) for x in (a, b))
    scores = a @ b.T
    own = np.diag(scores)[:, None]
    return 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2


def test_the_same_config_is_the_same_world(world: World) -> None:
    again, other = make_world(SMALL), make_world(SyntheticConfig(users=1500, seed=1))
    for name in ("events", "items", "users"):
        assert getattr(again, name).equals(getattr(world, name))
        assert not getattr(other, name).equals(getattr(world, name))


def old_columns(world: World) -> list[list[object]]:
    """What a world had before its events had amounts and channels."""
    names = {
        "events": ["user_id", "service", "item_id", "timestamp"],
        "items": ["service", "item_id", "title", "category", "topic"],
        "users": ["user_id", "interest", "category", "latents", "first_latents"],
    }
    return [getattr(world, table)[name].to_pylist() for table in names for name in names[table]]


def test_amounts_and_channels_leave_the_world_as_it_was(world: World) -> None:
    digest = hashlib.sha256()
    for column in old_columns(make_world(SyntheticConfig())):
        digest.update(repr(column).encode())
    # The demo of 2026-11-29, before there were amounts (commit 013dbd5).
    assert digest.hexdigest().startswith("f7a77bf39672f2bf272955636c9fd154")
    dear = SpendingConfig(price=2.0, channels=["one", "two"])
    other = make_world(replace(SMALL, spending=dear))
    assert old_columns(other) == old_columns(world)
    assert not other.events["amount"].equals(world.events["amount"])
    assert set(other.events["channel"].to_pylist()) == {"one", "two"}


def test_amounts_and_channels_are_those_of_the_truth_in_the_tables(world: World) -> None:
    rows = {"user_id": world.users, "item_id": world.items}
    user, item = (
        np.searchsorted(np.sort(table[key].to_numpy()), world.events[key].to_numpy())
        for key, table in rows.items()
    )
    item = np.argsort(world.items["item_id"].to_numpy())[item]
    expected = world.users["spend_level"].to_numpy()[user] * world.items["price"].to_numpy()[item]
    factor = np.log(world.events["amount"].to_numpy() / expected)
    assert abs(factor.mean()) < 0.01 and abs(factor.std() - SMALL.spending.noise) < 0.01
    shares = np.array(world.users["channel_shares"].to_pylist())
    channel = world.events["channel"].to_numpy()
    for number, name in enumerate(SMALL.spending.channels):
        error = ((channel == name) - shares[user, number]).sum()
        assert abs(error) < 4 * np.sqrt((shares[user, number] * (1 - shares[user, number])).sum())


def test_the_tables_belong_together(world: World, tmp_path: Path) -> None:
    items = set(
        zip(*(world.items[name].to_pylist() for name in ("service", "item_id")), strict=True)
    )
    done = set(
        zip(*(world.events[name].to_pylist() for name in ("service", "item_id")), strict=True)
    )
    assert done <= items and len(items) == world.items.num_rows == 900
    assert set(world.events["user_id"].to_pylist()) == set(world.users["user_id"].to_pylist())
    times = world.events["timestamp"].to_numpy()
    assert (np.diff(times) >= 0).all() and times[-1] - times[0] < SMALL.days * 86_400
    write_world(SMALL, tmp_path / "logs")
    for name in ("events", "items", "users"):
        assert pq.read_table(tmp_path / "logs" / f"{name}.parquet").equals(getattr(world, name))


def test_activity_is_heavy_tailed_and_some_users_are_absent() -> None:
    config = SyntheticConfig(users=20_000, items_per_service=300)
    world = make_world(config)
    pairs = world.events.group_by(["user_id", "service"]).aggregate([("item_id", "count")])
    counts = pairs["item_id_count"].to_numpy()
    assert abs(counts.mean() - config.mean_events) < 0.5
    logs = np.log(counts)
    assert abs(np.std(logs) - config.activity) < 0.05 and np.median(counts) < 0.8 * counts.mean()
    assert counts.max() > 10 * counts.mean()
    present = len(counts) / (config.users * len(config.services))
    assert abs(present - (1 - config.absent)) < 0.01


def test_popularity_follows_its_power_law() -> None:
    config = SyntheticConfig(users=8000, items_per_service=200, interests=1, noise=1.0)
    world = make_world(config)
    counts = Counter(world.events["item_id"].to_pylist())
    shop = sorted((n for item, n in counts.items() if item.startswith("shop")), reverse=True)
    slope, _ = np.polyfit(np.log(np.arange(1, 101)), np.log(shop[:100]), 1)
    assert abs(slope + config.popularity) < 0.05


def test_what_users_do_follows_their_latents(world: World) -> None:
    last = np.array(world.users["latents"].to_pylist())
    first = np.array(world.users["first_latents"].to_pylist())
    assert np.allclose(last.sum(axis=1), 1, atol=1e-5) and last.shape == (1500, 30)
    interest = last.reshape(1500, 6, 5).sum(axis=2).argmax(axis=1)
    assert np.array_equal(interest, world.users["interest"].to_numpy())
    # Over the whole time: the mean of first and last, and noise that all users share.
    shares = topic_shares(world, SMALL)
    noise = shares.sum(axis=1).sum(axis=0) / (shares.sum(axis=2) > 0).sum()
    expected = (1 - SMALL.noise) * (first + last) / 2 + SMALL.noise * noise
    for of_service in shares:
        here = of_service.sum(axis=1) > 0
        error = (of_service[here] - expected[here]).mean(axis=0)
        assert np.abs(error).max() < 0.02  # means over 1,200 users of shares near 1/30


def test_with_skew_some_interests_are_common_and_some_rare() -> None:
    config = SyntheticConfig(users=20_000, items_per_service=60, interests=6, skew=1.0)
    latents = np.array(make_world(config).users["latents"].to_pylist()).reshape(-1, 6, 5)
    common = 1 / np.arange(1, 7)
    np.testing.assert_allclose(latents.sum(2).mean(0), common / common.sum(), atol=0.01)
    shares = latents.sum(1).mean(0)
    np.testing.assert_allclose(shares, common[:5] / common[:5].sum(), atol=0.01)
    flat = np.array(make_world(replace(config, nested=False)).users["latents"].to_pylist())
    common = 1 / np.arange(1, 31)
    np.testing.assert_allclose(flat.mean(0), common / common.sum(), atol=0.005)
    # one Dirichlet law: the sub-topics of an interest do not go together
    together = np.corrcoef(flat[:, :5].T)[np.triu_indices(5, 1)]
    assert together.max() < 0


def test_interests_drift_in_time() -> None:
    config = SyntheticConfig(users=800, items_per_service=300, drift=1.0, noise=0.0, mean_events=60)
    world = make_world(config)
    last = np.array(world.users["latents"].to_pylist())
    first = np.array(world.users["first_latents"].to_pylist())
    half = world.events.num_rows // 2
    early, late = world.events.slice(0, half), world.events.slice(half)
    nearer: list[float] = []
    for events, near, far in ((early, first, last), (late, last, first)):
        shares = topic_shares(replace(world, events=events), config).mean(axis=0)
        nearer.append(float((ranks(shares, near) < ranks(shares, far)).mean()))
    assert min(nearer) > 0.8
    still = make_world(SyntheticConfig(users=50, items_per_service=300, drift=0.0))
    assert still.users["latents"].equals(still.users["first_latents"])


def test_services_meet_only_through_behaviour() -> None:
    """Topics match a user across services; words do not, which is what a model has to learn."""
    config = SyntheticConfig(users=600, mean_events=30)
    world = make_world(config)
    shares = topic_shares(world, config)
    both = np.flatnonzero((shares[0].sum(axis=1) > 0) & (shares[1].sum(axis=1) > 0))[:400]
    by_topic = ranks(np.sqrt(shares[0][both]), np.sqrt(shares[1][both]))
    assert (by_topic <= 10).mean() > 0.7
    titles = dict(
        zip(world.items["item_id"].to_pylist(), world.items["title"].to_pylist(), strict=True)
    )
    vocabulary: dict[str, int] = {}
    bags: list[Counter[tuple[int, int]]] = [Counter(), Counter()]
    number = {f"u{user:07d}": row for row, user in enumerate(both)}
    for user, service, item in zip(
        *(world.events[name].to_pylist() for name in ("user_id", "service", "item_id")), strict=True
    ):
        if user in number and service in ("shop", "news"):
            for word in re.findall(r"\w+", titles[item].lower()):
                column = vocabulary.setdefault(word, len(vocabulary))
                bags[config.services.index(service)][number[user], column] += 1
    words = np.zeros((2, len(both), len(vocabulary)))
    for service, bag in enumerate(bags):
        for (row, column), count in bag.items():
            words[service, row, column] = count
    seen = np.log(len(both) * 2 / (words > 0).sum(axis=(0, 1)))
    by_word = ranks(words[0] * seen, words[1] * seen)
    assert (by_word <= 10).mean() < 0.06  # chance is .025


def test_a_million_events_take_seconds() -> None:
    start = time.process_time()
    world = make_world(SyntheticConfig(users=20_000))
    assert world.events.num_rows > 900_000
    assert time.process_time() - start < 10  # 1.1 s on one core of 2024


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("services=[shop, bank]", "choose from shop, news, films"),
        ("services=[shop, shop]", "each once"),
        ("services=[]", "choose from"),
        ("users=0", "users=0"),
        ("interests=13", r"interests=13 must lie in \[1, 12\]"),
        ("items_per_service=39", r"items_per_service=39 must lie in \[40"),
        ("drift=1.5", "drift=1.5"),
        ("absent=-0.1", "absent=-0.1"),
        ("focus=0", "focus"),
        ("skew=3.5", r"skew=3.5 must lie in \[0, 3\]"),
        ("mean_events=0", "mean_events"),
        ("spending.price=-1", "price=-1.0"),
    ],
)
def test_worlds_that_cannot_be_are_refused(change: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make_world(load(SyntheticConfig, None, [change]))


def test_all_twelve_interests_and_a_world_of_one_user() -> None:
    world = make_world(SyntheticConfig(users=1, interests=12, items_per_service=60, absent=1.0))
    assert len(world.topics) == 60 and world.events.num_rows > 0
