# pyright: standard
"""The rival's comparison without the rival: its split, its curve, our measures of its vectors."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.external import rectools_sasrec
from benchmarks.external.environments import RivalMissing
from benchmarks.external.rectools_sasrec import (
    RivalSasrecConfig,
    main,
    marked,
    measure,
    read_curve,
    seconds_to,
    train,
)
from benchmarks.rival_split import leave_one_out
from benchmarks.speed.interleave import ArmFailed
from clue.data.corpus import Corpus
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
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"holds no epoch; train first"):
            read_curve(place)


def test_an_item_without_a_vector_stands_below_all_others() -> None:
    items = np.array([[-5.0], [np.nan], [3.0], [np.nan]])
    queries, rows = marked(np.ones((3, 1)), items, np.array([True, False, True, False]))
    ranks = rank(queries, rows, np.array([2, 0, 1]))
    assert ranks.better.tolist() == [0, 1, 2]
    assert ranks.equal.tolist() == [0, 0, 1]  # both unknown ones stand alike


def left_behind(corpus: Corpus, work: Path, **measures: float) -> RivalSasrecConfig:
    """What an arm leaves that puts b first, then a and c alike, then d; e it has never seen."""
    names = leave_one_out(corpus)
    order = corpus.item_ids.take(names.catalogue).to_pylist()
    score = {"b": 4.0, "a": 3.0, "c": 3.0, "d": 2.0, "e": np.nan}
    items = np.array([[score[name]] for name in order], dtype=np.float32)
    work.mkdir()
    users = np.ones((2, 1), dtype=np.float32)
    known = np.isfinite(items[:, 0])
    np.savez(work / "best.npz", epoch=7, known=known, valid=users, test=users, items=items)
    line = {"epoch": 7, "seconds": 1.0, "processor_seconds": 1.0, **measures}
    (work / "curve.jsonl").write_text(json.dumps(line) + "\n")
    (work / "config.json").write_text('{"epochs": 9}')
    (work / "versions.json").write_text('{"rectools": "0"}')
    return RivalSasrecConfig(
        corpus=corpus.path, work=work, out=work / "out.json", epochs=0, resamples=50
    )


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
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    config = left_behind(corpus, tmp_path / "work", **VALID)
    keys = [f"{key}={getattr(config, key)}" for key in ("corpus", "work", "out", "epochs")]
    monkeypatch.setattr(sys, "argv", ["rival_sasrec", *keys, "resamples=50"])
    main()
    found = json.loads(config.out.read_text())
    # Test targets d and e. Kept: d is 4th, e 5th. Left out: d first of d, e; e third of c, d, e.
    kept = (1 / np.log2(5) + 1 / np.log2(6)) / 2
    left_out = (1 + 1 / np.log2(4)) / 2
    assert found["measures"]["test"]["seen kept"]["NDCG@10"]["value"] == pytest.approx(kept)
    assert found["measures"]["test"]["seen left out"]["NDCG@10"]["value"] == pytest.approx(left_out)
    assert found["measures"]["test"]["seen left out"]["HR@10"]["value"] == 1
    assert (found["users"], found["items"], found["config"]) == (2, 5, {"epochs": 9})
    assert "best epoch 7 of 7" in capsys.readouterr().out


def test_a_curve_of_another_run_and_vectors_of_another_split_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    wrong = VALID | {"NDCG@10 seen kept": EITHER + 0.01}
    config = left_behind(corpus, tmp_path / "work", **wrong)
    with pytest.raises(ValueError, match="by our ranking, .* by the arm's"):
        measure(config, leave_one_out(corpus))
    with pytest.raises(ValueError, match="vectors of 2 users and 5 items, the corpus 1 and 4"):
        measure(config, leave_one_out(corpus, users=1))


def test_without_the_rivals_environment_the_error_says_what_to_do(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def fails(rival: object) -> Path:
        raise RivalMissing("rectools: `pip install` failed: no such host")

    monkeypatch.setattr(rectools_sasrec, "python_of", fails)
    monkeypatch.setattr(sys, "argv", ["", f"corpus={corpus.path}", f"work={tmp_path / 'work'}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert "no such host" in said and ".rivals/rectools" in said and "epochs=0" in said


def test_the_arm_gets_the_log_and_its_failure_is_told(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our own environment lacks rectools: the arm fails at its import, after the log was written.
    monkeypatch.setattr(rectools_sasrec, "python_of", lambda rival: Path(sys.executable))
    config = RivalSasrecConfig(work=tmp_path / "work")
    split = leave_one_out(corpus)
    with pytest.raises(ArmFailed, match=r"status 1: ModuleNotFoundError.*arm\.log"):
        train(config, split)
    assert pq.read_table(config.work / "log.parquet").equals(split.table())


@pytest.mark.parametrize(
    ("wrong", "said"), [({"epochs": -1}, "epochs -1"), ({"heads": 3}, "width 64 is no multiple")]
)
def test_a_setting_that_cannot_be_trained_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RivalSasrecConfig(**wrong)
