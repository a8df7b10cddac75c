"""The workflows run what is there, hold no secrets, and pin what they use."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps_of(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = [
        target
        for path in WORKFLOWS
        for step in steps_of(path)
        for target in re.findall(r"make ([\w-]+)", step.get("run", ""))
    ]
    assert {path.stem for path in WORKFLOWS} == {"docs", "release", "test"}
    assert sorted(used) == ["docs", "test", "test", "test-cluster"] and set(used) <= targets


def test_no_secret_and_no_moving_action() -> None:
    actions = [step["uses"] for path in WORKFLOWS for step in steps_of(path) if "uses" in step]
    assert len(actions) > 8
    assert all(re.search(r"@(v\d+|release/v\d+)$", action) for action in actions)
    for path in WORKFLOWS:
        assert "secrets." not in path.read_text()
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
