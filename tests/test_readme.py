"""What the README shows is there: commands, keys, files, requests, and the parts made from code."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.batch_size import BatchSizeConfig
from benchmarks.datasets.__main__ import DataConfig
from benchmarks.datasets.multi_service import SourcesConfig
from benchmarks.evaluate import EvaluateConfig
from benchmarks.external.rectools_sasrec import RivalSasrecConfig
from benchmarks.hard_tasks.__main__ import HardTasksConfig
from benchmarks.leave_one_out import LeaveOneOutConfig
from benchmarks.report.docs import render
from benchmarks.report.suite_page import TransferReportConfig
from benchmarks.robustness import RobustnessConfig
from benchmarks.scaling import __main__ as scaling
from benchmarks.scaling.fit.study import FitConfig
from benchmarks.scaling.predict.check_plan import CheckConfig
from benchmarks.scaling.predict.downstream import TransferConfig
from benchmarks.scaling.predict.plan import PlanConfig
from benchmarks.scaling.predict.predict import PredictConfig
from benchmarks.scaling.sweep.config import SweepConfig
from benchmarks.scaling.sweep.ladder import LadderConfig
from benchmarks.speed import batch, loader, loss, lr_width, optim, precision, step
from benchmarks.strategies import StrategiesConfig
from benchmarks.suite.runner import SuiteConfig, arguments
from clue.config import load
from clue.data.ingest.config import PrepareConfig
from clue.embed import EmbedConfig
from clue.inference.text_encoder import TextEncoder
from clue.run.pretrain_config import PretrainConfig
from clue.synthetic.world import SyntheticConfig
from serving.build_index import BuildConfig
from serving.schemas import EmbedRequest, SearchItemsRequest, SimilarUsersRequest
from serving.settings import Settings
from tests.conftest import TinyRun

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS: dict[str, type[Any]] = {
    "clue/prepare.py": PrepareConfig,
    "clue/pretrain.py": PretrainConfig,
    "clue/embed.py": EmbedConfig,
    "clue.synthetic.world": SyntheticConfig,
    "benchmarks.evaluate": EvaluateConfig,
    "benchmarks.batch_size": BatchSizeConfig,
    "benchmarks.hard_tasks": HardTasksConfig,
    "benchmarks.scaling.sweep.ladder": LadderConfig,
    "benchmarks.leave_one_out": LeaveOneOutConfig,
    "benchmarks.external.rectools_sasrec": RivalSasrecConfig,
    "benchmarks.strategies": StrategiesConfig,
    "benchmarks.robustness": RobustnessConfig,
    "benchmarks.suite": SuiteConfig,
    "benchmarks.report.suite_page": TransferReportConfig,
    "benchmarks.datasets.multi_service": SourcesConfig,
    "benchmarks.datasets": DataConfig,
    "serving.build_index": BuildConfig,
}
SPEED: dict[str, type[Any]] = {
    "step": step.StepConfig,
    "loss": loss.LossConfig,
    "batch": batch.BatchConfig,
    "loader": loader.LoaderConfig,
    "optim": optim.OptimConfig,
    "precision": precision.PrecisionConfig,
    "lr_width": lr_width.LrWidthConfig,
}
SCALING: dict[str, type[Any]] = {
    "sweep": SweepConfig,
    "fit": FitConfig,
    "predict": PredictConfig,
    "verify": PredictConfig,
    "plan": PlanConfig,
    "check": CheckConfig,
    "transfer": TransferConfig,
}
REQUESTS: dict[str, type[Any]] = {
    "/v1/users/embed": EmbedRequest,
    "/v1/items/search": SearchItemsRequest,
    "/v1/users/similar": SimilarUsersRequest,
}


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Return the words of each command in the shell blocks."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def job_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return which of our programs a command runs, and its arguments; None where it runs none."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words:
        case ["accelerate", "launch", "--config_file", machine, program, *arguments]:
            assert (ROOT / machine).is_file()
            return program, arguments
        case ["accelerate", "launch", program, *arguments] | ["python", "-m", program, *arguments]:
            return program, arguments
        case ["python", program, *arguments]:
            return program, arguments
        case _:
            return None


def _load_scaling(words: list[str]) -> None:
    if words[0] == "reference" and len(words) == 1:
        return
    words = [words[0], *scaling.arguments(words[1:], scaling.command(words[0])[1])]
    config = ROOT / words[1] if words[1].endswith(".yaml") else None
    load(SCALING[words[0]], config, words[2:] if config else words[1:])


def test_our_commands_take_what_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUE_DATA", "data")
    jobs = [job for words in commands() if (job := job_of(words))]
    for program, words in jobs:
        if program == "benchmarks.speed":
            load(SPEED[words[0]], None, words[1:])
            continue
        if program == "benchmarks.scaling":
            _load_scaling(words)
            continue
        if program == "benchmarks.datasets":
            words = [f"name={words[0]}", *words[1:]]
        if program == "benchmarks.suite":
            words = arguments(words)
        config = ROOT / words[0] if words and "=" not in words[0] else None
        load(COMMANDS[program], config, words[1:] if config else words)
    assert {program for program, _ in jobs} == {*COMMANDS, "benchmarks.speed", "benchmarks.scaling"}
    assert len(jobs) >= 8


def test_the_other_commands_are_few_and_right() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    others = [words for words in commands() if words and not job_of(words)]
    for words in others:
        match words:
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE)
            case ["export", *variables]:
                names = [v.partition("=")[0].removeprefix("CLUE_").lower() for v in variables]
                assert set(names) <= Settings.model_fields.keys() | {"omp_num_threads"}
            case ["curl", url, *_]:
                assert url.removeprefix("localhost:8000") in {*REQUESTS, "/v1/models"}
            case ["pip", "install", "-c", constraints, "-e", _]:
                assert (ROOT / constraints).is_file()
            case _:
                assert words in (
                    ["source", ".venv/bin/activate"],
                    ["uvicorn", "--factory", "serving.app:create_app"],
                )
    assert len(others) >= 10


def test_the_requests_are_valid() -> None:
    shown = [words for words in commands() if words and words[0] == "curl" and "-d" in words]
    for _, url, *options in shown:
        schema = REQUESTS[url.removeprefix("localhost:8000")]
        schema.model_validate_json(options[options.index("-d") + 1])
    assert len(shown) == len(REQUESTS)


def test_the_data_yaml_is_one_that_prepare_reads(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "data.yaml").write_text(text)
    config = load(PrepareConfig, tmp_path / "data.yaml")
    assert config.columns.user_id == "customer"
    assert set(config.services) == yaml.safe_load(text)["services"].keys()


def test_the_python_door_opens(tiny_run: TinyRun) -> None:
    (code,) = blocks("python")
    scope: dict[str, Any] = {}
    exec(code.replace("runs/demo", str(tiny_run.run)), scope)
    assert isinstance(scope["encoder"], TextEncoder)
    assert scope["vector"].shape == (scope["encoder"].width,)


def test_linked_files_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) >= 6
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_file_map_and_the_tables_are_those_of_the_code() -> None:
    assert render(ROOT) == README, "run python -m benchmarks.report.docs"


def test_make_lists_its_commands() -> None:
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in shown.stdout.splitlines()}
    assert {"demo", "test", "install", "format"} <= listed
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
