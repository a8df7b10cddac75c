"""A suite makes what is missing, in order, and stops where it cannot."""

from pathlib import Path

import pytest

from benchmarks.suite.pipeline import on_this_machine, prepare


def writes(file: Path) -> str:
    return f'python -c \'open("{file}", "x").close()\''


def test_what_is_there_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    there, first, second = (tmp_path / name for name in ("there", "first", "second"))
    there.touch()
    reads = f'python -c \'open("{first}").close(); open("{second}", "x").close()\''
    commands = {
        str(there): "python -c 'raise SystemExit(3)'",
        str(first): writes(first),
        str(second): reads,
    }
    assert prepare(commands, []) == [str(first), str(second)]
    told = capfd.readouterr().err
    assert "3 outputs, 1 there" in told and f"$ {reads}" in told and "SystemExit" not in told
    assert prepare(commands, []) == []  # a second making would fail: open(…, "x")


def test_the_first_that_fails_ends_it_by_name(tmp_path: Path) -> None:
    bad, after = tmp_path / "bad", tmp_path / "after"
    command = "python -c 'raise SystemExit(3)'"
    with pytest.raises(SystemExit) as ended:
        prepare({str(bad): command, str(after): writes(after)}, [])
    assert f"{bad} failed with status 3" in str(ended.value) and command in str(ended.value)
    assert not after.exists()


def test_a_command_without_its_output_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"python -c pass ended well and left no {tmp_path}/none"):
        prepare({f"{tmp_path}/none": "python -c pass"}, [])


def test_runs_that_nobody_measures_are_not_made(tmp_path: Path) -> None:
    runs = [tmp_path / name / "checkpoints" / "step" for name in ("one", "two", "on")]
    for file in runs:
        file.parent.mkdir(parents=True)
    commands = {str(file): writes(file) for file in runs}
    assert prepare(commands, [tmp_path / "one"]) == [str(runs[0])]
    assert [file.exists() for file in runs] == [True, False, False]
    # but a run that a measured one begins with
    commands[str(runs[2])] = f"{writes(runs[2])} warm_start={tmp_path / 'two'}"
    assert prepare(commands, [tmp_path / "on"]) == [str(runs[1]), str(runs[2])]


def test_only_documented_programs_run() -> None:
    with pytest.raises(ValueError, match="begins with 'touch'; a stage is a command of python or"):
        prepare({"/nowhere/at/all": "touch /nowhere/at/all"}, [])


def test_a_launch_names_this_machine() -> None:
    found = on_this_machine("accelerate launch clue/pretrain.py name=a")
    assert found.startswith("accelerate launch --config_file configs/accelerate/")
    assert "--num_cpu_threads_per_process" in found and found.endswith(" clue/pretrain.py name=a")
    assert on_this_machine(found) == found
    assert on_this_machine("python clue/prepare.py") == "python clue/prepare.py"
