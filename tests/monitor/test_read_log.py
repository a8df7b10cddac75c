"""The log read back: what a real run wrote, a torn end, and what is refused."""

import json
from pathlib import Path

import pytest

from clue.monitor.read_log import RunHistory, read_log
from tests.conftest import TinyRun


def write(run: Path, *lines: str) -> Path:
    run.mkdir(exist_ok=True)
    (run / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return run


def test_every_line_of_a_real_run_is_of_one_kind(tiny_run: TinyRun) -> None:
    history = read_log(tiny_run.run)
    text = (tiny_run.run / "log.jsonl").read_text(encoding="utf-8")
    written = [json.loads(line) for line in text.splitlines()]
    kinds = {"start": 0, "train": 0, "valid": 0, "phase": 0, "alarm": 0}
    for kind in kinds:
        expected = [line for line in written if line["kind"] == kind]
        assert [{"kind": kind, **line} for line in vars(history)[kind]] == expected
        kinds[kind] = len(expected)
    assert sum(kinds.values()) == len(written) and min(kinds["train"], kinds["valid"]) > 0
    assert history.last_step == max(line["step"] for line in written)
    for line in history.train:
        assert line["seconds"] > 0 and line["model_flops"] > 0 and line["loss"] > 0


def test_a_torn_last_line_is_left_out_and_any_other_is_named(tmp_path: Path) -> None:
    whole, torn = '{"kind": "alarm", "step": 3, "name": "n", "message": "m"}', '{"kind": "trai'
    run = write(tmp_path / "run", whole, torn)
    assert read_log(run).alarm == [{"step": 3, "name": "n", "message": "m"}]
    assert read_log(run).last_step == 3
    for bad in (torn, "[1]", "3", '{"kind": "unheard of"}', '{"step": 1}'):
        with pytest.raises(ValueError, match=r"log\.jsonl:2 is no line of a run's log.*resume"):
            read_log(write(tmp_path / "run", whole, bad, whole))
    assert read_log(write(tmp_path / "run", "")) == RunHistory()
    assert RunHistory().last_step == 0


def test_a_run_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl; give the directory of a run"):
        read_log(tmp_path / "nowhere")
