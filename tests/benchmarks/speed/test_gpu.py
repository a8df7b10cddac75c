import json
import time
from pathlib import Path

import pytest

from benchmarks.speed import gpu
from benchmarks.speed.__main__ import main
from benchmarks.speed.gpu import Config, Part, Result
from benchmarks.speed.report import read_report
from clue.config import load
from clue.run.pretrain_config import PretrainConfig
from tests.conftest import ROOT


def sleeper(name: str, out: Path, seconds: float, limit: int) -> Part:
    """A part that writes its file, then sleeps."""
    code = f"import pathlib, time; pathlib.Path('{out}/{name}.json').write_text('1'); "
    code += f"print('written', flush=True); time.sleep({seconds})"
    (out / f"{name}_part.py").write_text(code)
    return Part(name, f"{name}_part", (), limit)


def test_the_parts_fit_into_eight_minutes_and_hold_what_is_promised() -> None:
    parts = {part.name: part for part in gpu.plan(Path("results/gpu"), 989.0)}
    assert sum(part.seconds for part in parts.values()) <= Config().seconds == 480
    losses = [name for name in parts if name.startswith("loss_")]
    assert losses == ["loss_8192", "loss_32768", "loss_131072", "loss_262144"]
    steps = [name for name in parts if name.startswith("step_")]
    assert len(steps) == 6 and {"tests", "faiss"} < set(parts)
    assert all("peak_tflops=989" in parts[name].keys for name in steps)


def test_the_sizes_are_those_of_the_ladder() -> None:
    checked = 0
    for name, size in gpu.SIZES.items():
        config = load(PretrainConfig, ROOT / f"configs/pretrain/ladder/{size}.yaml")
        assert config.model.item.width > 0 and name[:-1].isdigit()
        checked += 1
    assert checked == 3


def test_what_was_measured_stays_when_time_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [
        sleeper("first", tmp_path, 0, 30),
        sleeper("slow", tmp_path, 60, 2),
        sleeper("third", tmp_path, 60, 60),
        sleeper("last", tmp_path, 0, 30),
    ]
    monkeypatch.setattr(gpu, "plan", lambda *_: parts)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    results = gpu.run(Config(seconds=5, out=tmp_path))
    assert time.monotonic() - began < 20
    endings = ["done", "out of time", "out of time", "not run"]
    assert [one.ending for one in results] == endings
    assert (tmp_path / "first.json").is_file() and not (tmp_path / "last.json").exists()
    assert results[1].last_line == "written"
    tree = json.loads((tmp_path / "summary.json").read_text())
    assert [one["ending"] for one in tree["parts"]] == endings
    assert gpu.missing(tmp_path) == ["slow: out of time", "third: out of time", "last: not run"]


def test_figures_that_nobody_measured_are_named(tmp_path: Path) -> None:
    names = [part.name for part in gpu.plan(tmp_path, 0.0)]
    assert gpu.missing(tmp_path) == [f"{name}: not run" for name in names]
    gpu.write_summary(tmp_path, "a GPU", [Result(name, "done") for name in names[1:]])
    assert gpu.missing(tmp_path) == [f"{names[0]}: not run"]


def test_a_part_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="parts has train; there are tests, loss_8192"):
        Config(parts=["train"])


@pytest.mark.skipif(gpu.gpu_name() != "", reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["gpu"])
    assert "torch sees no CUDA device here" in capsys.readouterr().err


def test_the_search_is_timed_where_it_can_be_and_says_where_not(tmp_path: Path) -> None:
    keys = ["vectors=500", "width=16", "queries=[1, 8]", "k=10", "rounds=2", "threads=1"]
    main(["faiss", *keys, f"out={tmp_path}/faiss.json"])
    report = read_report(tmp_path / "faiss.json")
    assert [(row.case, row.arm) for row in report.rows] == [
        ("1 queries", "processor"),
        ("1 queries", "GPU"),
        ("8 queries", "processor"),
        ("8 queries", "GPU"),
    ]
    assert report.rows[0].status == "measured" and report.rows[0].figures["queries/s"].low > 0
