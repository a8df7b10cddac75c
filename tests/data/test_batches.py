"""Batches: a function of seed, step, rank and world; packed without loss; a user's own events."""

from pathlib import Path

import numpy as np
import pytest

from clue.data.batches import Batch, Histories, PairSampler
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.views import ViewsConfig
from tests.conftest import TinyRun

MIXED = ViewsConfig(cross_service=0.5, past_future=0.25, slices=0.25, max_events=6)


@pytest.fixture(scope="module")
def corpus(tiny_run: TinyRun) -> Corpus:
    return Corpus.open(Path(tiny_run.corpus))


def views_of(batch: Batch, corpus: Corpus) -> list[list[tuple[int, ...]]]:
    """Unpacks a batch: the token ids of every event, view by view, in the order of the rows."""
    token_ends = np.cumsum(batch.token_lengths)
    items = [
        tuple(batch.tokens[end - length : end].tolist())
        for end, length in zip(token_ends, batch.token_lengths, strict=True)
    ]
    ends = np.cumsum(batch.event_lengths)
    return [
        [items[event] for event in batch.events[ends[row] - batch.event_lengths[row] : ends[row]]]
        for row in batch.rows
    ]


def test_views_hold_the_events_of_their_user_in_order(corpus: Corpus) -> None:
    sampler = PairSampler(corpus, MIXED, batch=40, seed=0)
    batch = sampler.at(2)
    texts = [tuple(corpus.item_tokens[i].tolist()) for i in range(corpus.num_items)]
    train = set(corpus.users_in("train").tolist())
    checked = 0
    for number, view in enumerate(views_of(batch, corpus)):
        user = int(batch.user[number % 40])
        assert user in train
        assert 1 <= len(view) <= 6
        histories = [
            [texts[i] for i in corpus.items_of(s)[user]] for s in range(len(corpus.services))
        ]
        assert any(is_subsequence(view, history) for history in histories)
        checked += 1
    assert checked == 80


def is_subsequence(view: list[tuple[int, ...]], history: list[tuple[int, ...]]) -> bool:
    rest = iter(history)
    return all(event in rest for event in view)


def test_every_distinct_item_is_packed_once(corpus: Corpus) -> None:
    batch = PairSampler(corpus, MIXED, batch=60, seed=0).at(0)
    assert len(batch.token_lengths) == batch.events.max() + 1 == len(np.unique(batch.events))
    assert len(batch.token_lengths) < len(batch.events)
    assert (np.diff(batch.token_lengths) >= 0).all()
    assert (np.diff(batch.event_lengths) >= 0).all()
    assert sorted(batch.rows) == list(range(120))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_parts_of_all_processes_are_the_whole_batch(corpus: Corpus, world: int) -> None:
    views = ViewsConfig(event_dropout=0.3, token_dropout=0.2, max_events=6)
    sampler = PairSampler(corpus, views, batch=48, seed=1)
    whole = sampler.at(3)
    parts = [sampler.at(3, rank, world) for rank in range(world)]
    for name in ("user", "content_a", "content_b"):
        together = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(together, getattr(whole, name))
    pieces = [views_of(part, corpus) for part in parts]
    share = 48 // world
    firsts = [view for piece in pieces for view in piece[:share]]
    seconds = [view for piece in pieces for view in piece[share:]]
    assert firsts + seconds == views_of(whole, corpus)


def test_a_batch_depends_on_seed_and_step_alone(corpus: Corpus) -> None:
    one, other = (PairSampler(corpus, MIXED, batch=40, seed=5) for _ in range(2))
    for step in (7, 0, 3):
        other.at(step)
    assert same(one.at(7), other.at(7))
    assert not same(one.at(7), one.at(8))
    assert not same(one.at(7), PairSampler(corpus, MIXED, batch=40, seed=6).at(7))


def same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values()))  # noqa: B905


def test_a_pass_over_the_pool_repeats_nobody(corpus: Corpus) -> None:
    views = ViewsConfig(cross_service=1.0, past_future=0.0, slices=0.0)
    sampler = PairSampler(corpus, views, batch=20, seed=0)
    pool = sampler.pools["cross_service"]
    passes = len(pool) // 20
    seen = np.concatenate([sampler.at(step).user for step in range(passes)])
    assert len(np.unique(seen)) == len(seen) == passes * 20
    again = np.concatenate([sampler.at(passes + step).user for step in range(passes)])
    assert not np.array_equal(seen, again)


def test_cross_service_views_come_from_two_services(corpus: Corpus) -> None:
    views = ViewsConfig(cross_service=1.0, past_future=0.0, slices=0.0)
    sampler = PairSampler(corpus, views, batch=50, seed=0)
    service_of = {
        tuple(corpus.item_tokens[i].tolist()): int(corpus.item_service[i])
        for i in range(corpus.num_items)
    }
    unpacked = views_of(sampler.at(0), corpus)
    for a, b in zip(unpacked[:50], unpacked[50:], strict=True):
        services = [{service_of[event] for event in view} for view in (a, b)]
        assert len(services[0]) == len(services[1]) == 1
        assert services[0] != services[1]


def test_weights_are_shares_of_the_batch(corpus: Corpus) -> None:
    sampler = PairSampler(corpus, MIXED, batch=41, seed=0)
    assert sampler.shares == {"cross_service": 21, "past_future": 10, "slices": 10}


def test_a_batch_beyond_the_users_is_refused_by_name(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match=r"batch 4000 takes 2000 cross_service users"):
        PairSampler(corpus, MIXED, batch=4000, seed=0)
    with pytest.raises(ValueError, match="no multiple of 3 processes"):
        PairSampler(corpus, MIXED, batch=40, seed=0).check(3)


def test_histories_are_found_across_services(corpus: Corpus) -> None:
    histories = Histories(corpus)
    for service in range(len(corpus.services)):
        whole = corpus.items_of(service)
        for user in (0, 17, corpus.num_users - 1):
            start, length = histories.starts[service, user], histories.lengths[service, user]
            found = histories.items(np.arange(start, start + length))
            assert found.tolist() == whole[user].tolist()


def test_take_and_stack_by_hand() -> None:
    ragged = Ragged(np.array([1, 2, 3, 4]), np.array([0, 1, 3, 4]))
    taken = ragged.take(np.array([2, 1]))
    assert taken.values.tolist() == [4, 2, 3]
    both = Ragged.concat([taken, ragged])
    assert both.offsets.tolist() == [0, 1, 3, 4, 6, 7]


def test_log_q_is_how_often_a_user_is_drawn(corpus: Corpus) -> None:
    sampler = PairSampler(corpus, MIXED, batch=40, seed=0)
    expected = np.exp(sampler.log_q)
    assert expected.sum() == pytest.approx(40)
    batches = [sampler.at(step) for step in range(300)]
    drawn = np.bincount(np.concatenate([b.user for b in batches]), minlength=corpus.num_users)
    assert np.array_equal(drawn > 0, expected > 0)
    often = expected > np.median(expected[expected > 0])  # in both pools
    for users in (often, ~often & (expected > 0)):
        assert drawn[users].sum() / 300 == pytest.approx(expected[users].sum(), rel=0.05)
    assert np.array_equal(batches[0].log_q, sampler.log_q[batches[0].user])
