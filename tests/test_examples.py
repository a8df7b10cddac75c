"""Each example runs from nothing, and what it asserts at its end is so."""

from pathlib import Path

import pytest

from tests.processes import python

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_holds(example: Path, tmp_path: Path) -> None:
    done = python(example, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_five_and_each_asserts_something() -> None:
    assert [path.stem[:2] for path in EXAMPLES] == ["01", "02", "03", "04", "05"]
    assert all("\nassert " in path.read_text() for path in EXAMPLES)
