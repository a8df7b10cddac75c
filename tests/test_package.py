"""`import clue` is light, and its names mean the same whatever was imported before."""

import pickle
import subprocess
import sys

import pytest

import clue
from tests.conftest import ROOT
from tests.forks import forks

FUNCTIONS = ("prepare", "pretrain", "embed")
ORDERS = [
    "import clue; clue.prepare, clue.pretrain, clue.embed",
    "import clue.prepare, clue.pretrain, clue.embed",
    "import clue.embed",  # which imports clue.prepare
    "from clue.pretrain import pretrain as before; import clue.embed as another",
]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, clue\n"
        "heavy = {'torch', 'numpy', 'duckdb', 'pyarrow', 'accelerate', 'pydantic'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
        "clue.Corpus\nprint('torch' in sys.modules)"
    )
    assert python(code).split() == ["[]", "False"]


def test_every_public_name_is_there() -> None:
    assert len(clue.__all__) == len(set(clue.__all__)) > 8
    for name in clue.__all__:
        assert getattr(clue, name) is not None
    assert set(clue.__all__) == set(dir(clue))
    with pytest.raises(AttributeError, match="no attribute 'prepair'"):
        _ = clue.prepair  # pyright: ignore[reportAttributeAccessIssue]


def test_a_command_is_a_function_in_any_order_of_imports() -> None:
    lines = ["import sys, types, clue, clue.prepare, clue.pretrain, clue.embed"]
    for name in FUNCTIONS:
        lines += [
            f"from clue.{name} import {name}",
            f"from clue import {name} as other",
            f"assert isinstance(clue.{name}, types.FunctionType), clue.{name}",
            f"assert {name} is clue.{name} is other is clue.__getattr__('{name}')",
            f"assert isinstance(sys.modules['clue.{name}'], types.ModuleType)",
            f"print({name}.__name__)",
        ]
    heavy = {"torch._dynamo", "torch.distributed.tensor", "pandas"}  # 2 s of a command's start
    lines.append(f"assert not {heavy} & sys.modules.keys()")
    codes = ["\n".join([first, *lines]) for first in ORDERS]
    ended = forks("import torch", codes, flags=["-W", "error"])
    for first, done in zip(ORDERS, ended, strict=True):
        assert done.returncode == 0, f"{first}: {done.stderr}"
        assert tuple(done.stdout.split()) == FUNCTIONS
    assert len(ended) == 4


def test_the_package_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(clue)) is clue


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert clue.__version__ == version("clue-users")
