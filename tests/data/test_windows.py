"""Batches of windows: each event asked once an epoch, of one service, on N processes as on one."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from clue.data.corpus import Corpus
from clue.data.negatives import SoftmaxConfig
from clue.data.ragged import Ragged
from clue.data.windows import (
    ServiceWindows,
    WindowBatch,
    WindowsConfig,
    histories_of,
    joined_services,
    marks_of,
)
from tests.conftest import TinyRun
from tests.data.logs import Row, corpus_of, write_log

CONFIG = WindowsConfig(batch=16, max_events=4, softmax=SoftmaxConfig(negatives=30))


@pytest.fixture(scope="module")
def corpus(tiny_run: TinyRun) -> Corpus:
    return Corpus.open(tiny_run.corpus)


def asked(batch: WindowBatch) -> list[tuple[int, int]]:
    """Return the (item, next item) of each event of a batch, as rows of the corpus."""
    return list(zip(batch.rows[batch.events], batch.rows[batch.targets], strict=True))


def test_every_event_after_the_first_is_asked_once_an_epoch(corpus: Corpus) -> None:
    windows = ServiceWindows(corpus, CONFIG, seed=0)
    train = corpus.users_in("train")
    checked = 0
    for number, sampler in enumerate(windows.samplers):
        found: list[tuple[int, int]] = []
        for turn in range(sampler.per_epoch):
            step = next(s for s in range(10_000) if windows.turns.at(s) == (number, turn))
            found += asked(windows.at(step))
        histories = corpus.items_of(number).take(train)
        follows = [
            (int(a), int(b))
            for row in range(len(histories))
            for a, b in zip(histories[row][:-1], histories[row][1:], strict=True)
        ]
        left = len(sampler.sequence) % CONFIG.batch  # windows that fill no batch of this epoch
        assert len(follows) - 4 * left <= len(found) <= len(follows)
        assert set(found) <= set(follows)
        checked += 1
    assert checked == 3


def test_a_batch_is_of_one_service_with_its_own_negatives(corpus: Corpus) -> None:
    windows = ServiceWindows(corpus, CONFIG, seed=0)
    seen: set[int] = set()
    for step in range(30):
        batch = windows.at(step)
        services = set(corpus.item_service[batch.rows].tolist())
        assert services == {windows.turns.at(step)[0]}
        seen |= services
        texts = Ragged(batch.tokens, np.concatenate([[0], np.cumsum(batch.token_lengths)]))
        assert (np.diff(batch.token_lengths) >= 0).all()
        for place, row in enumerate(batch.rows):
            assert np.array_equal(texts[place], corpus.item_tokens[int(row)])
        assert len(batch.candidates) == len(batch.log_expected) == 30
    assert seen == {0, 1, 2}


def test_two_processes_share_the_batch_of_one(corpus: Corpus) -> None:
    windows = ServiceWindows(corpus, CONFIG, seed=1)
    for step in range(12):
        whole, parts = windows.at(step), [windows.at(step, rank, 2) for rank in range(2)]
        assert sorted(asked(whole)) == sorted(asked(parts[0]) + asked(parts[1]))
        assert whole.total == parts[0].total == parts[1].total == len(whole.events)
        drawn = [part.rows[part.candidates] for part in (whole, *parts)]
        assert np.array_equal(drawn[0], drawn[1])
        assert np.array_equal(drawn[0], drawn[2])


def test_held_out_are_valid_users_last_items(corpus: Corpus) -> None:
    asked = ServiceWindows(corpus, CONFIG, seed=0).held_out(1, 1000)
    histories, targets = asked.histories, asked.targets
    users = corpus.users_in("valid")
    own = corpus.items_of(1)
    users = users[own.lengths[users] >= 2]
    assert len(targets) == len(users) > 10
    for row, user in enumerate(users.tolist()):
        assert np.array_equal([*histories[row], targets[row]], own[user])


def test_services_join_by_time_with_the_marks_of_their_events(corpus: Corpus) -> None:
    table = marks_of(corpus)
    windows = ServiceWindows(corpus, CONFIG, seed=0, join="time", marks=table)
    assert windows.services == [[0, 1, 2]]
    follows: set[tuple[int, int]] = set()
    known: dict[int, set[tuple[int, ...]]] = {}
    for user in corpus.users_in("train").tolist():
        one = np.array([user])
        events: list[tuple[float, int, int, int]] = []
        for service in range(3):
            items, times = corpus.items_of(service)[user], corpus.timestamps_of(service)[user]
            pairs = zip(times.tolist(), items.tolist(), strict=True)
            events += [(time, service, place, item) for place, (time, item) in enumerate(pairs)]
        in_order = [event[3] for event in sorted(events)]
        follows |= set(pairwise(in_order))
        histories, marks = histories_of(corpus, [0, 1, 2], one, table)
        assert histories[0].tolist() == in_order
        assert marks is not None
        for item, mark in zip(in_order, marks.tolist(), strict=True):
            known.setdefault(item, set()).add(tuple(mark))
    checked, services = 0, set[tuple[int, int]]()
    for step in range(20):
        batch = windows.at(step)
        assert batch.marks is not None
        assert set(asked(batch)) <= follows
        services |= {tuple(corpus.item_service[list(pair)].tolist()) for pair in asked(batch)}
        for item, mark in zip(batch.rows[batch.events].tolist(), batch.marks.tolist(), strict=True):
            assert tuple(mark) in known[item]
            checked += 1
        parts = [windows.at(step, rank, 2) for rank in range(2)]
        assert sorted(asked(batch)) == sorted(asked(parts[0]) + asked(parts[1]))
    assert checked > 500
    assert len(services) == 9  # from any service to any other


def test_held_out_histories_are_joined_up_to_the_item_asked(corpus: Corpus) -> None:
    windows = ServiceWindows(corpus, CONFIG, seed=0, join="time", marks=marks_of(corpus))
    questions = windows.held_out(1, 1000)
    own = corpus.items_of(1).take(corpus.users_in("valid"))
    last = {int(own[row][-1]) for row in np.flatnonzero(own.lengths).tolist()}
    assert len(questions.targets) > 10
    assert set(questions.targets.tolist()) <= last
    met = corpus.item_service[questions.histories.values]
    assert set(met.tolist()) == {0, 1, 2}
    assert (questions.histories.lengths > 0).all()
    assert questions.marks is not None
    assert len(questions.marks) == len(met)


def test_positions_are_joined_with_no_other_service(tmp_path: Path) -> None:
    rows: list[Row] = [
        {
            "user_id": f"u{user}",
            "service": service,
            "item_id": f"{service}{time % 3}",
            "timestamp": time if service == "c" else 1_700_000_000 + 60 * time,
            "text": f"{service} {time % 3}",
        }
        for user in range(30)
        for service in "abc"
        for time in range(4)
    ]
    file = write_log(tmp_path / "log.parquet", rows)
    log = corpus_of(tmp_path / "corpus", f"events=[{file}]")
    users = log.users_in("train")
    assert [log.is_clock(number) for number in range(3)] == [True, True, False]
    assert joined_services(log, users, "time") == [[0, 1], [2]]
    assert joined_services(log, users, "service") == [[0], [1], [2]]


def test_logs_where_nothing_comes_next_are_refused(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"user_id": f"u{n}", "service": "shop", "item_id": "a", "timestamp": n, "text": "a chair"}
        for n in range(30)
    ]
    file = write_log(tmp_path / "log.parquet", rows)
    lone = corpus_of(tmp_path / "corpus", f"events=[{file}]")
    with pytest.raises(ValueError, match="no training user has two events in a service"):
        ServiceWindows(lone, CONFIG, seed=0)
    with pytest.raises(ValueError, match=r"softmax.negatives 0 must be positive"):
        replace(CONFIG, softmax=SoftmaxConfig())
