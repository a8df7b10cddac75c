"""By a planted law: the law, the plan of each kind of budget, its command and the page return."""

import re
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.law import page, planner
from benchmarks.law.planner import plan_command, read_plan
from clue.config import load
from clue.run.pretrain_config import PretrainConfig
from tests.benchmarks.law.planted import BATCH, WINDOWS, planted
from tests.benchmarks.scaling.tables import TRUE, surface


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("laws") / "planted"


@pytest.fixture(scope="module", autouse=True)
def few() -> Generator[None]:
    """Few starts and resamples: what a fit is worth with many, its own tests say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "STARTS", 6)
        patch.setattr(planner, "RESAMPLES", 200)
        patch.setattr(planner, "FEW", 1)
        yield


@pytest.fixture(scope="module")
def tree(few: None, folder: Path) -> dict[str, Any]:
    return planted(folder)


def test_the_law_comes_back_and_meets_what_it_predicted(tree: dict[str, Any]) -> None:
    law = tree["laws"]["surface"]["coefficients"]
    for name, true in (("E", "E"), ("a_params", "alpha"), ("a_pairs", "beta")):
        assert law[name]["low95"] <= TRUE[true] <= law[name]["high95"]
    targets = tree["verified"]["targets"]
    assert len(targets) == 2
    for one in targets:
        assert abs(one["errors"]["surface"]) < 0.01 and one["inside95"]
    worth = {one["what"]: one for one in tree["worth"]}
    assert len(worth) == 3
    for one in worth.values():
        assert one["after"] == pytest.approx(surface(one["size"], one["data"]), rel=0.02)
        assert one["ratio"]["low95"] <= one["after"] / one["before"] <= one["ratio"]["high95"]
    assert worth["compute"]["after"] < worth["compute"]["before"]


def test_the_plans_are_near_the_true_optimum(tree: dict[str, Any]) -> None:
    assert len(tree["plans"]) >= 2
    for one in tree["plans"]:
        planned, build = one["plan"], one["plan"]["build"]
        sizes = np.geomspace(1e3, 1e8, 5000)
        best = surface(sizes, planned["budget"] / 6 / sizes).min()
        assert planned["loss"]["value"] == pytest.approx(best, rel=0.03)
        assert build["batch"] == BATCH and build["lr"] == pytest.approx(4e-3, rel=0.01)
        assert planned["epochs"] == pytest.approx(build["pairs"] / WINDOWS)
        assert planned["epochs"] <= 4.5
        assert one["hours"]["here"] == pytest.approx(planned["budget"] / 2e10 / 3600)
        assert 0 < planned["scores"]["R@10"]["value"] < 1


def text_of(folder: Path, *words: str) -> str:
    return plan_command(read_plan([str(folder), *words]))


@pytest.mark.parametrize(
    ("words", "flops"),
    [
        (["hours=0.5"], 0.5 * 3600 * 2e10),  # the rate of the planted runs
        (["money=1", "price=2", "device=h100", "rate=2e10"], 0.5 * 3600 * 2e10),
    ],
)
def test_a_budget_of_any_kind_gives_a_command_that_pretrain_takes(
    folder: Path, tree: dict[str, Any], words: list[str], flops: float
) -> None:
    shown = text_of(folder, *words)
    spent = re.search(r": (\S+) FLOPs, ", shown)
    assert spent and float(spent.group(1)) == pytest.approx(flops, rel=0.01)
    *_, command = shown.strip().splitlines()
    program, name, base, *overrides = shlex.split(command)
    assert (program, name, base) == ("clue", "pretrain", str(folder / "pretrain.yaml"))
    config = load(PretrainConfig, Path(base), overrides)
    width, layers = re.findall(r"width (\d+), (\d+) layers", shown)[0]
    assert (config.decoder.width, config.decoder.layers) == (int(width), int(layers))
    assert config.decoder.heads * 8 == config.decoder.width
    assert f"{config.steps:,} steps" in shown and config.batch == BATCH
    assert config.optimizer.base_layers == 2 and config.optimizer.base_width == 64


def test_more_than_the_logs_are_worth_is_not_planned(folder: Path, tree: dict[str, Any]) -> None:
    shown = text_of(folder, "hours=8", "device=h100")
    assert "of 2.88e+18 FLOPs only" in shown and "more than 4 times" in shown
    assert "(taken, not measured" in shown
    assert ", read 4 times" in shown and "x the largest run's; the ladder tested" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hours=8", "flops=1e15"], "give one of them above 0"),
        (["money=100"], "money=100 needs the price of an hour"),
        (["hours=8", "device=abacus"], "device 'abacus' is not known; there are here, b200"),
        ([], "give one of them above 0"),
    ],
)
def test_what_is_no_budget_is_refused(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        text_of(folder, *words)
    assert message in capsys.readouterr().err


def test_the_page_shows_the_numbers_and_needs_nothing_else(
    folder: Path, tree: dict[str, Any]
) -> None:
    html = page.write(folder, tree).read_text(encoding="utf-8")
    shown = html.replace("&#39;", "'")
    last = max(tree["verified"]["targets"], key=lambda one: one["factor"])
    numbers = [f"{last['errors']['surface']:+.2%}", f"{last['observed']:.4f}"]
    numbers += [f"{one['ratio']['value'] - 1:+.1%}" for one in tree["worth"]]
    numbers += [f"{one['plan']['loss']['value']:.4f}" for one in tree["plans"]]
    numbers += [shlex.join(one["command"]) for one in tree["plans"]]
    assert len(numbers) >= 8
    assert not [text for text in numbers if text not in shown]
    assert html.count("<svg") == 2 and "published laws have" in html
    assert not re.search(r"<script|<link|src=|https?://(?!www\.w3\.org)", html)
    lines = page.summary(folder, tree).splitlines()
    assert len(lines) == 10 and lines[-1].endswith(f"clue law plan {folder} hours=8 device=h100")
    without = {**tree, "plans": [], "no_plan": "why"}
    assert page.summary(folder, without).splitlines()[-1].split() == ["no", "plan", "why"]
    html = page.write(folder, without).read_text(encoding="utf-8")
    assert "plans nothing: why. What it says" in html and "No plan: why." in html
    assert html.count("<svg") == 2 and "law's best" not in html.replace("&#39;", "'")
