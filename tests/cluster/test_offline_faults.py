"""The short form of `python -m benchmarks.speed offline_faults`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TinyRun


@pytest.mark.cluster
def test_what_is_killed_is_absent_or_whole_and_nothing_is_made_twice(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    keys = [f"checkpoint={tiny_run.run}", f"corpus={tiny_run.corpus}", "kills=2"]
    keys += [f"logs={tiny_run.corpus.parent / 'logs'}", f"out={tmp_path / 'faults.json'}"]
    # a process of its own: what it forks must have no thread, and this one may have
    command = [sys.executable, "-m", "benchmarks.speed", "offline_faults", *keys]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "faults.json").read_text())
    assert [row["case"] for row in report["rows"]] == ["prepare", "embed", "upload"]
    assert len(report["claims"]) == 3 and all(claim["holds"] for claim in report["claims"])
