# pyright: standard
"""A past ends before its moment, whatever the log holds, and says so when it does not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.snapshot import Snapshot, snapshot_at, views
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from tests.benchmarks.worlds import corpus_of

# The time of an event is its place: ann 0, 1, 4 in shop and 3 in news; bob 2 in news, 5 in shop.
EVENTS = [
    ("ann", "shop", "pan"),
    ("ann", "shop", "pot"),
    ("bob", "news", "votes"),
    ("ann", "news", "rain"),
    ("ann", "shop", "lid"),
    ("bob", "shop", "pan"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of(tmp_path_factory.mktemp("past"), EVENTS, {"ann": "train", "bob": "test"})


def users_of(corpus: Corpus, *names: str) -> np.ndarray:
    known = corpus.user_ids.to_pylist()
    return np.array([known.index(name) for name in names])


def texts(past: Snapshot) -> dict[str, list[list[str]]]:
    """What each user did in each service."""
    names = past.corpus.item_texts.to_pylist()
    return {
        service: [[names[item] for item in items[row]] for row in range(len(past))]
        for service, (items, _) in zip(past.corpus.services, past.parts, strict=True)
    }


def test_events_before_the_moment_stay_and_that_of_the_moment_goes(corpus: Corpus) -> None:
    past = snapshot_at(corpus, users_of(corpus, "bob", "ann"), 4)
    assert texts(past) == {"shop": [[], ["pan", "pot"]], "news": [["votes"], ["rain"]]}
    assert past.lengths.tolist() == [1, 3] and len(past) == 2


def test_each_user_has_her_own_moment(corpus: Corpus) -> None:
    past = snapshot_at(corpus, users_of(corpus, "ann", "bob"), np.array([1.0, 6.0]))
    assert texts(past) == {"shop": [["pan"], ["pan"]], "news": [[], ["votes"]]}
    assert texts(past.some(np.array([1]))) == {"shop": [["pan"]], "news": [["votes"]]}


def test_without_a_moment_all_is_past_and_services_can_be_left_out(corpus: Corpus) -> None:
    ann = users_of(corpus, "ann")
    assert texts(snapshot_at(corpus, ann)) == {"shop": [["pan", "pot", "lid"]], "news": [["rain"]]}
    assert texts(snapshot_at(corpus, ann, services=["news"])) == {"shop": [[]], "news": [["rain"]]}


def test_the_guard_names_user_service_and_time(corpus: Corpus) -> None:
    whole = snapshot_at(corpus, users_of(corpus, "bob", "ann"))
    message = r"user ann has an event of shop at 4, not before 4: a model would read what it is"
    with pytest.raises(ValueError, match=message):
        replace(whole, cutoff=np.array([6.0, 4.0]))


def test_the_guard_wants_a_row_for_each_user_in_every_service(corpus: Corpus) -> None:
    whole = snapshot_at(corpus, users_of(corpus, "ann", "bob"))
    with pytest.raises(ValueError, match=r"news: 2 histories for 1 users"):
        replace(whole, users=whole.users[:1], cutoff=whole.cutoff[:1])


def test_views_hold_their_items_and_nothing_else(corpus: Corpus) -> None:
    one = Ragged(np.array([0]), np.array([0, 1]))
    past = views(corpus, users_of(corpus, "ann"), "news", one)
    assert past.lengths.tolist() == [1]
    assert past.parts[corpus.services.index("news")][0].values.tolist() == [0]


moments = st.floats(-1, 7) | st.integers(0, 6).map(float)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1]), moments), min_size=1, max_size=5))
def test_no_event_at_or_after_the_moment_survives(
    corpus: Corpus, asked: list[tuple[int, float]]
) -> None:
    users, cutoff = (np.array(column) for column in zip(*asked, strict=True))
    past = snapshot_at(corpus, users, cutoff)
    names = corpus.user_ids.to_pylist()
    for row, (user, moment) in enumerate(asked):
        for service, (_, times) in zip(corpus.services, past.parts, strict=True):
            expected = [
                time
                for time, (name, where, _) in enumerate(EVENTS)
                if name == names[user] and where == service and time < moment
            ]
            assert times[row].tolist() == expected
