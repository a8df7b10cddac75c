"""Groups partition the questions, cuts keep the newest, and inputs are broken as said."""

# pyright: standard

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.suite.results import measured
from benchmarks.tasks.conditions import Answers
from benchmarks.tasks.stress import cold_start, corrupted, corruption, long_tail, popularity_groups
from clue.data.ragged import Ragged
from clue.data.sequences import EvalQueries
from tests.benchmarks.tasks.ring import Constant, Ring, questions, ragged, walk


def values(answers: Answers) -> dict[str, float]:
    ids = pa.array([f"u{user}" for user in range(int(answers.users.max()) + 1)])
    intervals, _ = measured(answers.scored(ids, {}), resamples=20, seed=0)
    assert all(not x.low > x.value + 1e-12 for x in intervals.values())
    return {name: interval.value for name, interval in intervals.items()}


def test_a_group_has_a_quarter_of_the_targets_and_the_first_is_the_most_popular() -> None:
    counts = np.array([10, 80, 70, 60, 50, 40, 30, 20])
    assert popularity_groups(counts, np.arange(8)).tolist() == [3, 0, 0, 1, 1, 2, 2, 3]
    # item 1 alone is asked half of the time; the others share the other half
    often = np.array([1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7])
    assert popularity_groups(counts, often)[1] == 1


def test_items_of_equal_counts_are_in_one_group_and_every_question_in_one() -> None:
    rng = np.random.default_rng(0)
    counts, targets = rng.integers(0, 30, 400), rng.integers(0, 400, 1000)
    group = popularity_groups(counts, targets)
    for count in np.unique(counts):
        assert len(np.unique(group[counts == count])) == 1
    assert (np.diff(group[np.argsort(-counts)]) >= 0).all()
    shares = np.bincount(group[targets], minlength=4) / 1000
    assert np.abs(shares - 0.25).max() < 0.05

    asked = EvalQueries(np.arange(1000), ragged(*([[0]] * 1000)), targets)
    found = long_tail(Constant(400), asked, counts, filter_seen=False)
    members = [found.columns[f"in [G{g}]"] for g in (1, 2, 3, 4)]
    assert (np.sum(members, axis=0) == 1).all()
    value = values(found)
    assert next(iter(value)) == "NDCG@10 [G4]"  # the main measure is of the rarest targets
    for group in (1, 2, 3, 4):
        assert value[f"HR@10 [G{group}]"] == pytest.approx(10 / 400)  # chance, in every group
    assert len(value) == 8


def test_cold_users_are_read_by_their_newest_events() -> None:
    asked = questions(50, [1, 3, 12])
    model = Ring(50)
    found = cold_start(model, asked, [1, 2, 5], filter_seen=False)
    assert [read.lengths.tolist() for read in model.read] == [[1, 1, 1], [1, 2, 2], [1, 3, 5]]
    assert model.read[2][2].tolist() == [9, 10, 11, 12, 13]
    for length in ("1", "2", "5"):
        assert found.columns[f"HR@10 [{length}]"].tolist() == [1, 1, 1]
        assert found.columns[f"NDCG@10 [{length}]"].tolist() == [1, 1, 1]
        lists = found.columns[f"coverage@10 [{length}]"]
        assert lists.shape == (3, 10)
        assert lists[:, 0].tolist() == asked.targets.tolist()


def test_what_was_seen_is_left_out_however_short_the_input() -> None:
    asked = questions(50, [12, 12])
    found = cold_start(Constant(50), asked, [1], filter_seen=True)
    assert found.columns["HR@10 [1]"] == pytest.approx([10 / 38, 10 / 38])
    lists = found.columns["coverage@10 [1]"]
    assert not set(lists[0]) & set(asked.histories[0])
    assert not set(lists[1]) & set(asked.histories[1])


def test_deleting_keeps_the_order_and_takes_the_share() -> None:
    histories = ragged(*(walk(n, 10 * (n + 1), 1000) for n in range(8)))
    keys, pool = np.arange(8), np.arange(1000, 1100)
    before = histories
    for rate in (0.0, 0.1, 0.2, 0.3, 0.5):
        left = corrupted(histories, keys, "deleted", rate, pool, 0)
        assert left.lengths.tolist() == [round((1 - rate) * n) for n in histories.lengths]
        for row in range(8):
            assert (np.diff(left[row]) > 0).all()  # a walk here only goes up
            assert set(left[row]) <= set(before[row])  # what a rate takes, a higher one takes
        before = left
    emptied = corrupted(histories, keys, "deleted", 1.0, pool, 0)
    assert emptied.lengths.tolist() == [1] * 8


def test_replacing_is_by_count_and_from_the_pool() -> None:
    histories = ragged(*(walk(n, 10 * (n + 1), 1000) for n in range(8)))
    keys, pool = np.arange(8), np.arange(1000, 1100)
    for rate in (0.0, 0.1, 0.2, 0.3, 0.5, 1.0):
        told = corrupted(histories, keys, "replaced", rate, pool, 0)
        assert np.array_equal(told.offsets, histories.offsets)
        other = told.values != histories.values
        assert (told.values[other] >= 1000).all()
        for row in range(8):
            assert (told[row] >= 1000).sum() == round(rate * len(histories[row]))
    again = corrupted(histories, keys, "replaced", 0.5, pool, 0)
    assert np.array_equal(again.values, corrupted(histories, keys, "replaced", 0.5, pool, 0).values)
    other_seed = corrupted(histories, keys, "replaced", 0.5, pool, 1)
    assert not np.array_equal(again.values, other_seed.values)


def test_short_histories_lose_the_share_on_average() -> None:
    histories = ragged(*([[1, 2, 3]] * 4000))
    told = corrupted(histories, np.arange(4000), "replaced", 0.1, np.array([9]), 0)
    assert (told.values == 9).mean() == pytest.approx(0.1, abs=0.01)


def test_a_model_retains_what_the_untouched_last_events_carry() -> None:
    asked = questions(300, [20] * 200)
    pool = np.arange(250, 260)
    draws = {"events": 10, "seed": 3, "filter_seen": False}
    found = corruption(Ring(300), asked, [0.0, 0.5], pool, **draws)
    value = values(found)
    assert next(iter(value)) == "NDCG@10 [replaced 50%]"
    for kind in ("deleted", "replaced"):
        assert value[f"retained NDCG@10 [{kind} 0%]"] == 1
        assert value[f"HR@10 [{kind} 0%]"] == 1
    tail = Ragged(asked.histories.values.reshape(200, 20)[:, 10:].ravel(), np.arange(0, 2001, 10))
    told = corrupted(tail, asked.users, "replaced", 0.5, pool, 3)
    broken = told.values[9::10] != tail.values[9::10]
    assert 70 < broken.sum() < 130
    # a wrong successor stands above the target, and 298 others beside it
    assert value["HR@10 [replaced 50%]"] == pytest.approx(
        (~broken).mean() + broken.mean() * 9 / 299
    )
    assert value["retained NDCG@10 [replaced 50%]"] < 0.7
