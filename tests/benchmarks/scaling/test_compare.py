# pyright: standard
"""Comparisons of a sweep: differences by hand, rates by held-out loss, test queries in pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scaling.compare import LOSS, CompareConfig, compare, table
from benchmarks.scaling.sweep import launch, query_scores
from benchmarks.scaling.sweep import run as command
from benchmarks.scaling.sweep.run import sweep
from benchmarks.scaling.sweep.sweep_config import Grid
from clue.data.corpus import Corpus
from clue.evaluation.matching import matching_pairs
from clue.monitor.read_log import read_log
from tests.benchmarks.scaling import tiny
from tests.benchmarks.scaling.tables import row, write


def arms(losses: dict[tuple[str, int], float], **other: Any) -> list[dict[str, Any]]:
    return [
        row(16, 2**14, seed=seed, loss=loss, point=f"{arm}-{seed}", arm=arm, size="s", **other)
        for (arm, seed), loss in losses.items()
    ]


def test_differences_over_seeds_by_hand(tmp_path: Path) -> None:
    losses = {
        ("falling, with", 0): 5.0,
        ("falling, with", 1): 5.2,
        ("falling, without", 0): 5.1,
        ("falling, without", 1): 5.4,
        ("constant, with", 0): 5.3,
        ("constant, with", 1): 5.3,
        ("constant, without", 0): 5.5,
        ("constant, without", 1): 5.6,
    }
    file = write(arms(losses), tmp_path / "runs.parquet")
    others = ["constant, with", "falling, without", "constant, without"]
    pairs = [["falling, with", other] for other in others]
    tree = compare(CompareConfig(table=file, factor="arm", by=["size"], pairs=pairs, out=tmp_path))
    (group,) = tree["groups"]
    differences = [one["values"][LOSS] for one in group["differences"]]
    assert [round(one["value"], 6) for one in differences] == [-0.2, -0.15, -0.45]
    # two differences -.3 and -.1: t(.975, 1) = 12.706 times sd / sqrt 2 = .1
    assert differences[0]["low"] == pytest.approx(-0.2 - 12.7062 * 0.1, abs=1e-4)
    text = table(tree)
    assert "| s | falling, with | 2 | 64 |" in text
    assert "| s | falling, with - constant, with | -0.2000 [-1.4706 +1.0706] |" in text
    assert json.loads((tmp_path / "compare.json").read_text()) == tree
    assert (tmp_path / "compare.svg").read_text().startswith("<?xml")


def test_equal_arms_have_a_difference_of_zero_width_that_says_so(tmp_path: Path) -> None:
    same = {(arm, seed): 5.0 + seed for arm in ("a", "b") for seed in (0, 1)}
    file = write(arms(same), tmp_path / "runs.parquet")
    tree = compare(CompareConfig(table=file, factor="arm", out=tmp_path))
    assert "| b - a | +0.0000 [+0.0000 +0.0000] (zero width) |" in table(tree)
    alone = {("a", 0): 5.0, ("b", 0): 5.5}
    file = write(arms(alone), tmp_path / "alone.parquet")
    tree = compare(CompareConfig(table=file, factor="arm", out=tmp_path))
    assert "| b - a | +0.5000 |" in table(tree)  # one seed and no queries: no interval


def test_each_level_stands_at_its_best_rate(tmp_path: Path) -> None:
    rows = [
        *arms({("a", 0): 5.0, ("a", 1): 5.4}, lr=0.1),
        *arms({("a", 0): 5.1, ("a", 1): 5.1}, lr=0.2),
        *arms({("b", 0): 4.0, ("b", 1): 4.0}, lr=0.1),
        *arms({("b", 0): 4.5, ("b", 1): 3.9}, lr=0.2),
    ]
    for number, one in enumerate(rows):
        one["point"] = f"p{number}"
    file = write(rows, tmp_path / "runs.parquet")
    (group,) = compare(CompareConfig(table=file, factor="arm", out=tmp_path))["groups"]
    assert {name: level["lr"] for name, level in group["levels"].items()} == {
        "a": [0.2, 0.2],
        "b": [0.1, 0.1],
    }
    tree = compare(CompareConfig(table=file, factor="lr", by=["arm"], out=tmp_path))
    assert [[*group["levels"]] for group in tree["groups"]] == [["0.1", "0.2"]] * 2


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    rows = [
        *arms({("a", 0): 5.0, ("b", 1): 5.1}),
        row(16, 2**16, point="longer", arm="a", size="s"),
    ]
    file = write(rows, tmp_path / "runs.parquet")

    def refused(match: str, factor: str = "arm", **keys: Any) -> None:
        with pytest.raises(ValueError, match=match):
            compare(CompareConfig(table=file, factor=factor, out=tmp_path, **keys))

    refused("has no column colour; factor and by may be annealed, arm, batch", factor="colour")
    refused("a at .* several runs of one seed.*pairs.*name one of these in by")
    refused("no seed in common", by=["pairs"], factor="arm", pairs=[["b", "a"]])
    refused("pairs names arm c, which has no run at", by=["pairs"], pairs=[["c", "a"]])
    refused(r"pairs holds \['a'\]; each is \[this, minus that\]", pairs=[["a"]])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tiny.corpus(tmp_path_factory.mktemp("tastes"))


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.Forked.started = []
    monkeypatch.setattr(launch, "Popen", tiny.Forked)
    monkeypatch.setattr(command, "POLL", 0.05)


@pytest.mark.usefixtures("forked")
def test_runs_are_compared_on_the_same_test_users(
    world: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = ["optimizer.lr=1e-3"], ["optimizer.lr=1e-2"]
    config = tiny.study(
        tmp_path,
        world,
        grids=[
            *(Grid(arm="equal steps", budgets=[10], overrides=rate) for rate in rates),
            Grid(arm="again", sizes=["a"], budgets=[10], overrides=rates[0]),
        ],
    )
    assert sweep(config) == 0 and len(tiny.Forked.started) == 4
    keys: dict[str, Any] = {"table": config.out / "runs.parquet", "factor": "size", "by": ["arm"]}
    compared = CompareConfig(**keys, runs=config.runs, out=tmp_path, resamples=200)
    tree = compare(compared)
    # a run that two arms share is trained once and stands in both
    assert [[*group["levels"]] for group in tree["groups"]] == [["a"], ["a", "b"]]
    levels = tree["groups"][1]["levels"]
    names = list(config.runs.glob("*/test_queries.npz"))
    assert 2 <= len(names) <= 3
    (difference,) = tree["groups"][1]["differences"]
    measures = list(levels["a"]["values"])
    assert measures[0].startswith("CE_") and measures[1:] == ["R@10"]
    for name in measures:
        delta = levels["b"]["values"][name]["value"] - levels["a"]["values"][name]["value"]
        assert difference["values"][name]["value"] == pytest.approx(delta, abs=1e-9)
        assert difference["values"][name]["low"] <= delta <= difference["values"][name]["high"]
    monkeypatch.setattr(query_scores, "matching_scores", None)  # what is kept is not measured again
    assert compare(compared) == tree
    with pytest.raises(ValueError, match="part=x-y has no test query; there are"):
        compare(CompareConfig(**keys, runs=config.runs, part="x-y", out=tmp_path))
    scores = query_scores.query_scores(names[0].parent)
    pairs = matching_pairs(world, world.users_in("test"), max_events=64, most=30)
    assert len(scores.users) == sum(len(pair.users) for pair in pairs) > 0
    both = [(world.items_of(s).lengths[scores.users] > 0) for s in range(len(world.services))]
    assert (np.sum(both, axis=0) >= min(2, len(world.services))).all()


@pytest.mark.usefixtures("forked")
def test_a_run_of_its_own_schedule_ends_by_its_patience(world: Corpus, tmp_path: Path) -> None:
    keys = ["optimizer={kind: adamw, schedule: constant, patience: 1, lr: 3.0e-2, sgd_lr: 0.01}"]
    keys += [f"corpus={world.path}", "gallery=30", "validate_every=2", "batch=16"]
    keys += ["checkpoint_every=2", "compile=false", "log_every=1"]
    config = tiny.study(
        tmp_path,
        world,
        schedule="own",
        overrides=keys,
        grids=[
            Grid(arm="with", sizes=["a"], budgets=[400]),
            Grid(arm="without", sizes=["a"], budgets=[400], overrides=["optimizer.sgd_lr=0"]),
        ],
    )
    assert sweep(config) == 0
    tree = compare(CompareConfig(table=config.out / "runs.parquet", factor="arm", out=tmp_path))
    levels = tree["groups"][0]["levels"]
    logs = {}
    for arm, point in zip(
        ("with", "without"), sorted(config.runs.glob("*/log.jsonl")), strict=True
    ):
        logs[arm] = read_log(point.parent)
    by_steps = {log.train[-1]["step"]: log for log in logs.values()}
    assert len(by_steps) == 2
    for level in levels.values():
        log = by_steps[level["steps"][0]]
        assert level["steps"][0] < 400
        assert len({line["step"] for line in log.valid}) == len(log.valid) > 1
    alone, both = (by_steps[steps].train for steps in sorted(by_steps))
    # the run without the switch is to the bit the first phase of the run with it
    assert [line["loss"] for line in alone] == [line["loss"] for line in both[: len(alone)]]
    assert levels["with"]["values"][LOSS]["value"] <= levels["without"]["values"][LOSS]["value"]
