"""Offers: earlier ones counted by hand, a planted habit found and a shuffled one not, no leaks."""

# pyright: standard

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.transactions import DAY
from benchmarks.tasks.offers import OffersConfig, OffersTask
from clue.data.corpus import Corpus
from tests.benchmarks.tasks.given import GivenUsers
from tests.benchmarks.worlds import corpus_of, parts

USERS, START, SENT = 300, 1_600_000_000.0, (40.0, 60.0, 80.0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    """Users who buy at their own rate for 100 days; the table of sales beside the corpus."""
    rng, rows = np.random.default_rng(0), list[tuple[str, str, float]]()
    for number, user in enumerate(parts(USERS)):
        for day in np.flatnonzero(rng.random(100) < 0.02 + 0.3 * (number % 10) / 10):
            rows.append((user, f"p{rng.integers(20):02}", START + (day + rng.random()) * DAY))
        rows.append((user, "p00", START + rng.random() * DAY))
    directory = tmp_path_factory.mktemp("shop")
    events = [(user, "shop", item) for user, item, _ in rows]
    corpus = corpus_of(directory, events, parts(USERS), [when for *_, when in rows])
    users, items, times = map(list, zip(*rows, strict=True))
    count = len(rows)
    columns = {"user_id": users, "item_id": items, "timestamp": times}
    columns |= {"invoice": [str(n) for n in range(count)], "quantity": [1] * count}
    pq.write_table(pa.table({**columns, "price": [1.0] * count}), directory / "sales.parquet")
    return corpus, directory / "sales.parquet"


def offers(chance: np.ndarray, seed: int = 1) -> pa.Table:
    """Three offers to each user, redeemed by a law (U,) of its user five days later."""
    rng = np.random.default_rng(seed)
    redeemed = rng.random((USERS, len(SENT))) < chance[:, None]
    sent = np.tile(START + np.array(SENT) * DAY, USERS)
    columns = {
        "user_id": np.repeat(list(parts(USERS)), len(SENT)),
        "kind": np.tile(["A", "B", "A"], USERS),
        "timestamp": sent,
        "redeemed": redeemed.ravel().astype(int),
        "redeemed_at": np.where(redeemed.ravel(), sent + 5 * DAY, 0.0),
    }
    return pa.table(columns)


def task_of(made: tuple[Corpus, Path], directory: Path, table: pa.Table) -> OffersTask:
    file = directory / "offers.parquet"
    pq.write_table(table, file)
    config = OffersConfig(name="grocer/offer", offers=file, sales=made[1], service="shop")
    return config.build(made[0])


def auroc(task: OffersTask, model: object, probe: str = "linear") -> float:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    assert scored.queries.num_rows == 225 and len(scored.queries["user_id"].unique()) == 75
    statistic = scored.measures["AUROC"].statistic(scored.queries)
    return float(statistic(np.ones((1, 225)))[0])


def rows_of(task: OffersTask) -> dict[str, float]:
    rows = {row.name: row for row in task.baselines([])}
    return {n: auroc(task, row, getattr(row, "probe", "linear")) for n, row in rows.items()}


def test_a_habit_of_buyers_is_found_and_a_shuffled_one_is_not(
    shop: tuple[Corpus, Path], tmp_path: Path
) -> None:
    habit = np.where(np.arange(USERS) % 10 >= 5, 0.85, 0.15)
    task, vector = task_of(shop, tmp_path, offers(habit)), habit[:, None] + np.zeros((USERS, 2))
    found = rows_of(task)
    assert set(found) == {
        "prior",
        "offer kind",
        "earlier offers",
        "aggregates",
        "aggregates (trees)",
    }
    assert found["prior"] == 0.5 and found["offer kind"] < 0.62
    assert found["earlier offers"] > 0.65
    assert min(found["aggregates"], found["aggregates (trees)"]) > 0.68
    assert min(auroc(task, GivenUsers(vector), p) for p in ("linear", "vector alone")) > 0.8
    rng = np.random.default_rng(2)
    coins = task_of(shop, tmp_path, offers(np.full(USERS, 0.5)))
    chance = [*rows_of(coins).values(), auroc(coins, GivenUsers(rng.permutation(vector)))]
    assert len(chance) == 6 and all(0.38 < each < 0.62 for each in chance)


def test_earlier_offers_are_those_sent_and_redeemed_before_the_moment(
    shop: tuple[Corpus, Path], tmp_path: Path
) -> None:
    table = offers(np.ones(USERS))
    late, redeemed = (table[n].to_numpy().copy() for n in ("redeemed_at", "redeemed"))
    late[::3] = START + 61 * DAY  # the first offer is redeemed after the second was sent
    redeemed[2::6] = 0  # every other user's last one is not
    for at, name, values in ((3, "redeemed", redeemed), (4, "redeemed_at", late)):
        table = table.set_column(at, name, pa.array(values))
    task, compared = task_of(shop, tmp_path, table), 0
    for part, made in zip(task.parts[:2], task.columns, strict=False):
        counts = np.expm1(made["earlier offers"])
        for number, day in enumerate(SENT):
            rows = part.times == START + day * DAY
            assert counts[rows] == pytest.approx(
                np.tile([[0, 0], [1, 0], [2, 2]][number], (int(rows.sum()), 1))
            )
            compared += int(rows.sum())
    assert compared == 675


def test_what_comes_after_an_offer_was_sent_is_in_no_feature(
    shop: tuple[Corpus, Path], tmp_path: Path
) -> None:
    plain = offers(np.full(USERS, 0.5))
    last = plain["timestamp"].to_numpy() == START + SENT[-1] * DAY
    compared = 0

    def flipped(rows: np.ndarray) -> list[dict[str, np.ndarray]]:
        redeemed = plain["redeemed"].to_numpy() ^ rows
        when = np.where(redeemed > 0, plain["timestamp"].to_numpy() + 5 * DAY, 0)
        table = plain.set_column(3, "redeemed", pa.array(redeemed))
        return task_of(shop, tmp_path, table.set_column(4, "redeemed_at", pa.array(when))).columns

    before = flipped(np.zeros(len(last), int))
    for one, two in zip(before, flipped(last.astype(int)), strict=True):
        for name, values in one.items():
            assert np.array_equal(values, two[name]), name
            compared += values.size
    assert compared > 10_000
    # The outcome of an earlier offer is in a later one's features: a leak would be seen.
    other = flipped((~last).astype(int))
    assert not np.array_equal(before[2]["earlier offers"], other[2]["earlier offers"])
    task = task_of(shop, tmp_path, plain)
    for part, past in zip(task.parts, task.pasts, strict=True):
        times = past.parts[0][1]
        assert (times.values < np.repeat(part.times, times.lengths)).all()


def test_an_offer_redeemed_before_it_was_sent_is_refused(
    shop: tuple[Corpus, Path], tmp_path: Path
) -> None:
    table = offers(np.ones(USERS))
    early = table.set_column(4, "redeemed_at", pa.array([START] * 900))
    with pytest.raises(ValueError, match="row 1 was redeemed at 1600000000, before it was sent"):
        task_of(shop, tmp_path, early)
    with pytest.raises(ValueError, match="training users have 450 offers, 0 of them redeemed"):
        task_of(shop, tmp_path, offers(np.zeros(USERS)))
