# pyright: standard
"""A tiny sweep, trained: what is finished is never repeated, and its table is arithmetic."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.json_files import hashed
from benchmarks.scaling.sweep import launch
from benchmarks.scaling.sweep import run as command
from benchmarks.scaling.sweep.cost import batch_flops
from benchmarks.scaling.sweep.gate import gate
from benchmarks.scaling.sweep.grid import Point, lay_out
from benchmarks.scaling.sweep.run import Sweep, sweep
from benchmarks.scaling.sweep.run_records import finished
from benchmarks.scaling.sweep.sweep_config import Grid, SweepConfig
from clue.config import load
from clue.data.corpus import Corpus
from clue.nn.user_encoder import activity_level
from clue.pretrain import STOPPED, pretrain
from clue.run import checkpoint
from clue.run.objectives.contrastive import Contrastive
from clue.run.pretrain_config import PretrainConfig
from tests.benchmarks.scaling import tiny
from tests.benchmarks.scaling.tiny import Forked


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tiny.corpus(tmp_path_factory.mktemp("tastes"))


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Forked.started = []
    monkeypatch.setattr(launch, "Popen", Forked)
    monkeypatch.setattr(command, "POLL", 0.05)
    return Forked.started


def rows(config: SweepConfig) -> dict[str, dict[str, Any]]:
    return {row["point"]: row for row in pq.read_table(config.out / "runs.parquet").to_pylist()}


def lines(point: Point, kind: str) -> list[dict[str, Any]]:
    text = (point.run.run / "log.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


@dataclass(frozen=True)
class Killed:
    """A sweep that was killed while its second point trained, and called again."""

    config: SweepConfig
    points: list[Point]
    before: list[str]  # what was started, and what was done of it, at the kill
    done: list[str]
    after: list[str]
    table: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def swept(world: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    config = tiny.study(tmp_path_factory.mktemp("swept"), world)
    points = lay_out(config)
    started = Forked.started = []

    def killed(seconds: float) -> None:
        if finished(points[0]) is not None and len(started) == 2:
            raise KeyboardInterrupt
        time.sleep(seconds)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(launch, "Popen", Forked)
        patched.setattr(command, "POLL", 0.05)
        with patched.context() as sleeping, pytest.raises(KeyboardInterrupt):
            sleeping.setattr(command, "time", SimpleNamespace(sleep=killed))
            sweep(config)
        before, done = list(started), list(rows(config))
        assert done == [point.name for point in points if finished(point)]
        assert sweep(config) == 0
    return Killed(config, points, before, done, started[len(before) :], rows(config))


def test_a_killed_sweep_goes_on_and_repeats_nothing(swept: Killed, forked: list[str]) -> None:
    names = [point.name for point in swept.points]
    lengths = [(point.size, point.run.steps) for point in swept.points]
    assert lengths == [("a", 40), ("a", 10), ("b", 40), ("b", 10)]
    assert swept.before == names[:2] and swept.done[:1] == names[:1]
    assert swept.after == [name for name in names if name not in swept.done]
    assert list(swept.table) == names
    assert sweep(swept.config) == 0 and not forked  # nothing is left
    assert rows(swept.config) == swept.table


def test_flops_are_those_of_the_formula_over_every_batch_drawn(
    swept: Killed, world: Corpus
) -> None:
    for point in swept.points:
        objective = Contrastive(point.run, world)
        counted = sum(batch_flops(objective, step) for step in range(point.run.steps))
        assert swept.table[point.name]["flops"] == pytest.approx(counted, rel=1e-9)


def test_a_row_says_what_was_learnt_from_and_measured(swept: Killed, world: Corpus) -> None:
    for point in swept.points:
        row, model = swept.table[point.name], point.run.model
        assert (row["pairs"], row["users"], row["negatives"]) == (16 * row["steps"], 80, 29)
        assert row["epochs"] == pytest.approx(row["pairs"] / 80)
        assert row["events"] == 80 * 12 and row["annealed"] and 0 < row["loss_se"] < 1
        held = lines(point, "valid")[-1]["matching"]["food-tools"]
        assert row["loss"] == held["calibrated_entropy"]
        longest = model.user.max_events
        tables = world.manifest.vocab_size + model.item.max_tokens + longest
        tables += activity_level(longest) + 1
        assert row["params"] - row["params_hidden"] == tables * model.item.width
    assert len({row["eval_set"] for row in swept.table.values()}) == 1


def test_a_branch_begins_before_the_cooldown_and_ends_as_a_straight_run(swept: Killed) -> None:
    short = swept.points[1]
    assert lines(short, "start")[0]["step"] == 8
    straight = replace(short.run, name="straight", trunk=None)
    assert pretrain(straight)
    end = json.loads((straight.run / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert end["matching"] == lines(short, "valid")[-1]["matching"]


def test_curves_are_annealed_at_their_ends_alone(swept: Killed) -> None:
    curves = pq.read_table(swept.config.out / "curves.parquet").to_pylist()
    assert sum(line["annealed"] for line in curves) == 4
    trunk = swept.points[0].name
    mine = [line for line in curves if line["point"] == trunk]
    assert [line["steps"] for line in mine] == [20, 40]
    assert mine[-1]["flops"] == swept.table[trunk]["flops"] and not mine[0]["annealed"]


def test_checkpoints_for_branches_go_and_the_last_ones_stay(swept: Killed) -> None:
    for point in swept.points:
        kept = {place.name for place in (point.run.run / "checkpoints").glob("step_*")}
        assert f"step_{point.run.steps:08d}" in kept and len(kept) <= 2


def test_a_failed_point_is_told_and_tried_again_and_the_others_go_on(
    world: Corpus, tmp_path: Path, forked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.study(tmp_path, world, grids=[Grid(budgets=[8])])
    broken, other = lay_out(config)
    broken.run.runs.mkdir(parents=True)
    broken.run.run.write_text("no directory")
    assert sweep(config) == 1
    said = capsys.readouterr().err
    assert f"failed: {broken.name}: status 1: error:" in said and "1 done, 0 running" in said
    assert list(rows(config)) == [other.name]
    broken.run.run.unlink()
    assert sweep(config) == 0
    assert forked == [broken.name, other.name, broken.name]
    assert set(rows(config)) == {broken.name, other.name}


def test_what_is_held_out_is_trained_only_once_predicted_and_from_the_fitted_trunk(
    world: Corpus, tmp_path: Path, forked: list[str]
) -> None:
    grids = [Grid(sizes=["a"], budgets=[10]), Grid(sizes=["a"], budgets=[20], role="held_out")]
    config = tiny.study(tmp_path, world, grids=grids)
    fit, held = lay_out(config)
    assert sweep(config) == 0 and forked == [fit.name]
    both = replace(config, roles=["fit", "held_out"])
    for told in (fit.name, held.name):
        with pytest.raises(ValueError, match=f"{held.name} is held out, .* predict it first"):
            sweep(both)
        content = {"targets": [{"name": told}]}
        tree = {"sha256": hashed(content), "content": content}
        (config.out / "prediction.json").write_text(json.dumps(tree))
    assert sweep(both) == 0
    assert forked == [fit.name, held.name]
    (config.out / "prediction.json").unlink()
    assert sweep(both) == 0  # nothing is left to be predicted
    assert lines(held, "start")[0]["step"] == 8  # of the fitted run's constant phase
    found = rows(config)
    assert [found[p.name]["role"] for p in (fit, held)] == ["fit", "held_out"]
    objective = Contrastive(held.run, world)
    counted = sum(batch_flops(objective, step) for step in range(20))
    assert found[held.name]["flops"] == pytest.approx(counted, rel=1e-9)


def test_a_stopped_point_goes_on_from_its_checkpoint(world: Corpus, tmp_path: Path) -> None:
    config = tiny.study(tmp_path, world, grids=[Grid(sizes=["a"], budgets=[100])])
    (point,) = lay_out(config)
    one = launch.start(point, None, slot=0, gpus=0, threads=1)
    log = point.run.run / "log.jsonl"
    while not (log.is_file() and '"train"' in log.read_text(encoding="utf-8")):
        assert one.process.poll() is None
        time.sleep(0.01)
    one.stop()
    assert one.process.wait() == STOPPED
    saved = checkpoint.find_last(point.run.run)
    assert saved is not None and 0 < saved.step < 100
    assert sweep(config) == 0
    assert [line["step"] for line in lines(point, "start")] == [0, saved.step]
    objective = Contrastive(point.run, world)
    counted = sum(batch_flops(objective, step) for step in range(100))
    # what lay between the last line and the stop is counted as the mean of what followed
    assert rows(config)[point.name]["flops"] == pytest.approx(counted, rel=0.05)


def test_a_point_in_training_elsewhere_is_not_trained_twice(world: Corpus, tmp_path: Path) -> None:
    config = tiny.study(tmp_path, world)
    point = lay_out(config)[0]
    point.run.runs.mkdir(parents=True)
    lock = launch._locked(point.run.runs / f".{point.name}.lock")
    with pytest.raises(ValueError, match="in training since an earlier call"):
        launch.start(point, None, slot=0, gpus=0, threads=1)
    lock.close()


def test_a_launched_point_is_the_documented_command(
    world: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    config = tiny.study(tmp_path, world, grids=[Grid(sizes=["a"], budgets=[8])])
    (point,) = lay_out(config)
    assert sweep(config) == 0
    saved = load(PretrainConfig, point.run.runs / f"{point.name}.yaml")
    assert saved == point.run
    assert list(rows(config)) == [point.name]
    words = launch.command(Path("run.yaml"), gpu=1, threads=3)
    assert " ".join(words[-9:]) == (
        "launch --config_file configs/accelerate/gpu1.yaml --num_cpu_threads_per_process 3 "
        "--gpu_ids 1 clue/pretrain.py run.yaml"
    )


def test_points_start_on_all_places_and_branches_wait_for_their_trunk(
    world: Corpus, tmp_path: Path
) -> None:
    config = tiny.study(tmp_path, world, jobs=3)
    now = Sweep(config)
    try:
        assert now._fill()
        assert [(one.point.size, one.point.run.steps) for one in now.running] == [
            ("a", 40),
            ("b", 40),
        ]
    finally:
        for one in now.running:
            one.stop()


def test_the_gate_trains_what_is_missing_and_writes_what_it_says(
    world: Corpus, tmp_path: Path, forked: list[str]
) -> None:
    grids = [Grid(budgets=[8], rates=[1e-3, 4e-3, 1.6e-2])]
    config = tiny.study(tmp_path, world, grids=grids, validations=1)
    tree = gate(config)
    assert tree is not None and len(forked) == 6
    assert json.loads((config.out / "gate.json").read_text()) == tree
    losses = {(row["size"], row["lr"]): row["loss"] for row in rows(config).values()}
    assert len(losses) == 6
    for one in tree["sizes"]:
        known = {losses[one["size"], rate] for rate in one["rates"]}
        assert known == set(one["losses"])
    assert gate(config) == tree and len(forked) == 6  # nothing is trained twice
    assert gate(replace(config, dry=True)) is None
