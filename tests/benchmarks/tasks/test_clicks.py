"""A planted taste is found in u * i alone, rates are by hand, and no impression reads its own."""

# pyright: standard

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.click_rates import ClickRates, Impressions
from benchmarks.tasks.clicks import ClicksConfig, ClicksTask, read_impressions
from clue.data.corpus import Corpus
from tests.benchmarks.tasks.given import Given, GivenUsers
from tests.benchmarks.worlds import corpus_of, parts

USERS, ITEMS = 300, 20
WIDTH = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rng = np.random.default_rng(0)
    events = [
        (user, "games", f"g{item:02}")
        for user in parts(USERS)
        for item in rng.permutation(ITEMS)[: rng.integers(1, 9)]
    ]
    # One id in two services: an impression is of the game.
    events += [("u000", "books", f"g{item:02}") for item in range(ITEMS)]
    return corpus_of(tmp_path_factory.mktemp("games"), events, parts(USERS))


def planted(corpus: Corpus) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Users and items, and impressions that are clicked where their product says so."""
    rng = np.random.default_rng(1)
    users = rng.normal(size=(USERS, WIDTH))
    items = rng.normal(size=(corpus.num_items, WIDTH))
    shown, rows = np.repeat(np.arange(USERS), 10), np.tile(np.arange(ITEMS), USERS // 2)
    games = np.flatnonzero(corpus.item_service == corpus.services.index("games"))
    names = {str(corpus.item_ids[int(g)]): int(g) for g in games}
    ids = [f"g{row:02}" for row in rows]
    product = (users[shown] * items[[names[name] for name in ids]]).sum(1)
    columns = {
        "user_id": corpus.user_ids.take(pa.array(shown)),
        "item_id": ids,
        "clicked": product > 0,
    }
    return users, items, pa.table(columns)


def task_of(corpus: Corpus, directory: Path, table: pa.Table, service: str = "games") -> ClicksTask:
    file = directory / "impressions.parquet"
    pq.write_table(table, file)
    config = ClicksConfig(name="play", impressions=file, service=service)
    return config.build(corpus)


def figures(task: ClicksTask, model: object, probe: str = "linear") -> dict[str, float]:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    ones = np.ones((1, scored.queries.num_rows))
    assert scored.queries.num_rows == 750 and len(scored.queries["user_id"].unique()) == 75
    return {n: float(m.statistic(scored.queries)(ones)[0]) for n, m in scored.measures.items()}


def test_a_taste_is_found_in_the_product_and_not_in_the_user_alone(
    corpus: Corpus, tmp_path: Path
) -> None:
    users, items, table = planted(corpus)
    task = task_of(corpus, tmp_path, table)
    found = figures(task, Given(users, items))
    assert found["AUC"] > 0.97 and found["gAUC"] > 0.97 and found["NE"] < 0.5
    alone = figures(task, GivenUsers(users), "vector alone")
    assert alone["gAUC"] == pytest.approx(0.5)  # A user's impressions all look the same.
    assert figures(task, Given(users, items), "mlp-64")["AUC"] > 0.8
    shuffled = table.set_column(
        2, "clicked", table["clicked"].take(pa.array(np.random.default_rng(2).permutation(3000)))
    )
    chance = figures(task_of(corpus, tmp_path, shuffled), Given(users, items))
    assert 0.42 < chance["AUC"] < 0.58 and chance["NE"] > 0.98


def test_the_features_are_user_item_and_their_product(corpus: Corpus, tmp_path: Path) -> None:
    users, items, table = planted(corpus)
    task = task_of(corpus, tmp_path, table)
    features, blocks = task._features(Given(users, items))
    named = {n: slice(3 * k, 3 * k + 3) for k, n in enumerate(["vector", "item", "vector * item"])}
    assert blocks == {**named, "similarity": slice(9, 11)}
    for part, x in zip(task.parts, features, strict=True):
        u, i = users[part.users], items[part.items]
        inner = (u * i).sum(1)
        cosine = inner / np.linalg.norm(u, axis=1) / np.linalg.norm(i, axis=1)
        assert x == pytest.approx(np.c_[u, i, u * i, inner, cosine], abs=1e-5)
        assert set(corpus.item_service[part.items]) == {corpus.services.index("games")}
    whose = [set(part.users.tolist()) for part in task.parts]
    assert [len(each) for each in whose] == [150, 75, 75] and not set.intersection(*whose)


def test_impressions_with_times_are_read_as_of_then(corpus: Corpus, tmp_path: Path) -> None:
    users, items, table = planted(corpus)
    last = corpus.timestamps_of(corpus.services.index("games"))
    middle = np.array([last[user][len(last[user]) // 2] for user in range(USERS)])
    cutoff = np.where(np.arange(len(table)) % 2, np.repeat(middle, 10), 1e7)
    task = task_of(corpus, tmp_path, table.append_column("timestamp", pa.array(cutoff)))
    model = Given(users, items)
    figures(task, model)
    assert [len(past) for past in model.pasts] == [300, 150, 150]  # Two moments for each user.
    late = 0
    for past in model.pasts:
        events = [times.lengths for _, times in past.parts]
        early = past.cutoff < 1e7
        late += int((np.sum(events, 0)[early] < np.sum(events, 0)[~early]).sum())
        assert early.sum() == (~early).sum()
    assert late == USERS
    untimed = Given(users, items)
    figures(task_of(corpus, tmp_path, table), untimed)
    assert all(np.isinf(past.cutoff).all() for past in untimed.pasts)


def impressions(users: list[int], items: list[int], clicked: list[int]) -> Impressions:
    cutoff, unknown = np.full(len(users), np.inf), np.full(len(users), np.nan)
    return Impressions(np.array(users), np.array(items), cutoff, np.array(clicked), unknown)


def test_rates_are_smoothed_by_the_mean_and_chosen_on_valid(corpus: Corpus) -> None:
    train = impressions([0, 1, 2, 3, 5], [0, 0, 0, 1, 1], [1, 1, 0, 0, 0])
    sure = impressions([200, 201], [0, 1], [1, 0])
    contrary = impressions([200, 201], [0, 1], [0, 1])
    rates = ClickRates(corpus, train, sure, activity=False)
    assert (rates.smoothing, ClickRates(corpus, train, contrary, activity=True).smoothing) == (
        1.0,
        100.0,
    )
    chances = 1 / (1 + np.exp(-rates.items()[:, 0]))
    assert chances[:3] == pytest.approx([2.4 / 4, 0.4 / 3, 0.4])
    # Users 0 and 5 are of one fold: without them item 0 has one click of two, of a mean of 1/3.
    own = 1 / (1 + np.exp(-rates.training_items()[:, 0]))
    assert own[0] == pytest.approx((1 + 1 / 3) / 3)
    assert own[4] == pytest.approx((1 / 3) / 2)


def test_own_clicks_are_not_in_a_training_rate(corpus: Corpus) -> None:
    # Clicks are coins: a rate with the own click in it would tell of it.
    rng = np.random.default_rng(3)
    users = np.arange(150)
    train = impressions(users.tolist(), (users % 39).tolist(), rng.integers(0, 2, 150).tolist())
    rates = ClickRates(corpus, train, train, activity=False)
    inside = np.corrcoef(rates.items()[train.items][:, 0], train.clicked)[0, 1]
    outside = np.corrcoef(rates.training_items()[:, 0], train.clicked)[0, 1]
    assert inside > 0.4 and outside < 0.1


def test_rivals_know_the_base_rate_the_item_and_how_active_the_user_is(
    corpus: Corpus, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    _, _, table = planted(corpus)
    item = np.array([int(name.as_py()[1:]) for name in table["item_id"]])
    events = np.repeat(corpus.items_of(corpus.services.index("games")).lengths, 10)
    chance = 1 / (1 + np.exp(-(item - 9.5) / 3 - (events - 4) / 2))
    table = table.set_column(2, "clicked", pa.array(rng.random(3000) < chance))
    task = task_of(corpus, tmp_path, table)
    prior, rate, active = task.baselines([])
    found = [figures(task, model) for model in (prior, rate, active)]
    assert found[0]["AUC"] == 0.5 and found[0]["NE"] == pytest.approx(1, abs=0.01)
    assert 0.7 < found[1]["AUC"] < found[2]["AUC"] - 0.02
    assert found[1]["gAUC"] == pytest.approx(found[2]["gAUC"], abs=0.02)
    assert [probe for probe in task.probes if task.supports(rate, probe)] == ["linear"]
    assert task.score(rate, "linear").chosen["smoothing"] in (1, 3, 10, 30, 100)


def test_tables_without_both_kinds_or_known_users_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    _, _, table = planted(corpus)
    none = table.set_column(2, "clicked", pa.array([False] * 3000))
    with pytest.raises(ValueError, match="training users have 1500 impressions, 0 of them clicked"):
        task_of(corpus, tmp_path, none)
    with pytest.raises(ValueError, match="no service 'films'; there are books, games"):
        task_of(corpus, tmp_path, table, service="films")
    strangers = table.set_column(0, "user_id", pa.array(["x"] * 3000))
    with pytest.raises(ValueError, match="no impression of a user and an item of games"):
        task_of(corpus, tmp_path, strangers)
    with pytest.raises(ValueError, match="no column 'clicked'; there are user_id, item_id"):
        task_of(corpus, tmp_path, table.drop_columns(["clicked"]))


def test_impressions_of_all_services_are_found_by_their_service(
    corpus: Corpus, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "user_id": ["u001", "u000", "u001", "nobody", "u000"],
            "service": ["games", "books", "books", "games", "shoes"],
            "item_id": ["g03", "g03", "g04", "g03", "g03"],
            "clicked": [True, False, True, True, True],
            "law": [0.7, 0.2, 0.9, 0.5, 0.5],
        }
    )
    file = tmp_path / "all.parquet"
    pq.write_table(table, file)
    config = ClicksConfig(name="all", impressions=file, probability="law", cutoff=5.0)
    found = read_impressions(corpus, config)
    services = [corpus.services[n] for n in corpus.item_service[found.items]]
    assert services == ["games", "books", "books"]
    assert corpus.item_ids.take(pa.array(found.items)).to_pylist() == ["g03", "g03", "g04"]
    assert corpus.user_ids.take(pa.array(found.users)).to_pylist() == ["u001", "u000", "u001"]
    assert found.probability.tolist() == [0.7, 0.2, 0.9] and found.cutoff.tolist() == [5.0] * 3
    with pytest.raises(ValueError, match="no column 'service'"):
        pq.write_table(table.drop_columns("service"), file)
        read_impressions(corpus, config)


def test_the_rate_of_an_item_is_beside_every_vector_but_where_it_stands_alone(
    corpus: Corpus, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    users, items, table = planted(corpus)
    number = np.array([int(name.as_py()[1:]) for name in table["item_id"]])
    clicked = rng.random(3000) < 1 / (1 + np.exp(-(number - 9.5) / 3))
    task = task_of(corpus, tmp_path, table.set_column(2, "clicked", pa.array(clicked)))
    noise = GivenUsers(rng.normal(size=(USERS, 40)))
    rate = figures(task, task.baselines([])[1])
    beside, alone = (figures(task, noise, probe) for probe in ("linear", "vector alone"))
    assert rate["AUC"] > 0.75 and abs(beside["AUC"] - rate["AUC"]) < 0.01
    assert alone["AUC"] < 0.57
    # The rates are those of the rival: of training rows from the users of the other folds.
    (x, *others), blocks = task._inputs(noise, "linear")
    rates = task.rate
    more = {"item rate": slice(40, 41), "item counts": slice(41, 43)}
    assert blocks == {"vector": slice(0, 40), **more}
    assert x[:, 40] == pytest.approx(rates.training_items()[:, 0])
    for part, each in zip(task.parts[1:], others, strict=True):
        assert each[:, 40] == pytest.approx(rates.items()[part.items][:, 0])
        shown = np.bincount(task.parts[0].items, minlength=corpus.num_items)[part.items]
        assert each[:, 41] == pytest.approx(np.log1p(shown))
    assert task.score(noise, "linear").chosen["smoothing"] == rates.smoothing
    assert "smoothing" not in task.score(noise, "vector alone").chosen
