"""An oracle rolls out the truth, a constant one chance; nothing that is asked was trained on."""

# pyright: standard

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tasks.rollout import Futures, appended, futures, rollout
from clue.data.corpus import Corpus
from clue.data.sequences import Sequences, SequencesConfig
from tests.benchmarks.tasks.ring import Constant, Ring, ragged, walk
from tests.benchmarks.worlds import corpus_of, parts


def of_the_ring(items: int, users: int, steps: int) -> Futures:
    histories = ragged(*(walk(n, 3 + n, items) for n in range(users)))
    truth = np.array([walk(2 * n + 3, steps, items) for n in range(users)])
    return Futures(np.arange(users), histories, truth)


@pytest.mark.parametrize("filter_seen", [False, True])
def test_the_oracle_is_right_at_every_step(filter_seen: bool) -> None:
    found = rollout(Ring(60), of_the_ring(60, 8, 10), filter_seen=filter_seen)
    assert len(found.columns) == len(found.measures) == 11
    assert next(iter(found.measures)) == "recall [all]"
    for values in found.columns.values():
        assert values.tolist() == [1] * 8


def test_a_constant_model_has_chance() -> None:
    found = rollout(Constant(60), of_the_ring(60, 8, 10), filter_seen=False)
    for step in range(1, 11):
        assert found.columns[f"HR@10 [{step}]"] == pytest.approx([10 / 60] * 8)
    # without a filter it rolls out item 0 ten times, which is in nobody's future here
    assert found.columns["recall [all]"].tolist() == [0] * 8


def test_a_step_reads_its_own_best_item() -> None:
    model = Ring(60)
    rollout(model, of_the_ring(60, 3, 4), filter_seen=False)
    assert [read.lengths.tolist() for read in model.read] == [
        [3 + k, 4 + k, 5 + k] for k in range(4)
    ]
    assert model.read[3][1].tolist() == walk(1, 7, 60)


def test_an_item_rolled_out_too_early_is_a_miss_at_its_step() -> None:
    asked = Futures(np.arange(1), ragged([5]), np.array([[7, 6]]))  # the ring would have 6, 7
    found = rollout(Ring(60), asked, filter_seen=True)
    assert found.columns["HR@10 [1]"] == pytest.approx([9 / 58])  # 6 above, 57 others beside 7
    assert found.columns["HR@10 [2]"].tolist() == [0]
    assert found.columns["recall [all]"].tolist() == [1]


def test_items_are_appended_to_their_own_histories() -> None:
    longer = appended(ragged([1, 2], [3]), np.array([8, 9]))
    assert [row.tolist() for row in (longer[0], longer[1])] == [[1, 2, 8], [3, 9]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    split = parts(12)
    lengths = {user: 8 + 2 * number for number, user in enumerate(split)}
    events = [
        (user, "shop", f"item{(7 * number + place) % 40:02}")
        for number, (user, length) in enumerate(lengths.items())
        for place in range(length)
    ]
    return corpus_of(tmp_path_factory.mktemp("ring"), events, split).path


def sequences(corpus: Path, config: SequencesConfig) -> Sequences:
    return Sequences(Corpus.open(corpus), config)


def test_the_future_is_what_nobody_trained_on(corpus: Path) -> None:
    found = sequences(corpus, SequencesConfig(held_out=11))
    asked = futures(found, 10, 1000)
    lengths = found.rows.lengths
    assert len(asked.users) == (lengths >= 12).sum() == 10
    for row, user in enumerate(asked.users):
        (place,) = np.flatnonzero(found.users == user)
        whole = found.rows[int(place)]
        assert np.array_equal(whole, np.concatenate([asked.histories[row], asked.truth[row]]))
        assert found.trained[place] == len(whole) - 11
        assert found.valid_at[place] == len(whole) - 11
        assert found.test_at[place] == len(whole) - 1
    assert len(futures(found, 10, 4).users) == 4


def test_longer_tails_keep_the_test_items_of_leave_one_out(corpus: Path) -> None:
    usual, longer = (sequences(corpus, SequencesConfig(held_out=n)) for n in (2, 11))
    asked, same = usual.questions("test"), longer.questions("test")
    some = np.isin(asked.users, same.users)
    assert some.sum() == len(same.users) == 10
    assert np.array_equal(asked.at(np.flatnonzero(some)).targets, same.targets)
    assert np.array_equal(asked.at(np.flatnonzero(some)).histories.values, same.histories.values)


def test_trained_futures_are_refused(corpus: Path) -> None:
    usual = sequences(corpus, SequencesConfig())
    with pytest.raises(ValueError, match=r"10 events after .* sequences\.held_out=11"):
        futures(usual, 10, 1000)


def test_a_tail_without_both_items_is_refused() -> None:
    with pytest.raises(ValueError, match="held_out is 1 with split=leave_one_out"):
        SequencesConfig(held_out=1)
    with pytest.raises(ValueError, match="held_out is 11 with split=temporal"):
        SequencesConfig(held_out=11, split="temporal")
