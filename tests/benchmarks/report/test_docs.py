import json
from pathlib import Path

import pytest

from benchmarks.report.docs import file_map, render
from benchmarks.suite import results
from tests.benchmarks.results_fixture import FakeModel, FakeTask


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in ("clue", "benchmarks", "serving"):
        write(tmp_path, f"{package}/__init__.py", f'"""All of {package}.\n\nMore."""\n')
    write(tmp_path, "clue/nn/__init__.py", '"""Tensors."""\n')
    write(tmp_path, "clue/nn/dual_encoder.py", '"""The model.\n\nAt length."""\n')
    write(tmp_path, "clue/words.py", '"""Words."""\n')
    return tmp_path


def test_the_map_holds_each_file_with_its_first_line(tree: Path) -> None:
    assert file_map(tree).splitlines() == [
        "```text",
        "clue/                All of clue.",
        "  words.py           Words.",
        "  nn/                Tensors.",
        "    dual_encoder.py  The model.",
        "benchmarks/          All of benchmarks.",
        "serving/             All of serving.",
        "```",
    ]


def test_a_module_without_a_docstring_is_refused(tree: Path) -> None:
    write(tree, "clue/bare.py", "x = 1\n")
    with pytest.raises(ValueError, match=r"bare\.py has no docstring"):
        file_map(tree)


def test_only_the_marked_parts_change_and_only_once(tree: Path) -> None:
    write(tree, "results/suite/shop/table.md", "| task |\n| --- |\n| matching |\n")
    old = "before\n<!-- transfer:shop -->\nstale\n<!-- /transfer -->\nbetween\n<!-- files -->\n"
    write(tree, "README.md", f"{old}<!-- /files -->\nafter\n")
    text = render(tree)
    assert text.startswith("before\n<!-- transfer:shop -->\n| task |\n| --- |\n| matching |\n<!--")
    assert text.endswith(f"between\n<!-- files -->\n{file_map(tree)}\n<!-- /files -->\nafter\n")
    assert "stale" not in text
    write(tree, "README.md", text)
    assert render(tree) == text


def test_results_that_are_not_there_are_missed(tree: Path) -> None:
    write(tree, "README.md", "<!-- transfer:shop -->\n<!-- /transfer -->\n")
    with pytest.raises(FileNotFoundError, match="shop"):
        render(tree)


def test_the_kills_are_told_in_one_sentence(tree: Path) -> None:
    found = {
        "kills": 5,
        "inside_save": 2,
        "torn_or_lost_checkpoints": 0,
        "most_steps_lost": 1,
        "equals_the_undisturbed_run_bitwise": True,
    }
    write(tree, "results/robustness/robustness.json", json.dumps(found))
    write(tree, "README.md", "<!-- robustness -->\n<!-- /robustness -->\n")
    text = render(tree)
    assert "5 kills with -9, 2 of them inside the save: 0 checkpoints torn or lost" in text
    assert "bitwise equal" in text


def test_a_row_has_a_column_for_each_probe_the_main_one_first(tree: Path) -> None:
    probes = ("linear", "mlp", "32-shot", "8-shot")
    task = FakeTask("shop/churn", "churn", "auroc", {"CLUE": 0.5}, probes=probes)
    other = FakeTask("shop/spend", "spend", "r2", {"CLUE": 0.5})
    out = tree / "results" / "suite" / "shop"
    for one, seed, probe in ((other, 0, "linear"), *((task, n, p) for n in (0, 1) for p in probes)):
        results.make(out, one, FakeModel("CLUE", seed), probe, resamples=20, seed=0)  # pyright: ignore[reportArgumentType]
    write(tree, "README.md", "<!-- probes:shop -->\n<!-- /probes -->\n")
    head, _, *rows = [line.split(" | ") for line in render(tree).splitlines()[1:-1]]
    assert head == ["| task", "measure", "row", "linear", "mlp", "8-shot", "32-shot |"]
    assert [row[2] for row in rows] == ["CLUE", "CLUE, seed 1", "CLUE"]
    made = {one.key: one.values[one.main] for one in results.read(out)}
    for column, probe in enumerate(("linear", "mlp", "8-shot", "32-shot"), 3):
        value = made["shop/churn", "CLUE", 1, probe].value
        assert rows[1][column].startswith(f"{value:.3f}"[1:])
    assert rows[2][4:] == ["", "", " |"]
