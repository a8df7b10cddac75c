# pyright: standard
"""RecTools' SASRec without RecTools: its log, its curve, our measures of its vectors."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.external import environments
from benchmarks.external.environments import ArmFailed, RivalMissing
from benchmarks.external.rectools_sasrec import (
    RectoolsConfig,
    RectoolsSasrec,
    log_of,
    marked,
    read_curve,
    seconds_to,
)
from benchmarks.tasks.item_ranking import ItemRankingConfig, ItemRankingTask
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import Sequences, SequencesConfig
from clue.evaluation.ranking import rank
from tests.benchmarks.worlds import corpus_of

HISTORIES = {"ann": "a b c d", "bob": "b a e", "cal": "d c"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    events = [(user, "films", item) for user, row in HISTORIES.items() for item in row.split()]
    return corpus_of(tmp_path, events, dict.fromkeys(HISTORIES, "train"))


CURVE = [
    {"epoch": 1, "seconds": 10.0, "processor_seconds": 8.0, "loss": 7.0, "NDCG@10": 0.10},
    {"epoch": 2, "seconds": 20.0, "processor_seconds": 16.0, "loss": 5.0, "NDCG@10": 0.18},
    {"epoch": 3, "seconds": 30.0, "processor_seconds": 24.0, "loss": 6.0, "NDCG@10": 0.15},
]


def test_the_last_event_is_the_test_and_the_one_before_it_the_validation(corpus: Corpus) -> None:
    sequences = Sequences(corpus, SequencesConfig())
    log = log_of(sequences.questions("test"), sequences.questions("valid"))
    names = corpus.item_ids.take(pa.array(sequences.catalogue.items)).to_pylist()
    rows = [(r["user"], names[r["item"]], r["order"], r["part"]) for r in log.to_pylist()]
    assert rows == [  # cal has two events: nothing would be left to train on
        (0, "a", 0, 0),
        (0, "b", 1, 0),
        (0, "c", 2, 1),
        (0, "d", 3, 2),
        (1, "b", 0, 0),
        (1, "a", 1, 1),
        (1, "e", 2, 2),
    ]


def test_seconds_to_a_value_are_those_of_the_first_epoch_that_reaches_it() -> None:
    assert seconds_to(CURVE, "NDCG@10", 0.05) == 10
    assert seconds_to(CURVE, "NDCG@10", 0.12) == 20  # and not 30, where it is above as well
    assert seconds_to(CURVE, "NDCG@10", 0.18) == 20
    assert seconds_to(CURVE, "NDCG@10", 0.19) is None
    assert seconds_to(CURVE, "loss", 6.5) == 20  # lower is better
    assert seconds_to(CURVE, "loss", 4.9) is None
    assert seconds_to(CURVE, "NDCG@10", 0.12, clock="processor_seconds") == 16
    with pytest.raises(KeyError, match="HR@5"):
        seconds_to(CURVE, "HR@5", 0.1)


def test_a_killed_run_leaves_its_whole_lines(tmp_path: Path) -> None:
    lines = "".join(json.dumps(line) + "\n" for line in CURVE)
    (tmp_path / "curve.jsonl").write_text(lines + '{"epoch": 4, "sec')
    assert read_curve(tmp_path) == CURVE
    (tmp_path / "curve.jsonl").write_text('{"epoch": 1')
    for work in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"holds no epoch; delete .* and run again"):
            read_curve(work)


def test_an_item_without_a_vector_stands_below_all_others() -> None:
    items = np.array([[-5.0], [np.nan], [3.0], [np.nan]])
    queries, rows = marked(np.ones((3, 1)), items, np.array([True, False, True, False]))
    ranks = rank(queries, rows, np.array([2, 0, 1]))
    assert ranks.better.tolist() == [0, 1, 2]
    assert ranks.equal.tolist() == [0, 0, 1]  # both unknown ones stand alike


def task_of(corpus: Corpus, work: Path, *, filter_seen: bool = False) -> ItemRankingTask:
    config = ItemRankingConfig(
        name="films",
        kind="leave one out",
        filter_seen=filter_seen,
        rectools=RectoolsConfig(work=work),
    )
    return config.build(corpus)


def rival_of(task: ItemRankingTask) -> RectoolsSasrec:
    _, rival = task.baselines([])
    assert isinstance(rival, RectoolsSasrec)
    return rival


def left_behind(task: ItemRankingTask, *, items: int = 5, **measures: float) -> RectoolsSasrec:
    """What a worker leaves that puts b first, then a and c alike, then d; e it has never seen."""
    rival, corpus = rival_of(task), task.corpus
    order = corpus.item_ids.take(pa.array(task.catalogue.items)).to_pylist()
    score = {"b": 4.0, "a": 3.0, "c": 3.0, "d": 2.0, "e": np.nan}
    table = np.array([[score[name]] for name in order], dtype=np.float32)[:items]
    rival.work.mkdir(parents=True)
    users = np.ones((2, 1), dtype=np.float32)
    known = np.isfinite(table[:, 0])
    kept = {"epoch": 7, "known": known, "valid": users, "test": users, "items": table}
    np.savez(rival.work / "best.npz", **kept)
    line = {"epoch": 7, "seconds": 1.0, "processor_seconds": 1.0, **measures}
    (rival.work / "curve.jsonl").write_text(json.dumps(line) + "\n")
    (rival.work / "about.json").write_text('{"config": {"epochs": 9}, "machine": {}}')
    return rival


# Validation targets c and a. Kept: b above, the other beside: rank 2 or 3. Left out: c alone is
# first for ann; for bob (b seen) a stands beside c: rank 1 or 2.
EITHER = (1 / np.log2(3) + 1 / np.log2(4)) / 2
VALID = {
    "HR@10 seen kept": 1.0,
    "NDCG@10 seen kept": EITHER,
    "HR@10 seen left out": 1.0,
    "NDCG@10 seen left out": (1 + (1 + 1 / np.log2(3)) / 2) / 2,
}


def test_the_vectors_left_behind_are_measured_by_our_ranking(
    corpus: Corpus, tmp_path: Path
) -> None:
    task = task_of(corpus, tmp_path / "work", filter_seen=True)
    scored = task.score(left_behind(task, **VALID), "raw scores")
    value = {name: np.mean(scored.queries[name].to_pylist()) for name in scored.measures}
    # Test targets d and e. Kept: d is 4th, e 5th. Left out: d first of d, e; e third of c, d, e.
    kept = (1 / np.log2(5) + 1 / np.log2(6)) / 2
    left_out = (1 + 1 / np.log2(4)) / 2
    assert next(iter(value)) == "NDCG@10 [seen left out]"
    assert value["NDCG@10 [seen kept]"] == pytest.approx(kept)
    assert value["NDCG@10 [seen left out]"] == pytest.approx(left_out)
    assert value["HR@10 [seen left out]"] == 1
    assert not [name for name in value if "entropy" in name]  # of an unknown target it is infinite
    assert scored.chosen["config"] == {"epochs": 9} and scored.chosen["best"]["epoch"] == 7
    assert scored.queries.num_rows == 2


def test_a_curve_of_another_run_and_vectors_of_another_split_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    task = task_of(corpus, tmp_path / "other")
    wrong = VALID | {"NDCG@10 seen kept": EITHER + 0.01}
    with pytest.raises(ValueError, match="by our ranking, .* by the worker's"):
        task.score(left_behind(task, **wrong), "raw scores")
    task = task_of(corpus, tmp_path / "short")
    with pytest.raises(ValueError, match="vectors of 2 users and 4 items, the corpus 2 and 5"):
        task.score(left_behind(task, items=4, **VALID), "raw scores")


def test_histories_that_it_was_not_asked_and_other_splits_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    rival = left_behind(task_of(corpus, tmp_path / "work"), **VALID)
    with pytest.raises(ValueError, match="knows the histories of its test items alone"):
        rival.states(Ragged(np.array([0, 0]), np.array([0, 2])))
    longer = Sequences(corpus, SequencesConfig(held_out=3))
    with pytest.raises(ValueError, match=r"sequences\.held_out=2"):
        RectoolsSasrec(RectoolsConfig(), longer, seed=0)


def test_without_the_rivals_environment_the_error_says_what_to_do(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(rival: object) -> Path:
        raise RivalMissing("rectools: `pip install` failed: no such host")

    monkeypatch.setattr(environments, "python_of", fails)
    task = task_of(corpus, tmp_path / "work")
    with pytest.raises(FileNotFoundError, match="no such host") as error:
        task.score(rival_of(task), "raw scores")
    for part in (".rivals/rectools", "rectools[torch]==0.19.0", "rectools=null"):
        assert part in str(error.value)


def test_the_worker_gets_the_log_and_its_failure_is_reported(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our own environment lacks rectools: the worker fails at its import, after the log was written.
    monkeypatch.setattr(environments, "python_of", lambda rival: Path(sys.executable))
    task = task_of(corpus, tmp_path / "work")
    rival = rival_of(task)
    with pytest.raises(ArmFailed, match=r"status 1: ModuleNotFoundError.*worker\.log"):
        task.score(rival, "raw scores")
    log = pq.read_table(rival.work / "log.parquet")
    assert log.equals(log_of(rival.parts["test"], rival.parts["valid"]))
    assert not (rival.work / "about.json").exists()  # and so the next call trains


@pytest.mark.parametrize(
    ("wrong", "said"), [({"epochs": 0}, "epochs 0"), ({"heads": 3}, "width 64 is no multiple")]
)
def test_a_setting_that_cannot_be_trained_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RectoolsConfig(**wrong)
