"""The demo takes logs as they come: one service or several, and says what a log lacks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from benchmarks.demo import (
    DemoConfig,
    fit_to,
    main,
    plain_name,
    what_next,
    write_data_config,
    write_suite_config,
)
from benchmarks.suite.pipeline import Stages
from benchmarks.suite.runner import SuiteConfig, tasks_of
from clue.config import load
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.prepare import prepare
from clue.run.pretrain_config import PretrainConfig
from tests.benchmarks.worlds import corpus_of


def log_of(users: int, *, service: bool, text: bool) -> pa.Table:
    rng = np.random.default_rng(0)
    count = users * 6
    columns: dict[str, list[object]] = {
        "user_id": [f"u{n % users}" for n in range(count)],
        "item_id": [f"i{n}" for n in rng.integers(0, 30, count)],
        "timestamp": list(range(count)),
    }
    if service:
        columns["service"] = [("shop", "news")[n % 2] for n in rng.integers(0, 2, count)]
    if text:
        columns["text"] = [f"thing {item}" for item in columns["item_id"]]
    return pa.table(columns)


@pytest.mark.parametrize("service", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_a_log_of_ones_own_becomes_a_corpus(tmp_path: Path, service: bool, text: bool) -> None:
    log = tmp_path / "my log.parquet"
    pq.write_table(log_of(20, service=service, text=text), log)
    file = write_data_config(log, "mine", tmp_path / "runs" / "mine")
    config = load(PrepareConfig, file, [f"out={tmp_path / 'corpus'}"])
    corpus = Corpus.open(prepare(config, progress=False))
    assert corpus.services == (("news", "shop") if service else ("mine",))
    assert corpus.num_users == 20
    texts = set(corpus.item_texts.to_pylist())
    assert all(one.startswith("thing i" if text else "i") for one in texts)


def test_csv_logs_are_read_too(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(log_of(5, service=False, text=True), tmp_path / "log.csv")
    assert write_data_config(tmp_path / "log.csv", "log", tmp_path / "run").is_file()


def test_missing_columns_and_files_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    pq.write_table(log_of(5, service=True, text=False).drop(["item_id", "timestamp"]), log)
    with pytest.raises(ValueError, match="no column item_id, timestamp but user_id, service"):
        write_data_config(log, "log", tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        write_data_config(tmp_path / "none.parquet", "log", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_ends_with_the_log_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", f"events={tmp_path / 'none.parquet'}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capfd.readouterr().err.startswith("error: no event log")


@pytest.mark.parametrize(
    ("paired", "single", "once"),
    [
        (300, 0, 0),
        (0, 300, 0),
        (40, 200, 10),
        (20, 0, 300),
        (3, 90, 0),
        (16, 0, 0),
        (90, 90, 90),
        (195, 700, 0),
    ],
)
def test_batch_and_views_fit_whoever_there_is(
    tmp_path: Path, paired: int, single: int, once: int
) -> None:
    # Paired users have one event in each service, single ones two in one, the rest one in all.
    events = [(f"p{n}", service, f"i_{n % 9}") for n in range(paired) for service in ("a", "b")]
    events += [(f"s{n}", "a", f"i_{k}") for n in range(single) for k in (1, 2)]
    events += [(f"o{n}", "a", "i_1") for n in range(once)]
    corpus = corpus_of(tmp_path, events, {user: "train" for user, _, _ in events})
    overrides = fit_to(corpus, PretrainConfig())
    config = load(PretrainConfig, None, overrides)
    assert 16 <= config.batch <= 512
    batch = PairSampler(corpus, config.views, batch=config.batch, seed=0).at(0)
    assert len(batch.user) == config.batch


def test_too_few_users_are_refused_with_their_number(tmp_path: Path) -> None:
    events = [(f"p{n}", service, "i_1") for n in range(9) for service in ("a", "b")]
    corpus = corpus_of(tmp_path, events, {user: "train" for user, _, _ in events})
    with pytest.raises(ValueError, match="of 9 training users 9 are in two services and 0 have"):
        fit_to(corpus, PretrainConfig())


def test_names_are_plain() -> None:
    names = [
        plain_name(Path(name)) for name in ("a/my log (2).parquet", "demo.csv", "日本.parquet")
    ]
    assert names == ["my_log_2", "demo_log", "日本"]
    with pytest.raises(ValueError, match="must be letters"):
        DemoConfig(name="../runs")


def test_a_stage_that_fails_ends_the_demo_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    stages = Stages()
    stages.run("good", "python -c pass")
    with pytest.raises(SystemExit, match="bad failed with status 3"):
        stages.run("bad", "python -c 'import sys; sys.stderr.write(\"its message\"); sys.exit(3)'")
    told = capfd.readouterr().err
    assert "$ python -c pass" in told and "its message" in told
    assert set(stages.seconds) == {"good", "bad"}


def test_the_curl_line_survives_the_shell(tmp_path: Path) -> None:
    events = [(f"u{n}", "shop", 'it\'s_"5_$HOME"') for n in range(2)]
    corpus = corpus_of(tmp_path, events, {"u0": "train", "u1": "train"})
    last = what_next(corpus, Path("runs/x"), Path("indexes/x"))[-1]
    body = subprocess.run(
        ["/bin/sh", "-c", f"printf %s {last.strip().removeprefix('-d ')}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 'it\'s \\"5 $HOME\\"' in body


def test_the_tasks_suit_a_log_of_one_service_and_one_of_equal_times(tmp_path: Path) -> None:
    split = {f"u{n}": ("train", "valid", "test")[n % 3] for n in range(9)}
    one = [(user, "shop", f"i_{k}") for user in split for k in range(3)]
    once = [(user, service, "i_1") for user in split for service in ("shop", "news")]
    for name, events, asked in (("one", one, ["next-item/shop"]), ("once", once, [])):
        corpus = corpus_of(tmp_path / name, events, split)
        file = write_suite_config(corpus, name, tmp_path / name, tmp_path / "results")
        config = load(SuiteConfig, file)
        assert [task.name for task in config.next_item] == asked
        assert all(task.past == "same" for task in config.next_item)
        made = tasks_of(config, corpus)
        assert [task.name for task in made] == ["matching", *asked]


def test_a_log_with_nothing_to_measure_is_refused(tmp_path: Path) -> None:
    events = [(f"u{n}", "shop", "i_1") for n in range(6)]
    split = {user: ("train", "valid", "test")[n % 3] for n, (user, _, _) in enumerate(events)}
    with pytest.raises(ValueError, match="give longer histories or more users"):
        corpus = corpus_of(tmp_path / "c", events, split)
        write_suite_config(corpus, "c", tmp_path / "run", tmp_path / "results")
