"""The short form of the kill test: three kills of a real run, one of them inside the save."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_three_kills_lose_no_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.robustness", "kills=3", f"out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "robustness.json").read_text())
    assert found["kills"] == len(found["each"]) == 3
    assert found["most_steps_lost"] <= 1
    assert found["equals_the_undisturbed_run_bitwise"]
