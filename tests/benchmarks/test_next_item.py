"""The next item is the last one, its history what came before, and popularity that of training."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.next_item import evaluate_next_item, questions
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import Event, Lookup, corpus_of

SPLIT = {"t1": "train", "t2": "train", "v1": "valid", "e1": "test", "e2": "test"}
EVENTS: list[Event] = [
    *[("t1", "shop", item) for item in ("x", "x", "y")],
    *[("t2", "shop", item) for item in ("x", "z", "w", "y")],
    *[("v1", "shop", item) for item in ("x", "y")],
    *[("e1", "shop", item) for item in ("y", "y", "z")],
    *[("e2", "shop", item) for item in ("z",)],
    *[("e2", "news", item) for item in ("n1", "n2", "n1")],
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of(tmp_path_factory.mktemp("small"), EVENTS, SPLIT)


def named(corpus: Corpus, items: np.ndarray) -> list[str]:
    return [str(corpus.item_ids[int(item)]) for item in items]


def shop(corpus: Corpus) -> int:
    return corpus.services.index("shop")


def test_the_last_event_is_the_target_and_not_in_the_history(small: Corpus) -> None:
    asked = questions(small, shop(small), np.flatnonzero(small.split > 0))
    told = {
        str(small.user_ids[int(user)]): (
            named(small, asked.past["shop"][row]),
            named(small, asked.catalogue[[asked.targets[row]]]),
        )
        for row, user in enumerate(asked.users)
    }
    # e2 has one event in the shop: nothing to go by.
    assert told == {"v1": (["x"], ["y"]), "e1": (["y", "y"], ["z"])}
    assert named(small, asked.catalogue) == ["w", "x", "y", "z"]
    assert [named(small, asked.catalogue[asked.seen[row]]) for row in range(2)] in (
        [["x"], ["y", "y"]],
        [["y", "y"], ["x"]],
    )


def test_the_history_may_be_that_of_the_other_services(small: Corpus) -> None:
    held_out = np.flatnonzero(small.split > 0)
    asked = questions(small, small.services.index("news"), held_out, "other")
    # Only e2 is in both; of the shop's event at time 0 nothing is later than the last of news.
    assert [str(small.user_ids[int(user)]) for user in asked.users] == ["e2"]
    assert named(small, asked.past["shop"][0]) == ["z"]
    assert named(small, asked.catalogue[[asked.targets[0]]]) == ["n1"]
    assert named(small, asked.catalogue[asked.seen[0]]) == ["n1", "n2"]
    # In the shop e2's only event is as old as her first of news, so nothing came before it.
    assert not len(questions(small, shop(small), held_out, "other").users)


def test_popularity_by_hand(small: Corpus) -> None:
    # Training events: x 3, y 2, z 1, w 1. v1's y ranks 2nd; e1's z ties w and is 3rd or 4th.
    outcome = evaluate_next_item(small, {}, filter_seen=False, resamples=10, seed=0)
    table = next(t for t in outcome.tables if (t.part, t.users) == ("shop", "valid + test"))
    found = table.rows["popularity"].measures
    assert found["MRR"].value == pytest.approx((1 / 2 + (1 / 3 + 1 / 4) / 2) / 2)
    assert found["HR@10"].value == 1
    gains = 1 / np.log2(np.array([3, 4, 5]))
    assert found["NDCG@10"].value == pytest.approx((gains[0] + gains[1:].mean()) / 2)


def test_seen_items_can_be_left_out(small: Corpus) -> None:
    # Without x v1's target y is first; without y e1's target z ties w behind x: 2nd or 3rd.
    outcome = evaluate_next_item(small, {}, filter_seen=True, resamples=10, seed=0)
    table = next(t for t in outcome.tables if (t.part, t.users) == ("shop", "valid + test"))
    mrr = table.rows["popularity"].measures["MRR"].value
    assert mrr == pytest.approx((1 + (1 / 2 + 1 / 3) / 2) / 2)


def test_events_of_valid_and_test_users_change_no_count(tmp_path: Path) -> None:
    told: list[list[float]] = []
    for number, more in enumerate(([], ["z"] * 9)):
        events = [*EVENTS, *[("e2", "shop", item) for item in more], ("e2", "shop", "w")]
        corpus = corpus_of(tmp_path / str(number), events, SPLIT)
        lines = evaluate_next_item(corpus, {}, filter_seen=False, resamples=10, seed=0).per_user
        rows = [row for row in lines.to_pylist() if row["part"] == "shop"]
        told.append(sorted(row["better"] + row["equal"] for row in rows))
    assert told[0] == told[1] == [1.0, 3.0, 3.0]


def test_an_oracle_is_always_right_and_other_services_items_are_no_candidates(
    small: Corpus,
) -> None:
    # The vector of each user's last known item equals that of the target; news items have the
    # largest scores of all and would come first were they ranked.
    vectors = np.zeros((small.num_items, 5))
    place = {str(name): row for row, name in enumerate(small.item_ids)}
    vectors[place["x"], 0] = vectors[place["y"], 0] = 1
    vectors[place["y"], 1] = vectors[place["z"], 1] = 2
    vectors[place["n1"], 3] = vectors[place["n2"], 3] = 1
    vectors[place["n1"], 2] = 1
    vectors[place["n2"], 2] = 0.1
    model = Lookup(vectors)
    outcome = evaluate_next_item(small, {"trained": model}, filter_seen=True, resamples=10, seed=0)
    main = next(t for t in outcome.tables if t.main and t.users == "valid + test")
    assert main.part == "all services" and main.count == 3
    assert main.rows["trained"].measures["MRR"].value == 1


def test_nobody_with_two_events_is_refused(tmp_path: Path) -> None:
    events = [("t1", "shop", "a_cup"), ("t1", "shop", "a_pan"), ("e1", "shop", "a_cup")]
    corpus = corpus_of(tmp_path, events, {"t1": "train", "e1": "test"})
    with pytest.raises(ValueError, match="no valid or test user has a history"):
        evaluate_next_item(corpus, {}, filter_seen=False, resamples=10, seed=0)
