"""A planted taste and planted rates are found, a shuffled one not, and no asked label is read."""

# pyright: standard

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.tasks.feed_clicks import FeedClicksConfig, FeedClicksTask
from clue.data.corpus import Corpus
from tests.benchmarks.tasks.given import Given, GivenUsers
from tests.benchmarks.worlds import corpus_of, parts

USERS, ITEMS, EACH, OPENS = 200, 30, 20, 1_600_000_000.0
NAMES = [f"v{item:02}" for item in range(ITEMS)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rng = np.random.default_rng(0)
    events = [(user, "video", NAMES[i]) for user in parts(USERS) for i in rng.permutation(ITEMS)]
    times = OPENS - 1e6 + rng.permutation(len(events)) * 400.0  # some lie after the moment
    return corpus_of(tmp_path_factory.mktemp("feed"), events, parts(USERS), times.tolist())


def impressions(chance: np.ndarray, seed: int = 1) -> pa.Table:
    """EACH impressions of each user before the moment and as many after it, by a law (U, I)."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(USERS), 2 * EACH)
    items = rng.integers(0, ITEMS, len(users))
    before = np.tile(np.arange(2 * EACH) < EACH, USERS)
    times = OPENS + np.where(before, -1, 1) * rng.integers(1, 1000, len(users))
    clicked = rng.random(len(users)) < chance[users, items]
    columns = {
        "user_id": [f"u{user:03}" for user in users],
        "item_id": [NAMES[item] for item in items],
        "timestamp": times,
        "tab": np.where(rng.random(len(users)) < 0.8, "tab1", "tab0"),
        "clicked": clicked.astype(int),
        "long_view": (clicked & (rng.random(len(users)) < 0.7)).astype(int),
    }
    return pa.table(columns)


def task_of(corpus: Corpus, directory: Path, shown: pa.Table, **changes: object) -> FeedClicksTask:
    files = {name: directory / f"{name}.parquet" for name in ("impressions", "users", "items")}
    pq.write_table(shown, files["impressions"])
    ages = {"user_id": [f"u{user:03}" for user in range(USERS)], "age": range(USERS)}
    pq.write_table(pa.table({k: list(v) for k, v in ages.items()}), files["users"])
    authors = {"item_id": NAMES, "author": [f"a{item % 5}" for item in range(ITEMS)]}
    pq.write_table(pa.table(authors), files["items"])
    given = {"name": "video/click", "opens": OPENS, **files, **changes}
    return FeedClicksConfig(**given).build(corpus)  # type: ignore[arg-type]


def figures(task: FeedClicksTask, model: object, probe: str = "linear") -> dict[str, float]:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    assert scored.queries.num_rows == len(task.labels[2]) > 500
    ones = np.ones((1, scored.queries.num_rows))
    return {n: float(m.statistic(scored.queries)(ones)[0]) for n, m in scored.measures.items()}


def law(seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of users and items and a chance of a click that is their product's."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(USERS, 3)), rng.normal(size=(ITEMS, 3))
    return users, items, 1 / (1 + np.exp(-4 * users @ items.T))


def test_a_taste_is_found_in_the_product_and_a_shuffled_one_is_not(
    corpus: Corpus, tmp_path: Path
) -> None:
    users, items, chance = law()
    task = task_of(corpus, tmp_path, impressions(chance))
    found = figures(task, Given(users, items))
    assert found["AUC"] > 0.9 and found["gAUC"] > 0.85
    assert figures(task, Given(users, items), "vector alone")["AUC"] > 0.9
    rng = np.random.default_rng(3)
    strange = Given(rng.permutation(users), items)
    # clicks by the items' rates remain
    assert figures(task, strange, "vector alone")["AUC"] < 0.65
    coins = task_of(corpus, tmp_path, impressions(np.full((USERS, ITEMS), 0.5)))
    rows = [Given(users, items), *coins.baselines([])]
    compared = [
        figures(coins, m, p)["AUC"] for m in rows for p in coins.probes if coins.supports(m, p)
    ]
    assert len(compared) == 9
    assert all(0.44 < area < 0.56 for area in compared)


def test_rates_of_items_and_of_users_are_found_by_their_rivals(
    corpus: Corpus, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    chance = 1 / (1 + np.exp(-2 * rng.normal(size=(USERS, 1)) - 2 * rng.normal(size=ITEMS)))
    task = task_of(corpus, tmp_path, impressions(chance))
    rows = {row.name: row for row in task.baselines([])}
    found = {
        name: figures(task, row, "lightgbm" if "trees" in name else "linear")
        for name, row in rows.items()
    }
    assert found["prior"]["AUC"] == 0.5 and found["user rate"]["gAUC"] == pytest.approx(0.5)
    single = [found[f"{of} rate"]["AUC"] for of in ("item", "user")]
    both = found["item + user rate"]["AUC"]
    assert min(single) > 0.65 and both > max(single) + 0.03
    assert found["aggregates"]["AUC"] > both - 0.03
    assert found["aggregates + attributes (trees)"]["AUC"] > both - 0.05
    # A vector that says nothing of items has their rates beside it, in the linear probe alone.
    noise = GivenUsers(rng.normal(size=(USERS, 3)))
    assert figures(task, noise)["gAUC"] > 0.65
    assert figures(task, noise, "vector alone")["gAUC"] == pytest.approx(0.5)


def test_nothing_that_is_asked_for_is_in_a_feature(corpus: Corpus, tmp_path: Path) -> None:
    shown = impressions(law()[2])
    users = np.array([int(name.as_py()[1:]) for name in shown["user_id"]])
    late = shown["timestamp"].to_numpy() >= OPENS
    asked = late & (users >= 150)  # of test users

    def columns(flipped: np.ndarray, **changes: object) -> list[dict[str, np.ndarray]]:
        table = shown
        for name in ("clicked", "long_view"):
            values = shown[name].to_numpy() ^ flipped
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        return task_of(corpus, tmp_path, table, **changes).columns

    plain, other = columns(np.zeros(len(late), int)), columns(asked.astype(int))
    compared = 0
    for one, two in zip(plain, other, strict=True):
        for name, values in one.items():
            assert np.array_equal(values, two[name]), name
            compared += values.size
    assert compared > 10_000
    # The same flip is seen where the moment lies behind it, and so would be a leak.
    leaked = [columns(f, opens=OPENS + 900) for f in (0 * asked.astype(int), asked.astype(int))]
    assert not np.array_equal(leaked[0][2]["item counts"], leaked[1][2]["item counts"])


def test_pasts_end_at_the_moment(corpus: Corpus, tmp_path: Path) -> None:
    users, items, chance = law()
    task, model = task_of(corpus, tmp_path, impressions(chance)), Given(users, items)
    task.score(model, "linear")  # type: ignore[arg-type]
    assert len(model.pasts) == 3
    late = np.concatenate(
        [corpus.timestamps_of(0).take(past.users).values >= OPENS for past in model.pasts]
    )
    read = sum(len(past.parts[0][1].values) for past in model.pasts)
    assert late.any() and read == (~late).sum()
    assert all(past.parts[0][1].values.max() < OPENS for past in model.pasts)


def test_a_split_without_both_kinds_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training users have .* 0 of them clicked; both kinds"):
        task_of(corpus, tmp_path, impressions(np.zeros((USERS, ITEMS))))
