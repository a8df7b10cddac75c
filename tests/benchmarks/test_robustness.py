"""The short form of the kill test: three kills of a real run, one of them inside the save."""

import json
from pathlib import Path

from tests.processes import python


def test_three_kills_lose_no_checkpoint(tmp_path: Path) -> None:
    done = python("-m", "benchmarks.robustness", "kills=3", f"out={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "robustness.json").read_text())
    assert found["kills"] == len(found["each"]) == 3
    assert found["most_steps_lost"] <= 1
    assert found["equals_the_undisturbed_run_bitwise"]
