"""The whole study on untrained models: its cells are kept, its gains paired, its runs checked."""

# pyright: standard

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hard_tasks import __main__ as study
from benchmarks.hard_tasks.__main__ import HardTasksConfig, run
from benchmarks.hard_tasks.figure import read_tasks, table
from benchmarks.hard_tasks.scores import Cell, Scores
from benchmarks.report.docs import hard_tasks
from clue.data.corpus import Corpus
from clue.data.sequences import SequencesConfig
from tests.benchmarks.item_runs import saved_run, two_services

TAIL = SequencesConfig(join="service", held_out=6)
OWN = SequencesConfig(join="service", services=["shop"])
ALL = SequencesConfig(join="service")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return two_services(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def config(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> HardTasksConfig:
    root = tmp_path_factory.mktemp("study")

    def ladder(name: str, sequences: SequencesConfig) -> dict[str, Path]:
        sizes = {"small": 8, "large": 12}
        return {
            size: saved_run(root / "runs", f"{name}_{size}", corpus, sequences, width=width)
            for size, width in sizes.items()
        }

    tails = ladder("tail", TAIL)
    kinds = {"scratch": ladder("scratch", OWN), "mix": ladder("mix", ALL)}
    return HardTasksConfig(
        name="two",
        corpus=corpus.path,
        out=root / "results" / "hard_tasks" / "two",
        cells=root / "cells",
        models=tails,
        trajectory=tails,
        transfer={"shop": kinds},
        lengths=[1, 4],
        rates=[0.0, 0.5],
        steps=5,
        resamples=40,
    )


def test_every_cell_is_measured_once(
    config: HardTasksConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    measure = study.measure

    def counted(scores: Scores, **named: int) -> Cell:
        measured.append(1)
        return measure(scores, **named)

    monkeypatch.setattr(study, "measure", counted)
    text = run(config)
    assert len(measured) == 4 * 3 + 2  # four tasks for two sizes and popularity; the transfer
    tasks = read_tasks(config.out / "results.json")
    names = ["long tail", "cold start", "robustness", "trajectory", "transfer: shop"]
    assert [task.name for task in tasks] == names
    assert text == "\n\n".join(table(task) for task in tasks)
    for task in tasks:
        sizes = ["small", "large"] if task.kind == "transfer" else ["popularity", "small", "large"]
        assert list(task.rows) == sizes and task.users == 16
        for key, gain in task.gain.items():
            gap = task.rows["large"][key].value - task.rows["small"][key].value
            assert gain.value == pytest.approx(gap, nan_ok=True)
            assert not gain.low > gain.high
        assert len(task.gain) == len(task.rows["small"]) > 3
        drawn = (config.out / f"{task.kind.replace(' ', '_')}.svg").read_text()
        assert drawn.startswith("<?xml")
    first = (config.out / "results.json").read_text()
    assert run(config) == text and len(measured) == 14
    assert (config.out / "results.json").read_text() == first
    part = hard_tasks(config.out.parents[2], "two")
    assert part.count("results/hard_tasks/two/transfer.svg") == 1
    assert all(table(task) in part for task in tasks)

    run(replace(config, lengths=[1, 2]))
    assert len(measured) == 14 + 3  # cold start alone


def test_kinds_answer_the_same_questions_among_the_targets_items(config: HardTasksConfig) -> None:
    run(replace(config, models={}, trajectory={}))
    (task,) = read_tasks(config.out / "results.json")
    for size in ("small", "large"):
        row = task.rows[size]
        gap = row["mix", "NDCG@10"].value - row["scratch", "NDCG@10"].value
        assert row["mix", "NDCG@10 - scratch"].value == pytest.approx(gap)


def test_wrong_runs_are_refused_by_name(
    config: HardTasksConfig, corpus: Corpus, tmp_path: Path
) -> None:
    lost = {"small": tmp_path / "lost"}
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*lost"):
        run(replace(config, models=lost))
    other = two_services(tmp_path / "other", items=29)
    alien = {"alien": saved_run(tmp_path, "alien", other, TAIL)}
    with pytest.raises(ValueError, match=r"alien.*catalogue\.arrow .* is not the catalogue of"):
        run(replace(config, models=alien))
    short = {"short": saved_run(tmp_path, "short", corpus, ALL)}
    with pytest.raises(ValueError, match=r"sequences\.held_out=6"):
        run(replace(config, models={}, trajectory=short))


def test_a_model_that_may_know_the_answers_is_refused(
    config: HardTasksConfig, corpus: Corpus, tmp_path: Path
) -> None:
    def asked(name: str, sequences: SequencesConfig) -> HardTasksConfig:
        runs = {"small": saved_run(tmp_path, name, corpus, sequences)}
        transfer = {"shop": {"mix": runs}}
        return replace(config, models={}, trajectory={}, transfer=transfer)

    with pytest.raises(ValueError, match=r"sequences\.join=time, which may hold the answers"):
        run(asked("joined", SequencesConfig()))
    with pytest.raises(ValueError, match=r"sequences\.split=temporal and"):
        run(asked("moments", SequencesConfig(join="service", split="temporal")))
    with pytest.raises(ValueError, match="knows news and not the target shop"):
        run(asked("news", SequencesConfig(join="service", services=["news"])))


def test_configs_that_mean_nothing_are_refused() -> None:
    places = {"name": "x", "corpus": Path("c"), "out": Path("o")}
    with pytest.raises(ValueError, match="no runs to measure"):
        HardTasksConfig(**places)
    ladder = {"a": Path("a")}
    with pytest.raises(ValueError, match=r"rates are \[0.1\]"):
        HardTasksConfig(**places, models=ladder, rates=[0.1])
    with pytest.raises(ValueError, match="popularity is the control's name"):
        HardTasksConfig(**places, models={"popularity": Path("a")})
    uneven = {"shop": {"mix": ladder, "diff": {"b": Path("b")}}}
    with pytest.raises(ValueError, match=r"transfer\.shop: its kinds have other sizes"):
        HardTasksConfig(**places, transfer=uneven)
