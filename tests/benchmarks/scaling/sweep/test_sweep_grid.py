"""The plan of a sweep: its budgets as steps, its work, and what is refused before any run."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.live import Live

from benchmarks.json_files import write_json
from benchmarks.scaling.sweep.cost import facts_of
from benchmarks.scaling.sweep.grid import lay_out
from benchmarks.scaling.sweep.progress import Board, work_left
from benchmarks.scaling.sweep.run import plan
from benchmarks.scaling.sweep.run_records import held_out
from benchmarks.scaling.sweep.sweep_config import Grid, Size, SweepConfig
from clue.config import load
from clue.data.corpus import Corpus, first_users
from clue.data.sequences import Sequences, SequencesConfig
from clue.run.objectives.contrastive import Contrastive
from clue.run.pretrain_config import PretrainConfig
from tests.benchmarks.scaling import tiny


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tiny.corpus(tmp_path_factory.mktemp("tastes"))


def test_equal_flops_are_steps_that_suit_each_size(world: Corpus, tmp_path: Path) -> None:
    config = tiny.study(tmp_path, world, unit="flops", grids=[Grid(budgets=[1e9, 3e8])])
    points = lay_out(config)
    assert len(points) == 4
    for point in points:
        near = min((1e9, 3e8), key=lambda budget: abs(point.flops - budget))
        assert point.flops == pytest.approx(near, abs=0.5 * point.facts.step_flops)
    banded = replace(config, grids=[Grid(budgets=[1e9, 3e8], least_steps=100, most_steps=200)])
    assert all(100 <= point.run.steps <= 200 for point in lay_out(banded))
    assert len(lay_out(banded)) < 4


def test_axes_multiply_and_the_same_point_of_two_grids_is_one(
    world: Corpus, tmp_path: Path
) -> None:
    grids = [
        Grid(sizes=["a"], budgets=[20], users=[40, 0], lengths=[4, 16], seeds=[0, 1]),
        Grid(sizes=["a"], budgets=[20], batches=[8, 16]),
    ]
    points = lay_out(tiny.study(tmp_path, world, grids=grids))
    assert len({point.name for point in points}) == len(points) == 9
    assert {(p.run.users, p.run.views.max_events, p.run.batch) for p in points} == {
        *((users, length, 16) for users in (0, 40) for length in (4, 16)),
        (0, 16, 8),
    }
    assert {point.facts.users for point in points} == {40, 80}


def test_rates_are_an_axis_or_come_of_a_gate(world: Corpus, tmp_path: Path) -> None:
    config = tiny.study(tmp_path, world, grids=[Grid(budgets=[20], rates=[1e-3, 4e-3])])
    rates = {(point.size, point.run.optimizer.lr) for point in lay_out(config)}
    assert rates == {(size, rate) for size in "ab" for rate in (1e-3, 4e-3)}
    gate = tmp_path / "gate.json"
    gated = replace(config, gate=gate, grids=[Grid(budgets=[20])])
    with pytest.raises(ValueError, match=r"lr and .*gate\.json one too"):
        replace(gated, sizes={"a": Size(width=8, layers=1, head=8, lr=1e-3)})
    sizes = [{"size": "a", "rate": 3e-3, "why": ""}, {"size": "b", "rate": None, "why": "edge"}]
    write_json(gate, {"passes": True, "shared": 2e-3, "sizes": sizes})
    assert {point.run.optimizer.lr for point in lay_out(gated)} == {2e-3}
    write_json(gate, {"passes": False, "shared": 2e-3, "sizes": sizes})
    (alone,) = lay_out(replace(gated, grids=[Grid(sizes=["a"], budgets=[20])]))
    assert alone.run.optimizer.lr == 3e-3
    with pytest.raises(ValueError, match="no rate for b: edge"):
        lay_out(gated)


def test_all_sizes_read_the_same_batches_and_tell_the_same_users_apart(
    world: Corpus, tmp_path: Path
) -> None:
    points = lay_out(tiny.study(tmp_path, world, grids=[Grid(budgets=[20], rates=[1e-3, 4e-3])]))
    assert len({point.facts.eval_set for point in points}) == 1
    assert len({point.facts.params for point in points}) == 2
    first, *others = (Contrastive(point.run, world) for point in points)
    for step in (0, 7):
        batch = first.draw(step)
        for other in others:
            again = other.draw(step)
            for name, values in vars(batch).items():
                np.testing.assert_array_equal(getattr(again, name), values)


def test_the_warm_up_is_that_of_the_shortest_run_not_held_out(
    world: Corpus, tmp_path: Path
) -> None:
    grids = [Grid(budgets=[100, 400]), Grid(budgets=[60], role="held_out")]
    points = lay_out(tiny.study(tmp_path, world, grids=grids))
    assert {point.run.optimizer.warmup_steps for point in points} == {10}
    grids = [Grid(budgets=[100, 400]), Grid(budgets=[60], role="check")]
    points = lay_out(tiny.study(tmp_path, world, grids=grids))
    assert {point.run.optimizer.warmup_steps for point in points} == {6}
    roles = [(p.role, p.run.steps, p.leads) for p in points if p.size == "a"]
    assert roles == [("fit", 400, True), ("fit", 100, False), ("check", 60, True)]


def test_a_branch_costs_its_cooldown_alone(world: Corpus, tmp_path: Path) -> None:
    config = tiny.study(tmp_path, world, grids=[Grid(sizes=["a"], budgets=[50, 100, 200])])
    points = lay_out(config)
    work = work_left(points)
    # checkpoints at 40, 80, 120, 160: the decay of 100 begins at 80 and that of 50 at 40
    assert [work[point.name][0] for point in points] == [200, 20, 10]
    flops = points[0].facts.step_flops
    assert [work[point.name][1] for point in points] == [200 * flops, 20 * flops, 10 * flops]
    assert f"3 points, 230 steps and {230 * flops:.2e} FLOPs" in plan(points)


def test_the_end_is_projected_from_what_is_done(world: Corpus, tmp_path: Path) -> None:
    points = lay_out(tiny.study(tmp_path, world, grids=[Grid(budgets=[50, 100, 200])]))
    board = Board(points, jobs=2)
    for point in points[:4]:  # a start takes 3 s and a step .1 s
        steps, flops = board.work[point.name]
        wall = 3 + 0.1 * steps
        board.done[point.name] = {"own": {"steps": steps, "flops": flops, "wall": wall}}
    assert board.left([]) == pytest.approx(3 + 2, rel=0.05)  # of 5 s and 4 s on two places
    assert board.summary([]).startswith("4 done, 0 running, 2 left, about 0:00:05")


def test_a_terminal_sees_a_table_and_a_file_lines(
    world: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = lay_out(tiny.study(tmp_path, world))
    board = Board(points, jobs=1)
    board.say("a line")
    board.draw([])
    assert capsys.readouterr().err == "a line\n"
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=150, height=40)
    board.live = Live(console=console, auto_refresh=False)
    board.done[points[0].name] = {"own": {"wall": 0.0}, "row": {"loss": 1.25}}
    board.failed[points[1].name] = "status 1"
    with board.live:
        board.draw([])
        board.say("a line")
    for words in (points[0].name, "done", "1.2500", points[1].name, "failed", "2 left", "a line"):
        assert words in shown.getvalue()
    assert points[2].name not in shown.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grids": [Grid(budgets=[5])]}, "size a: the budget 5 is 5 steps .* one warm-up of 5"),
        ({"grids": [Grid(budgets=[20], users=[81])]}, "users is 81, and the corpus has 80"),
        ({"grids": [Grid(budgets=[20], users=[10])]}, "or raise users from 10"),
        ({"grids": [Grid(budgets=[20], lengths=[99])]}, "max_events 99 is longer"),
        ({"grids": [Grid(budgets=[20], most_steps=9)]}, "grid 1 has no point"),
        ({"most_epochs": 2.0}, "40 steps, 8.00 epochs of 80 users.* set most_steps=10"),
        ({"overrides": ["corpus=nowhere"]}, "no corpus in nowhere"),
        (
            {"grids": [Grid(budgets=[20]), Grid(budgets=[20], role="held_out")]},
            "what is predicted must not be fitted",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_any_run(
    world: Corpus, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        lay_out(tiny.study(tmp_path, world, **change))
    assert not (tmp_path / "runs").exists()


def test_a_run_that_may_end_early_is_refused(world: Corpus, tmp_path: Path) -> None:
    config = tiny.study(tmp_path, world)
    early = replace(config, overrides=[*config.overrides, "optimizer.patience=3"])
    with pytest.raises(ValueError, match=r"optimizer\.patience is 3"):
        lay_out(early)


def test_sizes_and_shares_that_mean_nothing_are_refused(world: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="width 20 is not divisible by heads of 16"):
        Size(width=20, layers=1)
    with pytest.raises(ValueError, match="the size c; sizes has a, b"):
        tiny.study(tmp_path, world, grids=[Grid(sizes=["c"], budgets=[20])])
    with pytest.raises(ValueError, match="give at least one positive budget"):
        Grid(budgets=[])
    with pytest.raises(ValueError, match="leave steps of a constant rate"):
        tiny.study(tmp_path, world, warmup_share=0.9)
    with pytest.raises(ValueError, match="item_layers, embedding and bag describe"):
        Size(width=16, layers=1, item_layers=0).overrides("next_item")


def test_a_size_may_have_a_rate_of_its_own(world: Corpus, tmp_path: Path) -> None:
    sizes = {"a": Size(width=8, layers=1, head=8, lr=3e-3), "b": Size(width=16, layers=1)}
    both = lay_out(tiny.study(tmp_path, world, sizes=sizes, grids=[Grid(budgets=[20])]))
    assert [point.run.optimizer.lr for point in both] == [3e-3, 2e-3]
    assert "optimizer.lr=0.003" in sizes["a"].overrides("next_item")


def test_subsets_of_users_are_nested_and_the_held_out_are_the_same(world: Corpus) -> None:
    users = world.users_in("train")
    subsets = [set(first_users(users, count).tolist()) for count in (10, 20, 40, 0)]
    assert [len(subset) for subset in subsets] == [10, 20, 40, 80]
    assert subsets[0] < subsets[1] < subsets[2] < subsets[3] == set(users.tolist())
    base = ["objective=contrastive", f"corpus={world.path}", "batch=8", "gallery=30"]
    runs = [
        load(PretrainConfig, Path("configs/pretrain/scaling_world.yaml"), [*base, f"users={count}"])
        for count in (10, 0)
    ]
    drawn = [Contrastive(run, world) for run in runs]
    seen = {int(user) for step in range(30) for user in drawn[0].draw(step).user}
    assert seen == subsets[0]
    facts = [facts_of(run, world) for run in runs]
    assert facts[0].eval_set == facts[1].eval_set
    assert [fact.users for fact in facts] == [10, 80]


def test_a_subset_of_sequences_leaves_the_questions_alone(world: Corpus) -> None:
    config = SequencesConfig()
    some, all_ = (Sequences(world, config, users) for users in (20, 0))
    learnt = [set(one.users[one.trained > 0].tolist()) for one in (some, all_)]
    assert len(learnt[0]) == 20 and learnt[0] < learnt[1]
    assert some.counts().sum() == 20 * 10 and all_.counts().sum() == 160 * 10
    for part in ("valid", "test"):
        one, other = some.questions(part), all_.questions(part)
        assert np.array_equal(one.targets, other.targets)
        assert np.array_equal(one.histories.values, other.histories.values)


def test_a_loss_is_the_mean_over_queries_whatever_gallery_they_are_in() -> None:
    figures = {
        "a-b": {"calibrated_entropy": 2.0, "entropy_se": 0.1, "negatives": 29, "gallery": 30},
        "a-c": {"calibrated_entropy": 1.0, "entropy_se": 0.2, "negatives": 9, "gallery": 10},
    }
    found = held_out(figures)
    assert found.loss == pytest.approx(0.75 * 2 + 0.25 * 1)
    assert found.se == pytest.approx(np.hypot(0.75 * 0.1, 0.25 * 0.2))
    assert found.negatives == 24
    items = {"cross_entropy": 5.0, "entropy_se": 0.1, "negatives": 99.0, "queries": 40.0}
    assert held_out({"next item": items}).loss == 5.0


def test_the_next_item_objective_has_a_plan_too(world: Corpus, tmp_path: Path) -> None:
    config = SweepConfig(
        name="items",
        pretrain=Path("configs/pretrain/next_item/ml1m.yaml"),
        overrides=[f"corpus={world.path}", "batch=8"],
        unit="pairs",
        sizes={"a": Size(width=16, layers=2)},
        grids=[Grid(budgets=[160, 320], lengths=[4], users=[40, 0])],
        runs=tmp_path,
    )
    points = lay_out(config)
    assert sorted(point.run.steps for point in points) == [20, 20, 40, 40]
    assert {(p.facts.users, p.facts.events) for p in points} == {(40, 400), (160, 1600)}
    tables = (len({*world.item_ids.to_pylist()}) + 4) * 16
    assert {p.facts.params - p.facts.params_hidden for p in points} == {tables}
