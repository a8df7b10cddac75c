# pyright: standard
"""The leave-one-out split of three histories, by hand."""

from pathlib import Path

import pytest

from benchmarks.rival_split import leave_one_out
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import corpus_of

HISTORIES = {"ann": "a b c d", "bob": "b a e", "cal": "d c"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    events = [(user, "films", item) for user, row in HISTORIES.items() for item in row.split()]
    return corpus_of(tmp_path, events, dict.fromkeys(HISTORIES, "train"))


def test_the_last_event_is_the_test_and_the_one_before_it_the_validation(corpus: Corpus) -> None:
    split = leave_one_out(corpus)  # cal has two events: nothing would be left to train on
    names = corpus.item_ids.take(split.catalogue).to_pylist()
    assert sorted(names) == ["a", "b", "c", "d", "e"]
    rows = [(r["user"], names[r["item"]], r["order"], r["part"]) for r in split.table().to_pylist()]
    assert rows == [
        (0, "a", 0, 0),
        (0, "b", 1, 0),
        (0, "c", 2, 1),
        (0, "d", 3, 2),
        (1, "b", 0, 0),
        (1, "a", 1, 1),
        (1, "e", 2, 2),
    ]
    asked = {1: (["c", "a"], [["a", "b"], ["b"]]), 2: (["d", "e"], [["a", "b", "c"], ["b", "a"]])}
    for part, (wanted, histories) in asked.items():
        targets, before = split.question(part)
        assert [names[target] for target in targets] == wanted
        assert [[names[item] for item in before[row]] for row in range(2)] == histories


def test_the_first_users_take_part_and_the_catalogue_is_theirs(corpus: Corpus) -> None:
    split = leave_one_out(corpus, users=1)
    assert len(split.histories) == 1
    assert corpus.item_ids.take(split.catalogue).to_pylist() == ["a", "b", "c", "d"]


def test_two_services_and_histories_too_short_are_refused(tmp_path: Path) -> None:
    two = [("ann", "films", "a"), ("ann", "books", "b")]
    with pytest.raises(ValueError, match=r"services books, films; leave-one-out is for one"):
        leave_one_out(corpus_of(tmp_path / "two", two, {"ann": "train"}))
    short = [("ann", "films", "a"), ("ann", "films", "b")]
    with pytest.raises(ValueError, match="no sequence has two events to train on"):
        leave_one_out(corpus_of(tmp_path / "short", short, {"ann": "train"}))
