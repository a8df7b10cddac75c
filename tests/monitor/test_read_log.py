from pathlib import Path

import pytest

from clue.monitor.read_log import read_log


def test_lines_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "kind": "train"}\n')
    assert read_log(tmp_path) == [{"step": 1}, {"step": 2, "kind": "train"}]


def test_a_missing_and_a_torn_log_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl"):
        read_log(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"kind": "train"}\n{"ki', encoding="utf-8")
    with pytest.raises(ValueError, match="killed while writing"):
        read_log(tmp_path)
