"""Next items: nothing of the answers in the pasts, metrics as ranx has them, a planted map."""

# pyright: standard

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.counts import LogCounts
from benchmarks.protocols import WHOLE
from benchmarks.snapshot import Snapshot, snapshot_at
from benchmarks.tasks.next_item import NextItemConfig, NextItemTask
from clue.data.corpus import Corpus
from clue.data.sequences import SequencesConfig
from tests.benchmarks.item_runs import saved_run
from tests.benchmarks.worlds import Event, corpus_of, parts

USERS, ITEMS = 240, 30


def ring() -> list[Event]:
    """Everybody walks a ring of items from somewhere, in a shop, and reads news in between."""
    rng = np.random.default_rng(0)
    events: list[Event] = []
    for user in parts(USERS):
        start, steps = rng.integers(ITEMS), rng.integers(3, 8)
        for step in range(steps):
            events.append((user, "shop", f"item{(start + step) % ITEMS:02}"))
            events.append((user, "news", f"news{rng.integers(9)}"))
    return [*events, ("few", "shop", "item00"), ("few", "shop", "item01")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of(tmp_path_factory.mktemp("ring"), ring(), {**parts(USERS), "few": "train"})


class Given:
    """A model of given vectors of users and items."""

    name, seed, fingerprint = "given", 0, "given"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, users: Callable[[Snapshot], np.ndarray], items: np.ndarray) -> None:
        self._users, self._items = users, items

    def users(self, past: Snapshot) -> np.ndarray:
        return self._users(past)

    def items(self) -> np.ndarray:
        return self._items


def task_of(corpus: Corpus, **changes: object) -> NextItemTask:
    return NextItemConfig(**{"name": "next", "service": "shop", **changes}).build(corpus)  # type: ignore[arg-type]


def last_met(past: Snapshot) -> np.ndarray:
    items, _ = past.parts[past.corpus.services.index("shop")]
    return np.eye(past.corpus.num_items)[items.values[items.offsets[1:] - 1]]


def test_a_past_is_what_lies_before_the_target_in_that_service_alone(corpus: Corpus) -> None:
    task, shop = task_of(corpus), corpus.services.index("shop")
    whole = corpus.items_of(shop)
    assert len(task.queried) == USERS
    for row, user in enumerate(task.users[task.queried]):
        *before, valid, test = whole[user].tolist()
        assert task.before_valid.parts[shop][0][row].tolist() == before
        assert task.before_test.parts[shop][0][row].tolist() == [*before, valid]
        assert (task.valid_items[row], task.test_items[row]) == (valid, test)
    assert not len(task.before_test.parts[1 - shop][0].values)
    assert len(task.training.parts[shop][0].values) == len(whole.values) - 2 * USERS
    assert task.training.lengths[corpus.user_ids.to_pylist().index("few")] == 2


def test_a_past_that_holds_the_target_raises(corpus: Corpus) -> None:
    task = task_of(corpus)
    whole = snapshot_at(corpus, task.users, services=["shop"])
    with pytest.raises(ValueError, match="user u000 has an event of shop at"):
        Snapshot(corpus, task.users, whole.parts, task.before_test.cutoff)


@pytest.mark.filterwarnings("ignore:unsafe cast from uint64")  # ranx's own code, compiled
@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in ranx, at its first import
def test_metrics_equal_those_of_ranx(corpus: Corpus) -> None:
    from ranx.metrics import hit_rate, ndcg

    rng = np.random.default_rng(1)
    users, items = rng.normal(size=(USERS + 1, 6)), rng.normal(size=(corpus.num_items, 6))
    task = task_of(corpus)
    scored = task.score(Given(lambda past: users[past.users], items), "zero-shot")
    scores = users[task.users] @ items[task.items].T
    order = np.argsort(-scores, axis=1)
    listed = np.stack([task.items[order], np.take_along_axis(scores, order, 1)], axis=2)
    truth = np.stack([task.test_items, np.ones(USERS)], axis=1)[:, None]
    hits = hit_rate(truth, listed, 10, 1)
    assert scored.queries["ndcg_10"].to_numpy() == pytest.approx(
        ndcg(truth, listed, 10, 1), abs=1e-9
    )
    assert scored.queries["hit_10"].to_numpy() == pytest.approx(hits, abs=1e-9)
    assert 0 < hits.mean() < 1


def test_constant_scores_are_chance(corpus: Corpus) -> None:
    constant = Given(lambda past: np.ones((len(past), 2)), np.ones((corpus.num_items, 2)))
    scored = task_of(corpus).score(constant, "zero-shot")
    assert scored.queries["hit_10"].to_numpy() == pytest.approx(np.full(USERS, 10 / ITEMS))


def test_items_alike_share_the_places_that_they_take(corpus: Corpus) -> None:
    task = task_of(corpus)
    first = np.isin(np.arange(corpus.num_items), task.items[:20])
    items = np.eye(2)[np.where(first, 0, 1)]
    scored = task.score(Given(lambda past: np.eye(2)[np.zeros(len(past), int)], items), "zero-shot")
    expected = np.where(first[task.test_items], 10 / 20, 0)
    assert scored.queries["hit_10"].to_numpy() == pytest.approx(expected)
    assert 0 < expected.mean() < 0.5


def test_the_linear_probe_finds_the_planted_step_of_the_ring(corpus: Corpus) -> None:
    model = Given(last_met, np.eye(corpus.num_items))
    task = task_of(corpus)
    zero, linear = (
        task.score(model, probe).queries["ndcg_10"].to_numpy().mean()
        for probe in ("zero-shot", "linear")
    )
    assert zero < 0.3  # it ranks first what was met last
    assert linear > 0.95
    rng = np.random.default_rng(2)
    noise = Given(lambda past: rng.normal(size=(len(past), 39)), np.eye(corpus.num_items))
    assert task.score(noise, "linear").queries["ndcg_10"].to_numpy().mean() < 0.35


def test_what_was_met_leaves_the_ranking_where_it_is_filtered(corpus: Corpus) -> None:
    model = Given(last_met, np.eye(corpus.num_items))
    hits = [
        task_of(corpus, filter_seen=filtered).score(model, "zero-shot").queries["hit_10"]
        for filtered in (False, True)
    ]
    met = task_of(corpus).before_test.lengths
    assert hits[0].to_numpy() == pytest.approx(np.full(USERS, 9 / (ITEMS - 1)))
    assert hits[1].to_numpy() == pytest.approx(10 / (ITEMS - met))


def test_popularity_is_counted_on_training_events_and_sliced_by_them(corpus: Corpus) -> None:
    task = task_of(corpus)
    popularity = task.baselines([])[0]
    scored = task.score(popularity, "fitted")
    shop = corpus.services.index("shop")
    counts = np.zeros(corpus.num_items)
    for row in range(len(corpus.user_ids)):
        met = corpus.items_of(shop)[row]
        np.add.at(counts, met if len(met) < 3 else met[:-2], 1)
    counts, targets = counts[task.items], np.searchsorted(task.items, task.test_items)
    for user, target in enumerate(targets):
        better, equal = (counts > counts[target]).sum(), (counts == counts[target]).sum()
        chance = np.clip((10 - better) / equal, 0, 1)
        assert scored.queries["hit_10"][user].as_py() == pytest.approx(chance)
    names = np.array(scored.queries["slice popularity"].to_pylist())
    assert counts[targets][names == "tail"].max() < counts[targets][names == "head"].min()
    seen = np.array(scored.queries["slice users"].to_pylist()) == "seen"
    assert seen.tolist() == (corpus.split[task.users] == 0).tolist()
    assert scored.chosen["coverage@10"] == 10 / ITEMS
    assert not hasattr(popularity, "_counts")  # its copy was fitted and is gone


def test_every_rival_is_asked_once_and_models_thrice(corpus: Corpus, tmp_path: Path) -> None:
    task = task_of(corpus, clock_times=True, most=50)
    model = Given(last_met, np.eye(corpus.num_items))
    assert [probe for probe in task.probes if task.supports(model, probe)] == [
        "linear",
        "zero-shot",
        "zero-shot + popularity",
    ]
    names = ["popularity", "item-kNN", "EASE", "iALS", "recent popularity"]
    baselines = task.baselines([])
    assert [baseline.name for baseline in baselines] == names
    plain = task_of(corpus, most=50)  # without clocks nothing is recent, and all else is as it was
    assert [baseline.name for baseline in plain.baselines([])] == names[:-1]
    assert plain.recipe == task.recipe
    assert all([p for p in task.probes if task.supports(r, p)] == ["fitted"] for r in baselines)
    found = task.score(baselines[1], "fitted")  # the ring: neighbours are what comes next
    assert found.queries.num_rows == 50
    assert found.queries["hit_10"].to_numpy().mean() > 0.9
    assert {"shrinkage", "neighbours", "valid NDCG@10"} < found.chosen.keys()


def test_a_supervised_run_is_a_row_of_its_own(corpus: Corpus, tmp_path: Path) -> None:
    run = saved_run(tmp_path, "own", corpus, SequencesConfig(services=["shop"]))
    task = task_of(corpus, supervised=run)
    baseline = task.baselines([])[-1]
    assert baseline.name == "SASRec (own, supervised)"
    scored = task.score(baseline, "fitted")
    assert scored.queries.num_rows == USERS
    assert scored.chosen["step"] == 5


def test_what_cannot_be_asked_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="no service 'zoo'"):
        task_of(corpus, service="zoo")
    blind = LogCounts(corpus)
    with pytest.raises(ValueError, match="log counts has no vectors of items"):
        task_of(corpus).score(blind, "zero-shot")
    assert not any(task_of(corpus).supports(blind, probe) for probe in NextItemTask.probes)


def newcomers(tmp_path: Path) -> Corpus:
    """Two users whose last event in the shop follows news, and one who read news too late."""
    events: list[Event] = [
        *[("t1", "shop", item) for item in ("x", "y", "x")],
        *[("t1", "news", "n1"), ("t1", "shop", "y")],
        *[("e1", "news", "n1"), ("e1", "news", "n2")],
        *[("e1", "shop", item) for item in ("y", "y", "z")],
        *[("e2", "shop", item) for item in ("x", "y", "z")],
        *[("e2", "news", "n2")],
    ]
    return corpus_of(tmp_path, events, {"t1": "train", "e1": "test", "e2": "test"})


def test_the_history_may_be_that_of_the_other_services(tmp_path: Path) -> None:
    corpus = newcomers(tmp_path)
    task = task_of(corpus, past="other", users="held_out", filter_seen=True)
    # e2's news came after the shop's last event, and t1 is no held-out user.
    past = task.before_test
    assert [str(corpus.user_ids[int(user)]) for user in past.users] == ["e1"]
    news, shop = (past.parts[corpus.services.index(name)][0] for name in ("news", "shop"))
    assert [str(corpus.item_ids[int(item)]) for item in news.values] == ["n1", "n2"]
    assert not len(shop.values)
    # What was met in the shop itself still leaves the ranking: y is out, x and z are left.
    answers = task.score(
        Given(lambda _: np.ones((1, 2)), np.ones((corpus.num_items, 2))), "zero-shot"
    )
    assert answers.queries["reciprocal"].to_pylist() == [pytest.approx((1 + 1 / 2) / 2)]
    assert [each.name for each in task.baselines([])] == ["popularity"]
    assert task.recipe["past"] == "other" and "past" not in task_of(corpus).recipe


def test_nobody_with_another_service_before_is_refused(tmp_path: Path) -> None:
    events: list[Event] = [(user, "shop", item) for user in ("t", "e") for item in "xyz"]
    corpus = corpus_of(tmp_path, events, {"t": "train", "e": "test"})
    with pytest.raises(ValueError, match="no held_out user has an event of another service"):
        task_of(corpus, past="other", users="held_out")


def head_heavy(directory: Path) -> Corpus:
    """Events in a shop whose item k is met in proportion to 1 / (k + 1)^2, whoever the user is."""
    rng = np.random.default_rng(3)
    chance = 1 / np.arange(1, ITEMS + 1) ** 2
    events: list[Event] = [
        (user, "shop", f"item{item:02}")
        for user in parts(USERS)
        for item in rng.choice(ITEMS, 6, p=chance / chance.sum())
    ]
    return corpus_of(directory, events, parts(USERS))


def ndcg(task: NextItemTask, model: object, probe: str) -> float:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    return float(scored.queries["ndcg_10"].to_numpy().mean())


def test_popularity_is_beside_every_vector_but_in_zero_shot(tmp_path: Path) -> None:
    task = task_of(head_heavy(tmp_path))
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(task.corpus.num_users, 5))
    noise = Given(lambda past: vectors[past.users], rng.normal(size=(task.corpus.num_items, 5)))
    popular = ndcg(task, task.baselines([])[0], "fitted")
    assert ndcg(task, noise, "zero-shot") < popular - 0.2
    for probe in ("zero-shot + popularity", "linear"):
        assert ndcg(task, noise, probe) == pytest.approx(popular, abs=0.02)
        assert task.score(noise, probe).chosen["popularity"] >= 1


def test_popularity_has_no_weight_where_it_says_nothing(corpus: Corpus) -> None:
    # In the ring every item is as common as another; the vectors know what comes next.
    def following(past: Snapshot) -> np.ndarray:
        items, _ = past.parts[past.corpus.services.index("shop")]
        met = past.corpus.item_ids.take(items.values[items.offsets[1:] - 1]).to_pylist()
        names = past.corpus.item_ids.to_pylist()
        after = [names.index(f"item{(int(name[4:]) + 1) % ITEMS:02}") for name in met]
        return np.eye(past.corpus.num_items)[after]

    model, task = Given(following, np.eye(corpus.num_items)), task_of(corpus)
    scored = task.score(model, "zero-shot + popularity")
    assert scored.chosen["popularity"] == 0
    assert scored.queries["ndcg_10"].to_numpy().mean() == 1


def test_the_linear_probe_reads_blocks_that_no_item_has(corpus: Corpus) -> None:
    # What was met last stands in columns where items have zeros; 60 others hold noise.
    rng = np.random.default_rng(5)
    width = corpus.num_items
    noise = 100 * rng.normal(size=(corpus.num_users, 60))

    def users(past: Snapshot) -> np.ndarray:
        return np.concatenate([np.zeros((len(past), width)), last_met(past), noise[past.users]], 1)

    items = np.concatenate([np.eye(width), np.zeros((width, width + 60))], axis=1)
    model, task = Given(users, items), task_of(corpus)
    model.blocks = {
        "items": slice(0, width),
        "met": slice(width, 2 * width),
        "noise": slice(2 * width, 2 * width + 60),
    }
    scored = task.score(model, "linear")
    assert scored.queries["ndcg_10"].to_numpy().mean() > 0.9
    assert scored.chosen["factors"]["noise"] < scored.chosen["factors"]["met"]


def test_without_valid_users_only_zero_shot_is_left_to_vectors(tmp_path: Path) -> None:
    events: list[Event] = [(user, "shop", item) for user in ("t", "e") for item in "xyz"]
    corpus = corpus_of(tmp_path, events, {"t": "train", "e": "test"})
    task, model = task_of(corpus), Given(last_met, np.eye(corpus.num_items))
    assert [probe for probe in task.probes if task.supports(model, probe)] == ["zero-shot"]
