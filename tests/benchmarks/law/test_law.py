# pyright: standard
"""The command on tiny logs: killed and called again it goes on; what is too small is refused."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.json_files import read_prediction
from benchmarks.law import ladder, law, planner, recipe, training
from benchmarks.law.__main__ import main
from benchmarks.law.law_config import LawConfig, read_arguments
from benchmarks.scaling.sweep import launch
from benchmarks.scaling.sweep import run as command
from clue.config import load
from clue.data.corpus import Corpus
from clue.run.pretrain_config import PretrainConfig
from tests.benchmarks.scaling import tiny
from tests.benchmarks.scaling.tiny import Forked

WIDTHS = [8, 16, 24, 32, 40]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tiny.corpus(tmp_path_factory.mktemp("tastes"))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 8 to 32 steps instead of 60 to 240, forked instead of launched, no second seed."""
    Forked.started = []
    monkeypatch.setattr(launch, "Popen", Forked)
    monkeypatch.setattr(command, "POLL", 0.02)
    monkeypatch.setattr(recipe, "FEWEST", 100)
    for module in (ladder, recipe):
        monkeypatch.setattr(module, "LEAST", 32)
    monkeypatch.setattr(ladder, "REPEATED", 0)
    monkeypatch.setattr(ladder, "MOST_SEEDS", 1)
    monkeypatch.setattr(training, "TIMED", 8)
    monkeypatch.setattr(training, "ROUNDS", 1)
    monkeypatch.setattr(planner, "STARTS", 4)
    monkeypatch.setattr(planner, "RESAMPLES", 100)
    monkeypatch.setattr(planner, "FEW", 1)


def config_in(folder: Path, world: Corpus) -> LawConfig:
    return LawConfig(
        name="tiny",
        corpus=world.path,
        objective="next_item",
        widths=WIDTHS,
        layers=1,
        jobs=1,
        laws=folder / "laws",
        runs=folder / "runs",
    )


def test_a_law_goes_on_after_a_kill(
    short: None, world: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(tmp_path, world)
    start = command.start

    def dying(*arguments, **keys):
        if len(Forked.started) == 14:  # 3 timed, 6 of the rates, then fitted ones
            raise KeyboardInterrupt
        return start(*arguments, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(command, "start", dying)
        with pytest.raises(KeyboardInterrupt):
            law.law(config, None)
    first = list(Forked.started)
    assert len(first) == 14 and not (config.folder / "law.html").exists()
    summary = law.law(config, None)
    # what was finished is not trained again
    assert len(Forked.started) == 3 + 6 + 9 + 2
    rows = pq.read_table(config.folder / "runs.parquet").to_pylist()
    roles = [row["role"] for row in rows]
    assert (roles.count("fit"), roles.count("held_out")) == (9, 2)
    assert {row["width"] for row in rows if row["role"] == "held_out"} == {40}
    # the prediction was there before the held-out runs began
    made = (config.folder / "prediction.json").stat().st_mtime
    held = [row["point"] for row in rows if row["role"] == "held_out"]
    assert {
        one["name"] for one in read_prediction(config.folder / "prediction.json")["targets"]
    } == set(held)
    assert all((config.runs / "tiny" / f"{name}.yaml").stat().st_mtime > made for name in held)
    tree = json.loads((config.folder / "law.json").read_text())
    assert len(tree["call"]["seconds"]) == 2 and (config.folder / "law.html").is_file()
    assert "clue law plan" in summary and "40: predicted" in summary
    base = load(PretrainConfig, config.folder / "pretrain.yaml", raw=True)
    assert (base.objective, base.nested, base.optimizer.base_layers) == ("next_item", True, 1)


def test_another_law_in_the_folder_is_refused(world: Corpus, tmp_path: Path) -> None:
    config = config_in(tmp_path, world)
    assert law.begin(config, world) == 0
    law.end(config.folder, 5.0)
    (config.folder / "ladder.json").write_text("{}")  # until that is chosen, all may change
    assert law.begin(config, world) == 5
    other = LawConfig(**{**vars(config), "minutes": 20.0})
    with pytest.raises(ValueError, match=r"holds a law of another minutes, 45\.0; give another"):
        law.begin(other, world)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            "auto",
            r"one reading of the log is 160 windows .* a law of the next_item model needs 960",
        ),
        ("contrastive", r"one reading of the log is 80 users.*needs 3,840.*leave out objective"),
    ],
)
def test_a_log_that_is_too_small_is_refused_before_anything_is_written(
    world: Corpus, tmp_path: Path, objective: str, message: str
) -> None:
    config = LawConfig(**{**vars(config_in(tmp_path, world)), "objective": objective})
    with pytest.raises(ValueError, match=message):
        law.law(config, None)
    assert not config.folder.exists()


def test_few_to_ask_are_refused(world: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "LEAST", 32)
    config = LawConfig(name="few", corpus=world.path, objective="next_item")
    with pytest.raises(ValueError, match="160 held-out users can be asked, a law needs 500"):
        recipe.recipe_of(world, config)


def test_the_batch_is_the_largest_that_leaves_enough_steps() -> None:
    batches = [recipe.batch_of("next_item", once) for once in (100_000, 16_000, 8000, 960, 959)]
    assert batches == [64, 64, 32, 16, 0]
    assert recipe.batch_of("contrastive", 3840) == 64


def test_keys_go_to_the_command_that_has_them(world: Corpus) -> None:
    argv = ["my.csv", "service=shop", "columns.user_id=customer", "minutes=30", "jobs=1"]
    config, prepare = read_arguments(argv)
    assert prepare is not None and config.corpus is None
    assert (config.name, config.minutes, config.jobs) == ("my", 30.0, 1)
    assert (prepare.name, prepare.service, prepare.events) == ("my", "shop", ["my.csv"])
    assert prepare.columns.user_id == "customer"
    config, prepare = read_arguments([str(world.path), "name=other"])
    assert prepare is None and (config.name, config.corpus) == ("other", world.path)
    config, prepare = read_arguments(["configs/prepare/synthetic.yaml", "minutes=20"])
    assert prepare is not None and config.name == prepare.name == "demo"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["minutes=20"], "no log; give one: clue law EVENTS"),
        (["nowhere.csv"], "nowhere.csv"),
        (["my.csv", "widths=[16, 20]"], "widths are [16, 20]; give 5 or more"),
        (["my.csv", "minuets=20"], "unknown key minuets"),
    ],
)
def test_a_wrong_command_is_refused(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(argv)
    assert done.value.code == 2 and message in capsys.readouterr().err
