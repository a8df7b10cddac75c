"""The door for configuration: what is written is what is had, and what is wrong has its path."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from clue.config import PathPattern, load, read_command_line, run_command, to_yaml
from clue.data.ingest.prepare_config import PrepareConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 8
    rate: float = 0.5
    kind: Literal["mean", "last"] = "mean"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    parts: dict[str, Inner] = field(default_factory=dict[str, Inner])
    files: list[Path] = field(default_factory=list[Path])
    corpus: Path | None = None
    logs: list[PathPattern] = field(default_factory=list[PathPattern])
    turns: list[Inner] = field(default_factory=list[Inner])
    maybe: Inner | None = None


def test_file_then_overrides(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: a\ninner: {width: 3, rate: 3e-4}\nfiles: [x, y]\n")
    config = load(Outer, tmp_path / "run.yaml", ["inner.width=4", "parts={p: {kind: last}}"])
    assert config == Outer(
        name="a",
        inner=Inner(width=4, rate=3e-4),
        parts={"p": Inner(kind="last")},
        files=[Path("x"), Path("y")],
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = Outer(name="no", inner=Inner(rate=1e-7), parts={"é": Inner()}, corpus=Path("c"))
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert load(Outer, tmp_path / "run.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["name=a", "nmae=b"],
            r"unknown key nmae; there are corpus, files, inner, logs, maybe",
        ),
        (["name=a", "inner.wdith=1"], r"unknown key inner\.wdith; there are kind, rate, width"),
        (["inner.width=1"], r"missing key name"),
        (["name=a", "inner.width=wide"], r"inner\.width: .*integer.*'wide'"),
        (["name=a", "inner.width=1.5"], r"inner\.width: .*1\.5"),
        (["name=a", "inner.kind=first"], r"inner\.kind: .*'mean' or 'last'.*'first'"),
        (["name=a", "parts={p: {wdith: 1}}"], r"unknown key parts\.p\.wdith"),
        (["name=a", "inner"], r"'inner' is not an override; write section\.key=value"),
        (["name=a", "name.first=b"], r"name\.first: name is a value, not a section"),
        (["name=a", "files=[a"], r"files is not YAML: .*expected ',' or ']'"),
        (["name=a", "corpus=${CLUE_NO_SUCH}/x"], r"corpus: .*environment variable CLUE_NO_SUCH;"),
        (["name=a", "logs=['${CLUE_NO_SUCH}']"], r"logs\.0: .*environment variable CLUE_NO_SUCH;"),
        (["name=a", "turns=[{wdith: 1}]"], r"unknown key turns\.0\.wdith; there are kind, rate"),
        (["name=a", "maybe.wdith=1"], r"unknown key maybe\.wdith; there are kind, rate"),
    ],
)
def test_what_is_wrong_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(Outer, None, overrides)


def test_a_variable_of_the_environment_is_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUE_DATA", "there")
    keys = ["files=['${CLUE_DATA}/x', '$CLUE_DATA/y']", "logs=['${CLUE_DATA}/*.csv']"]
    config = load(Outer, None, ["name=a", *keys, "corpus=${CLUE_DATA}"])
    assert config.files == [Path("there/x"), Path("$CLUE_DATA/y")]
    assert config.logs == ["there/*.csv"] and config.corpus == Path("there")


def test_a_dollar_in_a_text_is_a_dollar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("price", "777")
    template = "{title} for ${price}"
    keys = [f"services={{shop: {{template: '{template}'}}}}", "columns.user_id=$city"]
    split = "split={column: p, train: ['${price}', '$HOME', '$$']}"
    config = load(PrepareConfig, None, ["name=a", "events=[a.csv]", *keys, split])
    assert config.services["shop"].template == template
    assert config.columns.user_id == "$city" and config.split.train == ["${price}", "$HOME", "$$"]


def test_a_written_config_is_not_expanded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUE_DATA", "${HOME}")  # a folder of that name
    config = load(Outer, None, ["name=a", "corpus=${CLUE_DATA}/x", "logs=['${CLUE_DATA}']"])
    assert config.corpus == Path("${HOME}/x")
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert load(Outer, tmp_path / "run.yaml", raw=True) == config


def test_the_classes_of_the_caller_stay_as_they_are() -> None:
    load(Outer, None, ["name=a"])
    assert not any(hasattr(cls, "__pydantic_config__") for cls in (Outer, Inner))


def test_files_that_are_no_mapping_no_yaml_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"list\.yaml: expected a mapping of keys, found list"):
        load(Outer, tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("name: [")
    with pytest.raises(ValueError, match=r"torn\.yaml is not YAML"):
        load(Outer, tmp_path / "torn.yaml")
    with pytest.raises(FileNotFoundError, match=r"no config file .*none\.yaml"):
        load(Outer, tmp_path / "none.yaml")


def test_help_teaches_and_a_wrong_line_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        read_command_line(Outer, ["--help"], description="Does a thing.")
    shown = capsys.readouterr().out
    assert left.value.code == 0 and shown.startswith("Does a thing.")
    assert "  name: required\n" in shown and "  inner.kind=mean  (mean | last)\n" in shown
    assert "  turns=[]\n  turns[].width=8\n" in shown and "  parts.NAME.width=8\n" in shown
    assert "  maybe=None\n  maybe.width=8\n" in shown
    with pytest.raises(SystemExit) as left:
        read_command_line(Outer, ["name=a", "nmae=b"], description="")
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: command line: unknown key nmae")


@pytest.mark.parametrize(
    "error", [ValueError("no such thing"), FileNotFoundError("no such thing"), KeyError("fault")]
)
def test_a_command_ends_with_2_and_one_line_for_what_its_user_got_wrong(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Outer) -> None:
        raise error

    ours = isinstance(error, KeyError)
    with pytest.raises(KeyError if ours else SystemExit) as left:
        run_command(Outer, refuse, ["name=a"], description="")
    assert ours or left.value.args == (2,)
    assert capsys.readouterr().err == ("" if ours else "error: no such thing\n")
    also = (KeyError,)
    with pytest.raises(SystemExit, match="2"):
        run_command(Outer, refuse, ["name=a"], description="", also=also)


def test_a_command_returns_what_its_function_does() -> None:
    assert run_command(Outer, lambda config: config.name * 2, ["name=ab"], description="") == "abab"
