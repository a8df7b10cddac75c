"""A new service: nothing of it in the pasts, planted tastes carried over, labels used alone."""

# pyright: standard

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.protocols import WHOLE
from benchmarks.snapshot import Snapshot
from benchmarks.tasks.new_service import DRAWS, NewServiceConfig, NewServiceTask
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import Event, corpus_of, parts

USERS, TASTES, EACH = 480, 4, 20
STAY = 20  # users who are in no other service


def events() -> list[Event]:
    """Users of 4 tastes, who meet three items of that taste in the shop and three in the lab."""
    rng = np.random.default_rng(0)
    found: list[Event] = []
    for number, user in enumerate(parts(USERS)):
        taste = number % TASTES
        for service in ("lab", "shop")[: 1 if number < STAY else 2]:
            for item in rng.permutation(EACH)[:3]:
                found.append((user, service, f"{service}{taste}x{item:02}"))
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of(tmp_path_factory.mktemp("lab"), events(), parts(USERS))


@pytest.fixture(scope="module")
def task(corpus: Corpus) -> NewServiceTask:
    return NewServiceConfig(name="new", service="lab").build(corpus)


class Given:
    """A model of given vectors."""

    name, seed, fingerprint = "given", 0, "given"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, users: Callable[[Snapshot], np.ndarray], items: np.ndarray) -> None:
        self._users, self._items = users, items

    def users(self, past: Snapshot) -> np.ndarray:
        return self._users(past)

    def items(self) -> np.ndarray:
        return self._items


def taste_of(corpus: Corpus) -> np.ndarray:
    return np.array([int(name.split("x")[0][-1]) for name in corpus.item_ids.to_pylist()])


def tastes(past: Snapshot) -> np.ndarray:
    """The taste of what was met last in the shop, as a unit vector."""
    items, _ = past.parts[past.corpus.services.index("shop")]
    return np.eye(TASTES)[taste_of(past.corpus)[items.values[items.offsets[1:] - 1]]]


def hits(task: NewServiceTask, model: object, probe: str) -> float:
    return float(task.score(model, probe).queries["hit_10"].to_numpy().mean())  # type: ignore[arg-type]


def test_held_out_users_of_both_are_asked_for_their_first_item(
    corpus: Corpus, task: NewServiceTask
) -> None:
    lab = corpus.services.index("lab")
    ids = np.array(corpus.user_ids.to_pylist())
    assert task.test_users.tolist() == np.flatnonzero(corpus.split > 0).tolist()
    assert task.pool.tolist() == np.flatnonzero((corpus.split == 0) & (ids >= "u020")).tolist()
    for user, target in zip(task.test_users, task.targets, strict=True):
        assert task.items[target] == corpus.items_of(lab)[user][0]
    assert task.elsewhere.lengths.tolist() == [3] * len(task.test_users)
    assert not len(task.elsewhere.parts[lab][0].values)


def test_a_taste_is_carried_over_and_a_shuffled_one_is_not(
    corpus: Corpus, task: NewServiceTask
) -> None:
    items = np.eye(TASTES)[taste_of(corpus)]
    for probe in ("zero-shot", "centred"):
        assert hits(task, Given(tastes, items), probe) == pytest.approx(10 / EACH)
    order = np.random.default_rng(1).permutation(corpus.num_items)
    shuffled = hits(task, Given(tastes, items[order]), "zero-shot")
    assert shuffled == pytest.approx(10 / (EACH * TASTES), abs=0.06)


def test_centring_takes_away_the_advantage_of_what_is_near_to_everybody(
    corpus: Corpus, task: NewServiceTask
) -> None:
    common = np.ones((corpus.num_items, 1))
    common[task.items[:15]] += 3  # fifteen items, three quarters of a taste, are near to all
    items = np.concatenate([np.eye(TASTES)[taste_of(corpus)], common], axis=1)

    def users(past: Snapshot) -> np.ndarray:
        return np.concatenate([tastes(past), np.ones((len(past), 1))], axis=1)

    assert hits(task, Given(users, items), "centred") == pytest.approx(10 / EACH)
    assert hits(task, Given(users, items), "zero-shot") < 0.3


def test_labelled_users_teach_a_map_that_no_zero_shot_knows(
    corpus: Corpus, task: NewServiceTask
) -> None:
    turned = np.roll(np.eye(TASTES), 1, axis=1)[taste_of(corpus)]
    model = Given(tastes, turned)
    assert hits(task, model, "zero-shot") == 0
    # Popularity may order the items of a taste, which are alike to the map.
    assert hits(task, model, "10 %") == pytest.approx(10 / EACH, abs=0.02)
    scored = task.score(model, "10 %")
    assert scored.queries.num_rows == DRAWS * len(task.test_users)
    assert len(scored.chosen["strengths"]) == DRAWS
    assert scored.queries["user_id"][: len(task.test_users)].equals(
        scored.queries["user_id"][len(task.test_users) : 2 * len(task.test_users)]
    )


def test_popularity_counts_all_training_users_or_the_labelled_ones_alone(
    corpus: Corpus, task: NewServiceTask
) -> None:
    lab = corpus.services.index("lab")
    (popularity,) = task.baselines([])
    labelled = {
        "zero-shot": [corpus.users_in("train")],
        "5 %": [task.pool[rows] for rows in task._draws("5 %")],
    }
    assert [len(users) for users in labelled["5 %"]] == [11] * DRAWS  # of 220
    asked = len(task.test_users)
    for probe, draws in labelled.items():
        found = task.score(popularity, probe).queries["hit_10"].to_numpy()
        assert len(found) == asked * len(draws)
        for draw, users in enumerate(draws):
            counts = np.zeros(corpus.num_items)
            for user in users:
                np.add.at(counts, corpus.items_of(lab)[user], 1)
            counts = counts[task.items]
            own = counts[task.targets]
            better = (counts > own[:, None]).sum(1)
            equal = (counts == own[:, None]).sum(1)
            chance = np.clip((10 - better) / equal, 0, 1)
            assert found[draw * asked : (draw + 1) * asked] == pytest.approx(chance)
    assert [probe for probe in task.probes if task.supports(popularity, probe)] == [
        *("zero-shot", "1 %", "5 %", "10 %")
    ]


def test_a_smaller_share_is_part_of_a_larger_one(task: NewServiceTask) -> None:
    few, many = task._draws("1 %"), task._draws("10 %")
    assert (len(few[0]), len(many[0])) == (2, 22)
    assert all(set(a) < set(b) for a, b in zip(few, many, strict=True))
    assert len({tuple(sorted(draw)) for draw in many}) == DRAWS


def test_a_service_where_nobody_held_out_is_elsewhere_is_refused(tmp_path: Path) -> None:
    split = {"a": "train", "b": "valid", "c": "test"}
    alone = [("a", "lab", "x"), ("a", "shop", "y"), ("b", "lab", "x"), ("c", "lab", "x")]
    corpus = corpus_of(tmp_path, [*alone, ("a", "shop", "y"), ("b", "lab", "x")], split)
    with pytest.raises(ValueError, match="1 training and 0 held-out users"):
        NewServiceConfig(name="new", service="lab").build(corpus)


def test_popularity_is_beside_every_vector_where_it_says_something(tmp_path: Path) -> None:
    # In the lab item k is met in proportion to 1 / (k + 1)^2, whatever was met in the shop.
    rng = np.random.default_rng(2)
    chance = 1 / np.arange(1, EACH + 1) ** 2
    found: list[Event] = []
    for user in parts(USERS):
        found += [(user, "shop", f"shop{item:02}") for item in rng.permutation(EACH)[:3]]
        met = rng.choice(EACH, 3, p=chance / chance.sum())
        found += [(user, "lab", f"lab{item:02}") for item in met]
    corpus = corpus_of(tmp_path, found, parts(USERS))
    task = NewServiceConfig(name="new", service="lab").build(corpus)
    vectors = rng.normal(size=(USERS, 5))
    noise = Given(lambda past: vectors[past.users], rng.normal(size=(corpus.num_items, 5)))
    (popularity,) = task.baselines([])
    popular = ndcg(task, popularity, "zero-shot")
    assert ndcg(task, noise, "zero-shot") < popular - 0.2
    assert ndcg(task, noise, "zero-shot + popularity") == pytest.approx(popular, abs=0.02)
    # Of 24 labelled users, and of 2, whose halves are none.
    assert ndcg(task, noise, "10 %") == pytest.approx(ndcg(task, popularity, "10 %"), abs=0.1)
    assert min(task.score(noise, "10 %").chosen["popularity"]) >= 1
    assert task.score(noise, "1 %").chosen["popularity"] == [0] * DRAWS


def ndcg(task: NewServiceTask, model: object, probe: str) -> float:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    return float(scored.queries["ndcg_10"].to_numpy().mean())


def test_popularity_has_no_weight_beside_a_vector_that_knows(
    corpus: Corpus, task: NewServiceTask
) -> None:
    items = np.eye(TASTES)[taste_of(corpus)]
    scored = task.score(Given(tastes, items), "zero-shot + popularity")
    assert scored.queries["hit_10"].to_numpy().mean() >= 10 / EACH - 0.02
    assert scored.chosen["popularity"] < 1


def test_a_map_regresses_on_the_columns_that_items_have(
    corpus: Corpus, task: NewServiceTask
) -> None:
    turned = np.roll(np.eye(TASTES), 1, axis=1)[taste_of(corpus)]

    def users(past: Snapshot) -> np.ndarray:
        return np.concatenate([np.zeros((len(past), TASTES)), 50 * tastes(past)], axis=1)

    model = Given(users, np.concatenate([turned, np.zeros_like(turned)], axis=1))
    model.blocks = {"items": slice(0, TASTES), "met": slice(TASTES, 2 * TASTES)}
    assert hits(task, model, "10 %") == pytest.approx(10 / EACH, abs=0.05)
