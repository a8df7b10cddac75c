"""The short form of `python -m benchmarks.speed prepare`."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.speed import prepare
from benchmarks.speed.__main__ import main
from benchmarks.speed.report import read_report
from tests.conftest import ROOT


def test_sizes_are_prepared_and_measured(tmp_path: Path) -> None:
    out = tmp_path / "prepare.json"
    keys = ["sizes=[12000]", "rivals=[]", f"folder={tmp_path / 'logs'}", f"out={out}"]
    main(["prepare", *keys])
    report = read_report(out)
    assert [row.case for row in report.rows] == ["0.012 M events"]
    for row in report.rows:
        assert row.status == "measured"
        figures = {name: spread.median for name, spread in row.figures.items()}
        assert 0.1 < figures["peak GiB"] < 4 and figures["disk GB"] >= figures["corpus GB"] > 0
        assert figures["seconds"] >= sum(figures[name] for name in prepare.STAGES) > 0
    assert len(report.claims) == 3 and report.claims[0].holds is True
    assert not (tmp_path / "logs").exists()


def test_the_log_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "logs-5000"
    prepare.write_logs(logs, 5000)
    files = sorted(logs.glob("events-*.parquet"))
    made = {file: file.stat().st_mtime_ns for file in files}
    assert sum(pq.read_metadata(file).num_rows for file in files) == pytest.approx(5000, rel=0.1)
    prepare.write_logs(logs, 5000)
    assert {file: file.stat().st_mtime_ns for file in files} == made and len(made) == 1


def test_a_process_beyond_its_memory_is_ended() -> None:
    code = "from benchmarks.speed.prepare import keep_below; keep_below(0.001)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "its memory went beyond 0.001 GiB\n"
