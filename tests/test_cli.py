"""The console script finds the commands; a wrong command line ends in one line with a hint."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clue import cli
from clue.config import load
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.embed import EmbedConfig
from clue.prepare import with_logs_as_keys
from clue.run.pretrain_config import PretrainConfig
from tests.conftest import ROOT, TinyRun
from tests.processes import python

# Commands that end before any work run in this process, which has imported torch already: a start
# of 3 s each would be all that they take. `runpy` warns of that.
IMPORTED = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


def clue(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clue.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def test_help_teaches_and_imports_nothing() -> None:
    code = (
        "import sys\nfrom clue.cli import main\nmain(['--help'])\n"
        "print(sorted({'torch', 'numpy', 'yaml', 'clue.config'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("[]\n"), done.stderr
    for name in cli.COMMANDS:
        assert re.search(rf"^    {name} +\S", done.stdout, re.MULTILINE)
    assert "user_id,service,item_id,timestamp,text" in done.stdout


def test_the_commands_in_the_help_are_valid() -> None:
    kinds: dict[str, type] = {
        "prepare": PrepareConfig,
        "pretrain": PretrainConfig,
        "embed": EmbedConfig,
    }
    lines = re.findall(r"^    clue (\w+) (.+?)(?:   .*)?$", cli.HELP, re.MULTILINE)
    shown = [(name, words.split()) for name, words in lines if name in kinds]
    assert len(shown) == 6
    for name, words in shown:
        keys = [word for word in words if not word.startswith("--")]
        load(kinds[name], None, with_logs_as_keys(keys) if name == "prepare" else keys)


@IMPORTED
@pytest.mark.parametrize("command", ["prepare", "export", "synthetic", "serve"])
def test_a_command_s_help_says_its_keys(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clue"])
    with pytest.raises(SystemExit) as done:
        cli.main([command, "--help"])
    assert not done.value.code
    assert "Keys and their defaults:" in capsys.readouterr().out


@IMPORTED
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepair"], "there is no command 'prepair'; did you mean prepare?"),
        (["dance"], "there is no command 'dance'; there are bench, embed"),
        (["bench", "siute"], "there is no benchmark 'siute'; did you mean suite?"),
        (["export", "checkpoint=nowhere", "out=x"], "no checkpoint in nowhere"),
        (["pretrain", "stepz=3"], "unknown key stepz"),
        (["serve", "port=0"], "or CLUE_CHECKPOINT"),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_hint(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["clue"])
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    assert done.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    assert message in stderr


def test_a_process_ends_with_the_status_of_its_command() -> None:
    done = clue("prepair")
    assert done.returncode == 2 and done.stderr.startswith("error: there is no command")


def test_what_is_not_installed_names_its_extra(tmp_path: Path) -> None:
    (tmp_path / "faiss.py").write_text("raise ModuleNotFoundError(name='faiss')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from clue.cli import main\nmain(['serve', 'checkpoint=x', 'index=x'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "error: clue serve needs faiss, which is not installed; pip install 'clue-users[serve]'\n"
    )


def test_a_log_needs_no_yaml(tiny_run: TinyRun, tmp_path: Path) -> None:
    rows = [f"u{n % 7},i{n % 11},{n},item number {n % 11}" for n in range(60)]
    text = "\n".join(["user_id,item_id,timestamp,text", *rows]) + "\n"
    (tmp_path / "shop.csv").write_text(text)
    done = clue("prepare", "shop.csv", "service=shop", "tokenizer.vocab_size=300", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    short = Corpus.open(tmp_path / "corpora" / "shop")
    assert (short.services, short.num_users, short.num_items) == (("shop",), 7, 11)
    keys = ["events=[shop.csv]", "service=shop", "name=mine", "tokenizer.vocab_size=300"]
    done = clue("prepare", *keys, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Corpus.open(tmp_path / "corpora" / "mine").num_items == 11


def test_a_model_is_exported(tiny_run: TinyRun, tmp_path: Path) -> None:
    out = tmp_path / "model"
    done = python(
        "-m", "clue.cli", "export", f"checkpoint={tiny_run.run}", f"out={out}", "license=mit"
    )
    assert done.returncode == 0, done.stderr
    assert "README.md" in done.stdout and (out / "model.safetensors").is_file()
    vectors = tmp_path / "vectors.parquet"
    keys = [f"checkpoint={out}", f"corpus={tiny_run.corpus}", f"out={vectors}"]
    done = python("-m", "clue.cli", "embed", *keys)
    assert done.returncode == 0 and vectors.is_file(), done.stderr
