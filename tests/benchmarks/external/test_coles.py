# pyright: standard
"""CoLES without CoLES: what goes to its arm, what comes back, and what happens where it fails."""

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.external import coles, coles_worker, environments
from benchmarks.external.coles import ColesConfig, ColesModel, exported, known
from benchmarks.external.coles_worker import batches, numbered, read_histories, vocabulary
from benchmarks.external.environments import ArmFailed, RivalMissing
from benchmarks.protocols import has_items
from benchmarks.snapshot import snapshot_at
from benchmarks.suite.runner import SuiteConfig
from benchmarks.tasks.matching import MatchingConfig
from clue.config import load
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import corpus_of

FAKE = Path(__file__).with_name("fake_coles_worker.py")
# The time of an event is its place in the list: ann goes to and fro between the services.
LEARNT = [
    *(("ann", "food", "b"), ("ann", "tools", "y"), ("ann", "food", "a"), ("ann", "tools", "x")),
    *(("bob", "food", "c"), ("bob", "food", "a"), ("cal", "tools", "y"), ("cal", "food", "b")),
]
EVALUATED = [("ann", "books", "a"), *LEARNT, ("dan", "food", "z"), ("dan", "food", "c")]


@pytest.fixture(scope="module")
def learn(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    split = {"ann": "train", "bob": "train", "cal": "test"}
    return corpus_of(tmp_path_factory.mktemp("learn"), LEARNT, split)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    split = {user: "test" for user, _, _ in EVALUATED}
    return corpus_of(tmp_path_factory.mktemp("evaluated"), EVALUATED, split)


def named(log: dict[str, np.ndarray], corpus: Corpus) -> list[list[tuple[Any, Any]]]:
    """The histories of a log as (service, item id), None for what is not in the corpus."""
    items = [None if row < 0 else corpus.item_ids[int(row)].as_py() for row in log["item"]]
    services = [None if row < 0 else corpus.services[row] for row in log["service"]]
    events = list(zip(services, items, strict=True))
    cuts = log["offsets"].tolist()
    return [events[start:stop] for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]


def made(learn: Corpus, corpus: Corpus, work: Path, monkeypatch: pytest.MonkeyPatch) -> ColesModel:
    monkeypatch.setattr(coles, "command_of", lambda: [sys.executable, str(FAKE)])
    return ColesModel(ColesConfig(work=work), learn, corpus, seed=0)


def test_the_arm_reads_back_the_histories_of_all_services_by_time(
    learn: Corpus, corpus: Corpus, tmp_path: Path
) -> None:
    everyone = snapshot_at(corpus, np.arange(corpus.num_users))
    log = exported(everyone, *known(learn, corpus))
    np.savez(tmp_path / "log.npz", **log)  # pyright: ignore[reportArgumentType]
    found = read_histories(tmp_path / "log.npz")
    assert named(found, learn) == [
        # the books' "a" is not the food's: the rival knows neither it nor its service
        [(None, None), ("food", "b"), ("tools", "y"), ("food", "a"), ("tools", "x")],
        [("food", "c"), ("food", "a")],
        [("tools", "y"), ("food", "b")],
        [("food", None), ("food", "c")],
    ]
    assert found["event_time"].tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 0, 1]


def test_no_event_from_the_moment_on_is_written(learn: Corpus, corpus: Corpus) -> None:
    until = np.array([3.0, 6.0, 7.0, 10.0])  # each the time of an event of that user
    log = exported(snapshot_at(corpus, np.arange(4), until), *known(learn, corpus))
    assert named(log, learn) == [
        [(None, None), ("food", "b"), ("tools", "y")],
        [("food", "c")],
        [],
        [("food", None)],
    ]
    assert len(log["event_time"]) == len(log["item"]) == 5


def test_it_learns_from_training_users_alone(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(learn, corpus, tmp_path, monkeypatch)
    found = named(read_histories(model.work / "histories.npz"), learn)
    assert found == [
        [("food", "b"), ("tools", "y"), ("food", "a"), ("tools", "x")],
        [("food", "c"), ("food", "a")],  # cal is of the test users
    ]


def test_vectors_come_back_in_the_order_of_the_users_and_empty_pasts_are_zero(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(learn, corpus, tmp_path, monkeypatch)
    past = snapshot_at(corpus, np.array([3, 2, 0]), np.array([np.inf, 7, np.inf]))
    items, services = (learn.item_ids.to_pylist(), list(learn.services))
    dan = [2, items.index("c"), services.index("food"), 1]
    ann = [5, items.index("x"), services.index("tools"), 4]
    expected = np.array([dan, [0] * 4, ann], np.float64)
    expected[[0, 2]] /= np.linalg.norm(expected[[0, 2]], axis=1, keepdims=True)
    found = model.users(past)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (model.name, model.seed, has_items(model)) == ("CoLES", 0, False)


def test_a_past_is_embedded_once_and_a_setting_is_trained_once(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls() -> list[str]:
        return (first.work / "calls").read_text().split()

    first = made(learn, corpus, tmp_path, monkeypatch)
    users = np.arange(4)
    vectors = first.users(snapshot_at(corpus, users))
    assert calls() == ["train", "embed"]
    again = made(learn, corpus, tmp_path, monkeypatch)
    np.testing.assert_array_equal(again.users(snapshot_at(corpus, users)), vectors)
    assert (again.work, again.fingerprint) == (first.work, first.fingerprint)
    assert calls() == ["train", "embed"]  # nothing was started
    first.users(snapshot_at(corpus, users, 9.0))  # another past is another one
    assert calls() == ["train", "embed", "embed"]
    assert not list(first.work.glob("vectors/*.npz"))  # what was asked is not kept
    other = ColesModel(ColesConfig(work=tmp_path, minutes=1), learn, corpus, seed=0)
    seed = ColesModel(ColesConfig(work=tmp_path), learn, corpus, seed=1)
    assert len({first.work, other.work, seed.work}) == 3


def test_vectors_of_other_users_or_that_are_not_finite_are_refused(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(learn, corpus, tmp_path, monkeypatch)
    past = snapshot_at(corpus, np.arange(4))
    model.users(past)
    (kept,) = model.work.glob("vectors/*.npy")
    for wrong in (np.ones((3, 4), np.float32), np.full((4, 4), np.nan, np.float32)):
        np.save(kept, wrong)
        with pytest.raises(ValueError, match=r"for 4 users, or NaN; delete it and run again"):
            model.users(past)


def test_it_takes_part_in_matching_and_names_its_setting_in_a_suite(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(learn, corpus, tmp_path, monkeypatch)
    task = MatchingConfig(name="m", pairs=[["food", "tools"]], cca_dims=0).build(corpus)
    assert task.supports(model, "zero-shot")
    scored = task.score(model, "zero-shot")
    assert scored.queries.num_rows == 4  # ann and cal, both ways
    assert load(SuiteConfig, None, ["coles.minutes=3"]).coles == ColesConfig(minutes=3)
    assert load(SuiteConfig, None, ["coles=null"]).coles is None
    with pytest.raises(ValueError, match=r"coles\.minute\b"):
        load(SuiteConfig, None, ["coles.minute=3"])


def test_another_model_in_the_same_place_has_another_fingerprint(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(learn, corpus, tmp_path, monkeypatch)
    (first.work / "model.pt").write_text("trained again, on another machine")
    again = made(learn, corpus, tmp_path, monkeypatch)
    assert again.work == first.work and again.fingerprint != first.fingerprint


def test_what_the_arm_says_is_shown(
    learn: Corpus,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    made(learn, corpus, tmp_path, monkeypatch)
    assert capsys.readouterr().err == "CoLES, train: half way\n"


def test_without_an_environment_the_error_says_what_to_install(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(rival: object) -> Path:
        raise RivalMissing("coles: `pip install` failed: no such host")

    monkeypatch.setattr(environments, "python_of", fails)
    with pytest.raises(FileNotFoundError) as error:
        ColesModel(ColesConfig(work=tmp_path), learn, corpus, seed=0)
    for part in (
        "no such host",
        ".rivals/pytorch-lifestream",
        "pytorch-lifestream==0.6.0",
        "torch==2.13.0",
    ):
        assert part in str(error.value)
    assert "coles=null" in str(error.value)


def test_a_missing_package_is_told_by_its_name(
    learn: Corpus, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our own environment has no ptls: the arm itself runs, and fails where it needs it.
    monkeypatch.setattr(environments, "python_of", lambda rival: Path(sys.executable))
    with pytest.raises(ArmFailed, match=r"CoLES, train, status 1: .*No module named 'ptls'"):
        ColesModel(ColesConfig(work=tmp_path), learn, corpus, seed=0)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "model.pt").exists()  # and so the next call trains


def test_the_arm_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(coles_worker.__file__).read_text(encoding="utf-8"))
    names = [
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    assert "torch" in names and "ptls.nn" in names
    assert not [name for name in names if name.split(".")[0] in ("clue", "benchmarks", "serving")]


def test_the_most_common_items_have_numbers_of_their_own() -> None:
    item = np.array([4, 4, 4, 0, 0, 2, 2, 5])
    assert vocabulary(item, 7, 2).tolist() == [2 + 1, 1, 1, 1, 2 + 0, 1, 1]  # 0 and 2 tie: by row
    assert vocabulary(item, 7, 99).tolist() == [3, 1, 4, 1, 2, 5, 1]  # never seen: the rest
    log = {"item": np.array([4, -1, 1]), "service": np.array([0, -1, 3])}
    found = numbered(log, vocabulary(item, 7, 2))
    assert found["item"].tolist() == [2, 1, 1]
    assert found["service"].tolist() == [1, 0, 4]  # 0 is the vector of zeros


def test_batches_hold_every_history_with_events_once_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coles_worker, "PADDED", 20)
    lengths = torch.tensor([3, 0, 50, 1, 7, 7, 2, 0, 9, 4])
    found = batches(lengths)
    assert sorted(torch.cat(found).tolist()) == [0, 2, 3, 4, 5, 6, 8, 9]
    sizes = [len(rows) * int(lengths[rows].max()) for rows in found]
    assert max(sizes[1:]) <= 20 and sizes[0] == 50  # a history longer than a batch is one
    assert batches(torch.zeros(3, dtype=torch.int64)) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"minutes": 0}, "minutes 0 and items 20000"),
        ({"items": 0}, "items 0: give more than 0"),
        ({"shortest": 5, "longest": 5}, "shortest 5 to longest 5"),
        ({"slices": 1}, "1 slices of"),
    ],
)
def test_a_setting_that_cannot_be_trained_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ColesConfig(**wrong)
