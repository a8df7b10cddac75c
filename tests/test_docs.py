"""What README.md and docs/ show is there: commands, keys, files, requests, generated parts."""

import importlib
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import clue.config
from benchmarks.report import config_reference
from benchmarks.report.docs import PART, pages, render
from clue.cli import COMMANDS, LAUNCHED
from clue.config import load
from clue.prepare import PrepareConfig
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.data.field_logs import FIELDS, with_fields
from tests.data.logs import corpus_of, many_events, write_log

ROOT = Path(__file__).parent.parent
PAGES = pages(ROOT)
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LONGEST_README = 250
# whose requests tests/serving/test_documented.py sends to a service
WITH_REQUESTS = ("README.md", "docs/serving.md")
# The fitter on published runs has neither config nor keys.
WITHOUT_KEYS = (["benchmarks.scaling", "reference"],)


class Parsed(BaseException):
    """A program has read its config; what comes after is not this test's."""


def blocks(language: str) -> list[tuple[Path, str]]:
    """Return the code blocks of a language, each with its page."""
    found = [(page, *match) for page, text in TEXTS.items() for match in FENCE.findall(text)]
    return [(page, body) for page, name, body in found if name == language]


def commands() -> list[tuple[Path, list[str]]]:
    """Return the words of each command in the shell blocks, each with its page."""
    lines = [
        (page, line)
        for page, body in blocks("bash")
        for line in body.replace("\\\n", " ").splitlines()
    ]
    words = [(page, shlex.split(line, comments=True)) for page, line in lines]
    return [(page, found) for page, found in words if found]


def program_of(words: list[str]) -> list[str] | None:
    """Return which of our programs a command runs, and its arguments; None where it runs none."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words:
        case ["accelerate", "launch", "--config_file", machine, *program]:
            assert (ROOT / machine).is_file()
            return program
        case ["accelerate", "launch", *program] | ["python", "-m", *program]:
            return program
        case ["python", *program]:
            return program
        case ["spark-submit", "--master", _, "--conf", _, *program]:
            return program
        case ["clue", "bench", program, *arguments]:
            return [f"benchmarks.{program}", *arguments]
        case ["clue", command, *arguments]:
            launched = command in LAUNCHED  # whose first options are those of accelerate launch
            kept = [word for word in arguments if not (launched and word.startswith("--"))]
            return [COMMANDS[command][0], *kept]
        case _:
            return None


def read_config(program: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a program until it has read its config; raises what a wrong key or file raises there."""
    name = program.removesuffix(".py").replace("/", ".")
    if importlib.util.find_spec(f"{name}.__main__" if _is_package(name) else name) is None:
        raise ValueError(f"there is no program {program}")
    module = importlib.import_module(f"{name}.__main__" if _is_package(name) else name)

    def read(*given: Any) -> None:
        load(*given)
        raise Parsed

    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr(clue.config, "load", read)
    given = [list(arguments)] if inspect.signature(module.main).parameters else []
    with pytest.raises(Parsed):
        module.main(*given)


def _is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).is_dir()


def test_the_readme_is_short() -> None:
    assert len(TEXTS[Path("README.md")].splitlines()) <= LONGEST_README


def test_our_commands_take_what_they_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUE_DATA", "data")
    monkeypatch.chdir(ROOT)
    jobs = [(page, job) for page, words in commands() if (job := program_of(words))]
    wrong: list[str] = []
    for page, job in jobs:
        if job in WITHOUT_KEYS:
            continue
        try:
            with monkeypatch.context() as patch:
                read_config(job[0], job[1:], patch)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            wrong.append(f"{page}: {shlex.join(job)}: {error} {capsys.readouterr().err}")
    assert not wrong, "\n".join(wrong)
    shown = {job[0] for _, job in jobs}
    assert {
        "clue.prepare",
        "clue/pretrain.py",
        "clue.pretrain",
        "clue.embed",
        "clue.export",
    } <= shown
    assert {"serving.build_index", "serving", "benchmarks.suite", "benchmarks.scaling"} <= shown
    assert len(jobs) >= 60


def test_a_command_with_a_wrong_key_or_name_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        read_config("clue/pretrain.py", ["model.user.widht=1"], monkeypatch)
    assert "unknown key model.user.widht" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no program clue/pretrian"):
        read_config("clue/pretrian.py", [], monkeypatch)


def test_the_other_commands_are_few_and_right() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    others = [(page, words) for page, words in commands() if not program_of(words)]
    for page, words in others:
        match words:
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), page
            case ["export", *variables]:
                names = [v.partition("=")[0].removeprefix("CLUE_").lower() for v in variables]
                assert set(names) <= Settings.model_fields.keys() | {"omp_num_threads"}, page
            case ["curl", *_]:
                assert str(page) in WITH_REQUESTS, page
            case ["pip", "install", "-c", constraints, "-e", _]:
                assert (ROOT / constraints).is_file(), page
            case _:
                known = (
                    ["source", ".venv/bin/activate"],
                    ["uvicorn", "--factory", "serving.app:create_app"],
                )
                assert words in known, f"{page}: no test knows {shlex.join(words)}"
    assert len(others) >= 10


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    fences = [(page, name) for page, text in TEXTS.items() for name, _ in FENCE.findall(text)]
    assert {name for _, name in fences} <= {"bash", "python", "yaml", "text"}, fences
    assert len(fences) >= 50


def test_the_data_yaml_is_one_that_prepare_reads(tmp_path: Path) -> None:
    shown = [text for _, text in blocks("yaml") if "events" in yaml.safe_load(text)]
    for text in shown:
        (tmp_path / "data.yaml").write_text(text)
        config = load(PrepareConfig, tmp_path / "data.yaml")
        assert config.columns.user_id == "customer"
        assert set(config.services) == yaml.safe_load(text)["services"].keys()
    assert len(shown) >= 1


def test_the_python_door_opens(tiny_run: TinyRun) -> None:
    shown = [code for _, code in blocks("python") if "runs/demo" in code]
    for code in shown:
        scope: dict[str, Any] = {}
        exec(code.replace("runs/demo", str(tiny_run.run)), scope)
        assert scope["vectors"].shape == (2, scope["encoder"].width)
        assert scope["likeness"].shape == (2, 2)
    assert len(shown) >= 2


def test_the_universal_encoder_is_used_as_shown(tiny_universal: TinyRun) -> None:
    (code,) = [code for _, code in blocks("python") if "runs/universal" in code]
    scope: dict[str, Any] = {}
    exec(code.replace("runs/universal", str(tiny_universal.run)), scope)
    encoder = scope["encoder"]
    assert scope["users"].shape == (2, encoder.width)
    assert scope["likeness"].shape == (2, 2)
    assert scope["recency"].shape[1] < encoder.width
    assert scope["small"].shape[0] < encoder.width


def test_the_fields_of_a_corpus_are_read_as_shown(tmp_path: Path) -> None:
    rows = with_fields(many_events(300, seed=0), seed=1)
    log = write_log(tmp_path / "log.csv", rows)
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", FIELDS)
    (code,) = [code for _, code in blocks("python") if "corpora/demo" in code]
    scope: dict[str, Any] = {}
    exec(code.replace("corpora/demo", str(corpus.path)), scope)
    codes = corpus.values_of(0, "gift").values  # the last of the loop
    assert np.array_equal(scope["codes"], codes) and len(codes) > 100


def test_linked_files_are_there() -> None:
    links = [
        (page, link)
        for page, text in TEXTS.items()
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text)
    ]
    assert len(links) >= 40
    assert not [x for x in links if not (ROOT / x[0].parent / x[1]).exists()]


def test_the_generated_parts_are_those_of_the_code_and_the_results() -> None:
    stale = [page for page in PAGES if render(ROOT, page) != TEXTS[page]]
    assert not stale, f"run python -m benchmarks.report.docs: {stale}"
    parts = [match.group(0) for text in TEXTS.values() for match in PART.finditer(text)]
    assert len(parts) == sum(text.count("<!-- /") for text in TEXTS.values()) >= 35


def test_every_key_has_a_meaning() -> None:
    rows = 0
    for name in config_reference.CONFIGS:
        table = config_reference.markdown(name)
        keys = [line for line in table.splitlines() if line.startswith("| `")]
        unsaid = [line for line in keys if line.endswith("|  |")]
        assert not unsaid, f"{name}: say it in a comment behind the field"
        rows += len(keys)
    assert rows >= 120


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    site = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.html")}
    assert {str(page.relative_to("docs").with_suffix(".html")) for page in PAGES[1:]} <= site
    pictures = re.findall(r'src="([^"]+\.svg)"', (tmp_path / "results/scaling.html").read_text())
    assert len(pictures) >= 4
    assert not [x for x in pictures if not (tmp_path / "results" / x).is_file()]
    # Whoever reads it may have no network: no page asks for a font, a script or a style elsewhere.
    foreign = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="https?://(?!127)')
    assert not [name for name in site if foreign.search((tmp_path / name).read_text())]


def test_make_lists_its_commands() -> None:
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in shown.stdout.splitlines()}
    assert {"demo", "test", "install", "format", "docs"} <= listed
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
