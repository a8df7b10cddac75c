"""A planted taste is found and a shuffled one not; features are blind to what comes at or later."""

# pyright: standard

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.tasks.impression_ranking import ImpressionRankingConfig, ImpressionRankingTask
from clue.data.corpus import Corpus
from tests.benchmarks.tasks.given import Given, GivenUsers
from tests.benchmarks.worlds import corpus_of, parts

USERS, TOPICS, ITEMS, SHOWN = 240, 4, 48, 8
START = 1_600_000_000.0
NAMES = [f"topic{item % TOPICS}_n{item:02}" for item in range(ITEMS)]
TASTE = np.random.default_rng(0).integers(0, TOPICS, USERS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Everybody has read five items of their topic, and the catalogue somebody's whole reading."""
    rng, events = np.random.default_rng(1), list[tuple[str, str, str]]()
    for user, taste in zip(parts(USERS), TASTE, strict=True):
        items = np.flatnonzero(np.arange(ITEMS) % TOPICS == taste)
        events += [(user, "news", NAMES[item]) for item in rng.permutation(items)[:5]]
    events += [("all", "news", name) for name in NAMES]
    times = (START - 10_000 + np.arange(len(events))).tolist()
    return corpus_of(
        tmp_path_factory.mktemp("news"), events, {**parts(USERS), "all": "train"}, times
    )


def impressions(score: np.ndarray, seed: int = 2) -> pa.Table:
    """Two impressions of each user, a minute apart, whose item of the best score is clicked."""
    rng, rows = np.random.default_rng(seed), list[dict[str, object]]()
    for number in range(2 * USERS):
        user = number % USERS
        shown = rng.permutation(ITEMS)[:SHOWN]
        best = shown[np.argmax(score[user, shown] + 0.01 * rng.random(SHOWN))]
        for item in shown:
            row = {"impression": number, "user_id": f"u{user:03}", "item_id": NAMES[item]}
            row |= {"timestamp": START + 60.0 * number, "clicked": int(item == best)}
            rows.append(row)
    return pa.Table.from_pylist(rows)


def task_of(corpus: Corpus, directory: Path, shown: pa.Table) -> ImpressionRankingTask:
    file, items = directory / "impressions.parquet", directory / "items.parquet"
    pq.write_table(shown, file)
    topics = [name.split("_")[0] for name in NAMES]
    pq.write_table(pa.table({"item_id": NAMES, "category": topics}), items)
    return ImpressionRankingConfig(name="news/click", impressions=file, items=items).build(corpus)


def figures(task: ImpressionRankingTask, model: object, probe: str = "linear") -> dict[str, float]:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    assert scored.queries.num_rows == 120 and len(scored.queries["user_id"].unique()) == 60
    ones = np.ones((1, 120))
    return {n: float(m.statistic(scored.queries)(ones)[0]) for n, m in scored.measures.items()}


def by_topic(corpus: Corpus) -> Given:
    users = np.zeros((corpus.num_users, TOPICS))
    names = corpus.user_ids.to_pylist()
    users[[names.index(user) for user in parts(USERS)]] = np.eye(TOPICS)[TASTE]
    ids = corpus.item_ids.to_pylist()
    return Given(users, np.eye(TOPICS)[[int(name[5]) for name in ids]])


def own_topic() -> np.ndarray:
    return (np.arange(ITEMS) % TOPICS == TASTE[:, None]).astype(float)


def test_a_taste_is_found_by_vectors_titles_and_categories(corpus: Corpus, tmp_path: Path) -> None:
    task, model = task_of(corpus, tmp_path, impressions(own_topic())), by_topic(corpus)
    rows = {row.name: row for row in task.baselines([])}
    compared = [figures(task, model, probe)["AUC"] for probe in task.probes]
    compared += [figures(task, rows[name])["AUC"] for name in ("titles", "categories")]
    # Of an impression's two items of the topic on average one is clicked: about .9 is perfect.
    assert len(compared) == 5 and min(compared) > 0.85
    assert figures(task, rows["aggregates"])["AUC"] > 0.8
    assert figures(task, rows["item rate"])["AUC"] < 0.62


def test_without_a_taste_all_rows_are_at_chance(corpus: Corpus, tmp_path: Path) -> None:
    task = task_of(corpus, tmp_path, impressions(np.zeros((USERS, ITEMS))))
    rows = [by_topic(corpus), *task.baselines([])]
    found = [figures(task, row, p) for row in rows for p in task.probes if task.supports(row, p)]
    assert len(found) == 9
    assert all(0.4 < each["AUC"] < 0.6 and each["NDCG@5"] < 0.55 for each in found)
    constant = Given(np.ones((corpus.num_users, 1)), np.ones((corpus.num_items, 1)))
    chance = figures(task, constant, "zero-shot")
    assert chance["AUC"] == pytest.approx(0.5)
    assert chance["MRR"] == pytest.approx(np.mean(1 / np.arange(1, SHOWN + 1)))


def test_popular_items_are_found_by_their_rate_and_by_random_vectors_beside_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    task = task_of(corpus, tmp_path, impressions(np.tile(rng.random(ITEMS), (USERS, 1))))
    rows = {row.name: row for row in task.baselines([])}
    assert figures(task, rows["item rate"])["AUC"] > 0.9
    assert figures(task, rows["popularity"])["AUC"] > 0.85
    noise = GivenUsers(rng.normal(size=(corpus.num_users, 4)))
    assert figures(task, noise)["AUC"] > 0.9
    assert figures(task, noise, "vector alone")["AUC"] == pytest.approx(0.5)


def test_a_model_without_items_ranks_by_a_linear_probe_alone(
    corpus: Corpus, tmp_path: Path
) -> None:
    model = GivenUsers(np.ones((corpus.num_users, 1)))
    task = task_of(corpus, tmp_path, impressions(own_topic()))
    supported = [probe for probe in task.probes if task.supports(model, probe)]
    assert supported == ["linear", "vector alone"]


def test_features_are_blind_to_clicks_at_the_moment_and_later(
    corpus: Corpus, tmp_path: Path
) -> None:
    shown = impressions(own_topic())
    plain = task_of(corpus, tmp_path, shown)
    chosen = plain.features.chosen

    def columns(clicked: np.ndarray) -> list[dict[str, np.ndarray]]:
        task = task_of(corpus, tmp_path, shown.set_column(4, "clicked", pa.array(clicked)))
        task.features.chosen = chosen  # the tuning reads valid labels
        return task.columns

    # The last impressions are of the test users: what is clicked in them is in no feature ...
    clicked, number = shown["clicked"].to_numpy(), shown["impression"].to_numpy()
    last = number >= 480 - 60
    moved = np.where(last, np.roll(clicked.reshape(-1, SHOWN), 1, 1).ravel(), clicked)
    assert (moved != clicked).sum() > 100
    compared = 0
    for part, (one, two) in enumerate(zip(plain.columns, columns(moved), strict=True)):
        for name, values in one.items():
            rows = slice(None) if part < 2 else slice(0, 60 * SHOWN + 8)
            assert np.array_equal(values[rows], two[name][rows]), name
            compared += values[rows].size
    assert compared > 10_000
    # ... while a click of the first half is in those of the second: a leak would be seen.
    early = np.where(number < 60, np.roll(clicked.reshape(-1, SHOWN), 1, 1).ravel(), clicked)
    assert not np.array_equal(plain.columns[2]["item rate"], columns(early)[2]["item rate"])


def test_all_clicked_items_and_four_others_each_fit_the_probe(
    corpus: Corpus, tmp_path: Path
) -> None:
    task = task_of(corpus, tmp_path, impressions(own_topic()))
    for part, kept in zip(task.parts[:2], task.fitted_on, strict=False):
        assert part.clicked[kept].sum() == part.clicked.sum() == len(part.users)
        per = np.bincount(part.row[kept], minlength=len(part.users))
        assert set(per.tolist()) == {5} and len(np.unique(kept)) == len(kept)
    assert len(task.fitted_on[2]) == len(task.parts[2].items)


def test_an_impression_of_two_users_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    shown = impressions(own_topic())
    users = shown["user_id"].to_pylist()
    users[0] = "u009"
    with pytest.raises(ValueError, match="an impression has two moments or two users"):
        task_of(corpus, tmp_path, shown.set_column(1, "user_id", pa.array(users)))
