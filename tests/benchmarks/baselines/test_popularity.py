"""The tuned baselines equal slow references, find planted tastes and find none in shuffled logs."""

# pyright: standard

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.baselines import popularity
from benchmarks.baselines.collaborative import (
    Ease,
    ImplicitALS,
    ItemKNN,
    ease_weights,
    place_in_row,
    shrunk_cosines,
)
from benchmarks.baselines.popularity import Fold, Popularity, RecentPopularity, Tuned, catalogue
from benchmarks.baselines.sasrec import SupervisedItems
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.data.corpus import Corpus
from clue.data.sequences import SequencesConfig
from tests.benchmarks.item_runs import saved_run, two_services
from tests.benchmarks.worlds import Event, corpus_of, parts

TASTES, EACH, LONG = 6, 10, 6


def tastes(*, shuffled: bool) -> list[Event]:
    """Users of 6 tastes, who meet 6 of its 10 items; or 6 items of anything."""
    rng = np.random.default_rng(0)
    events: list[Event] = []
    for number, user in enumerate(parts(120)):
        own = np.arange(EACH) + EACH * (number % TASTES)
        items = np.arange(EACH * TASTES) if shuffled else own
        events += [(user, "shop", f"item{item:02}") for item in rng.permutation(items)[:LONG]]
    return events


@pytest.fixture(scope="module", params=["planted", "shuffled"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    events = tastes(shuffled=request.param == "shuffled")
    return corpus_of(tmp_path_factory.mktemp(request.param), events, parts(120))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of(tmp_path_factory.mktemp("one"), tastes(shuffled=False), parts(120))


def questions(corpus: Corpus, *, back: int = 1) -> tuple[Snapshot, np.ndarray]:
    """The past of everybody before the last event but so many, and that event's item."""
    users, items, times = np.arange(120), corpus.items_of(0), corpus.timestamps_of(0)
    at = items.offsets[1:] - back
    return snapshot_at(corpus, users, times.values[at]), items.values[at]


def fitted(ranker: Tuned, corpus: Corpus) -> Tuned:
    past, targets = questions(corpus, back=2)
    ranker.fit(past, past, targets, "shop")
    return ranker


def scores(ranker: Tuned, past: Snapshot) -> np.ndarray:
    return np.concatenate(list(ranker.scores(past, catalogue(past.corpus, "shop"))))


def dense(past: Snapshot) -> np.ndarray:
    met = np.zeros((len(past), past.corpus.num_items))
    for user in range(len(past)):
        met[user, past.parts[0][0][user]] = 1
    return met


def test_a_column_of_ease_is_the_ridge_regression_on_all_the_others() -> None:
    met = (np.random.default_rng(0).random((200, 30)) < 0.2).astype(np.float32)
    found = ease_weights(met.T @ met, 7.0)
    assert np.diagonal(found).tolist() == [0.0] * 30
    for column in range(30):
        others = np.delete(met, column, axis=1).astype(np.float64)
        slow = np.linalg.solve(others.T @ others + 7 * np.eye(29), others.T @ met[:, column])
        assert np.delete(found[:, column], column) == pytest.approx(slow, abs=1e-5)


def test_ease_is_the_inverse_over_its_diagonal() -> None:
    met = (np.random.default_rng(1).random((300, 70)) < 0.1).astype(np.float64)
    inverse = np.linalg.inv(met.T @ met + 50 * np.eye(70))
    slow = -inverse / np.diagonal(inverse)
    slow[np.diag_indices(70)] = 0
    assert ease_weights(met.T @ met, 50.0) == pytest.approx(slow, abs=1e-9)


def test_ease_beyond_its_limit_scores_only_the_items_of_most_events(
    planted: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ease, "TUNED_ON", 20)
    monkeypatch.setattr(Ease, "LIMIT", 40)
    ranker = fitted(Ease(filter_seen=True), planted)
    past, _ = questions(planted)
    met = dense(questions(planted, back=2)[0])
    known = np.sort(np.argsort(-met.sum(0), kind="stable")[:40])
    weights = ease_weights(met[:, known].T @ met[:, known], ranker.chosen["ridge"])
    found = scores(ranker, past)
    assert found[:, known] == pytest.approx(dense(past)[:, known] @ weights, abs=1e-5)
    rest = np.setdiff1d(np.arange(planted.num_items), known)
    assert len(rest) == 20
    assert not found[:, rest].any()
    assert ranker.chosen["tuned on"] == 20


def test_item_knn_equals_a_loop(planted: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ItemKNN, "SHRINKAGES", (2.5,))
    monkeypatch.setattr(ItemKNN, "NEIGHBOURS", (4,))
    ranker = fitted(ItemKNN(filter_seen=True), planted)
    train, past = dense(questions(planted, back=2)[0]), questions(planted)[0]
    items = train.shape[1]
    cosines = np.zeros((items, items))
    for i in range(items):
        for j in range(items):
            if i != j:
                norms = np.sqrt(train[:, i].sum() * train[:, j].sum())
                cosines[i, j] = (train[:, i] * train[:, j]).sum() / (norms + 2.5)
    for i in range(items):  # ties by the number of the item
        cosines[i, np.argsort(-cosines[i].astype(np.float32), kind="stable")[4:]] = 0
    assert scores(ranker, past) == pytest.approx(dense(past) @ cosines, abs=1e-5)
    assert ranker.chosen["neighbours"] == 4


def test_places_in_rows_count_from_the_greatest() -> None:
    values = csr_matrix(np.array([[0.0, 3, 5, 1], [2, 0, 2, 0], [0, 0, 0, 0]]))
    assert place_in_row(values).tolist() == [1, 0, 2, 0, 1]


def test_cosines_of_an_item_that_nobody_met_are_zero() -> None:
    met = csr_matrix(np.array([[1.0, 1, 0], [1, 0, 0]], np.float32))
    found = shrunk_cosines(met, 0.0).toarray()
    assert found == pytest.approx(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]]) / np.sqrt(2))


def test_popularity_ranks_by_counts_of_events(planted: Corpus) -> None:
    ranker = fitted(Popularity(), planted)
    train, _ = questions(planted, back=2)
    found = scores(ranker, questions(planted)[0])
    assert found.shape == (120, 60)
    assert (found == np.bincount(train.parts[0][0].values, minlength=60)).all()
    assert len(np.unique(found[0])) > 3


def test_recent_popularity_finds_the_days_after_which_the_fashion_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popularity, "DAY", 1.0)  # an event a second
    old = [(f"u{n:03}", "shop", f"old{n % 3}") for n in range(40)]
    new = [(f"u{n:03}", "shop", f"new{n % 4}") for n in range(40)]
    corpus = corpus_of(tmp_path, [*old, *new], parts(40))
    past = snapshot_at(corpus, np.arange(40))
    ranker = RecentPopularity(filter_seen=False)
    targets = corpus.items_of(0).values[corpus.items_of(0).offsets[1:] - 1]
    ranker.fit(past, past, targets, "shop")
    assert ranker.chosen["days"] in (7, 14, 30)
    names = corpus.item_ids.to_pylist()
    found = dict(zip(names, scores(ranker, past)[0], strict=True))
    days = ranker.chosen["days"]
    assert sum(found.values()) == days  # one event a day, the last at age 0
    assert all(found[name] == 0 for name in names if name.startswith("old"))
    nothing = snapshot_at(corpus, np.arange(40), np.full(40, -1.0))
    with pytest.raises(ValueError, match="no training event of shop"):
        ranker.fit(nothing, past, targets, "shop")


@pytest.mark.parametrize("ranker", [ImplicitALS, Ease, ItemKNN])
def test_planted_tastes_are_found_and_shuffled_ones_are_not(
    both: Corpus, ranker: type[ImplicitALS], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImplicitALS, "FACTORS", (8,))
    past, targets = questions(both)
    found = scores(fitted(ranker(filter_seen=True), both), past)
    found[dense(past) > 0] = -np.inf
    hits = (np.argsort(-found, axis=1)[:, :5] == targets[:, None]).any(1).mean()
    own = len(np.unique(both.items_of(0)[0] // 10)) == 1
    # the target is one of the 5 that are left of the taste, or one of the 55 left of all
    assert hits > 0.95 if own else hits < 0.25


def test_the_setting_that_is_best_on_the_valid_items_is_chosen(
    planted: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    past, targets = questions(planted, back=2)
    fold = Fold.of(past, past, targets, "shop", filter_seen=True)
    alone: dict[float, float] = {}
    for ridge in Ease.RIDGES:
        with monkeypatch.context() as patch:
            patch.setattr(Ease, "RIDGES", (ridge,))
            one = fitted(Ease(filter_seen=True), planted)
        alone[ridge] = fold.ndcg(one.scores(past, fold.items))
    assert len(alone) == 7
    chosen = fitted(Ease(filter_seen=True), planted).chosen
    assert chosen["valid NDCG@10"] == max(alone.values())
    assert alone[chosen["ridge"]] == max(alone.values()) > min(alone.values())


def test_items_that_were_not_learnt_are_refused(planted: Corpus) -> None:
    ranker, past = fitted(ItemKNN(filter_seen=True), planted), questions(planted)[0]
    with pytest.raises(ValueError, match="7 items are asked of a ranker that learnt 60 of shop"):
        list(ranker.scores(past, np.arange(7)))
    with pytest.raises(ValueError, match="no service 'zoo'"):
        catalogue(planted, "zoo")


def test_a_supervised_run_of_another_corpus_ranks_the_same_items(tmp_path: Path) -> None:
    theirs = two_services(tmp_path / "theirs")
    run = saved_run(tmp_path / "runs", "own", theirs, SequencesConfig(services=["shop"]))
    own = SupervisedItems(run, theirs, "shop")
    past = snapshot_at(theirs, np.arange(16), services=["shop"])
    wanted = np.concatenate(list(own.scores(past, catalogue(theirs, "shop"))))
    assert wanted.shape == (16, 30)

    # the same log without its other service: the items have other numbers
    names, service = theirs.item_ids.to_pylist(), theirs.services.index("shop")
    users = theirs.user_ids.to_pylist()
    met = theirs.items_of(service)
    events = [(user, "shop", names[i]) for n, user in enumerate(users) for i in met[n]]
    ours = corpus_of(tmp_path / "ours", events, parts(16))
    other = SupervisedItems(run, ours, "shop")
    found = other.scores(snapshot_at(ours, np.arange(16)), catalogue(ours, "shop"))
    assert np.concatenate(list(found)) == pytest.approx(wanted, abs=1e-5)

    more = corpus_of(tmp_path / "more", [*events, ("u000", "shop", "shop99")], parts(16))
    unknowing = SupervisedItems(run, more, "shop")
    with pytest.raises(ValueError, match="does not know 1 of 31 items of shop, shop99"):
        list(unknowing.scores(snapshot_at(more, np.arange(16)), catalogue(more, "shop")))


def test_a_supervised_run_that_may_have_read_the_answers_is_refused(tmp_path: Path) -> None:
    corpus = two_services(tmp_path / "theirs")
    run = saved_run(tmp_path / "runs", "joined", corpus, SequencesConfig(join="time"))
    model = SupervisedItems(run, corpus, "shop")
    past = snapshot_at(corpus, np.arange(16), services=["shop"])
    with pytest.raises(ValueError, match="may hold the answers for shop"):
        list(model.scores(past, catalogue(corpus, "shop")))
