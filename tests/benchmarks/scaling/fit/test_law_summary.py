"""The whole study of a table: its JSON, its text and its figures."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.scaling.__main__ import arguments, command, main
from benchmarks.scaling.fit import figures
from benchmarks.scaling.fit.law_summary import band, described, study, text
from benchmarks.scaling.fit.run_table import read_runs
from benchmarks.scaling.fit.study import FitConfig, laws_of
from tests.benchmarks.scaling.tables import row, rows, write

SHORT = (2**14, 2**17, 2**20)
FIGURES = {
    *("learning_curves", "compute", "isoflop", "surface", "factors"),
    *("ladder", "scores", "residuals"),
}


@pytest.fixture
def config(tmp_path: Path) -> FitConfig:
    found: list[dict[str, Any]] = [x for x in rows() if x["pairs"] in SHORT and x["seed"] < 2]
    sizes = {w: 24 * w**2 + 100 * w for w in (16, 24, 32, 48, 64)}
    found += [row(w, round(2e10 / 6 / n)) for w, n in sizes.items()]
    found += [row(48, 2**18, batch=b, factor=(256 / b) ** 0.02) for b in (64, 128, 512, 1024)]
    found += [
        row(48, 2**19, users=u, epochs=2**19 / u, factor=(5e5 / u) ** 0.01) for u in (5e4, 1e5)
    ]
    found += [row(128, 2**21, role="held_out")]
    scores = [{"loss": 5.0 - i / 4, "task": "a<b", "score": 0.6 + i / 50} for i in range(5)]
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    curve = [{"point": "w48-p262144-s0", "flops": 1e9 * i, "loss": 9.0 - i} for i in (1, 2, 3)]
    pq.write_table(pa.Table.from_pylist(curve), tmp_path / "curves.parquet")
    return FitConfig(
        table=write(found, tmp_path / "runs.parquet"),
        out=tmp_path / "out",
        starts=2,
        few=1,
        resamples=50,
        scores=tmp_path / "scores.json",
        curves=tmp_path / "curves.parquet",
    )


def test_the_study_writes_all_it_can(config: FitConfig) -> None:
    tree = study(config)
    assert json.loads((config.out / "fit.json").read_text()) == tree
    assert {"compute", "surface", "surface, E = 0", "params", "pairs", "batch"} <= tree[
        "laws"
    ].keys()
    assert tree["laws"]["surface"]["coefficients"]["E"]["value"] == pytest.approx(1.8, rel=0.1)
    assert "max_events is 64 in all runs" in tree["refused"]["max_events"]
    assert tree["table"]["negatives"] == 4095 and tree["table"]["decades"] > 3
    assert len(tree["isoflop"]["parabolas"]) == 1
    assert min(len(tree["sensitivity"][x]) for x in ("surface", "compute")) > 10
    assert tree["not_drawn"] == {}
    drawn = sorted((config.out / "figures").iterdir())
    assert {file.stem for file in drawn} == FIGURES and len(drawn) == 2 * len(FIGURES)
    for file in drawn:
        start = b"<?xml" if file.suffix == ".svg" else b"\x89PNG"
        assert file.read_bytes().startswith(start)
    shown = text(tree)
    assert "K = 4,095" in shown and "| surface | 1." in shown and "left out" in shown
    assert "ladder of surface" in shown and "no law of max_events" in shown


def test_what_cannot_be_drawn_says_why() -> None:
    with pytest.raises(ValueError, match="no scores given"):
        figures.scores(None)
    with pytest.raises(ValueError, match="no cut leaves enough runs"):
        figures.extrapolation({"ladder": {"surface": []}})


def test_a_seed_without_another_is_flagged(tmp_path: Path) -> None:
    found = [{**x, "epochs": 9.0} for x in rows() if x["seed"] == 0 and x["width"] in (16, 48, 96)]
    table = write(found[:9], tmp_path / "runs.parquet")
    config = FitConfig(
        table=table, out=tmp_path, starts=1, few=1, resamples=10, min_decades=2, figures=False
    )
    flags = "\n".join(study(config)["flags"])
    for word in ("two seeds", "read their data 9 times", "9 runs; with fewer than 10"):
        assert word in flags


def test_words_of_the_command_line() -> None:
    assert arguments(["a.parquet", "--budget", "1e18", "x=1"], "fit.table") == [
        *("fit.table=a.parquet", "budget=1e18", "x=1"),
    ]
    assert arguments(["c.yaml", "--budget=2", "fit.table=b.parquet"], "fit.table") == [
        *("c.yaml", "budget=2", "fit.table=b.parquet"),
    ]
    tables = {name: command(name)[1] for name in ("fit", "predict", "verify", "plan", "reference")}
    assert tables["fit"] == "table" and tables["plan"] == "fit.table"


def test_the_command_refuses_with_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main([])
    assert "reference" in capsys.readouterr().out
    for words in (["fitt"], ["fit", str(tmp_path / "none.parquet")]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert "no command 'fitt'" in shown and "no table of runs" in shown
    table = write([{**x, "negatives": 7 + x["seed"]} for x in rows()], tmp_path / "r.parquet")
    with pytest.raises(SystemExit):
        main(["fit", str(table)])
    assert "mixed K" in capsys.readouterr().err


def test_an_interval_of_zero_width_is_flagged_in_tables_and_figures(tmp_path: Path) -> None:
    # four runs that lie on a law of three parameters: every resample of them fits exactly
    lengths = (2**13, 2**15, 2**17, 2**19)
    four = [row(64, pairs, loss=2.0 + 3.0 * pairs**-0.2) for pairs in lengths]
    expected = {"exact": (four, True), "spread": (rows(), False)}
    for name, (found, flat) in expected.items():
        file = write(found, tmp_path / f"{name}.parquet")
        config = FitConfig(table=file, resamples=40, min_decades=1.0)
        laws = laws_of(config, read_runs(file), ("pairs",))
        tree = described("pairs", laws)
        flags = [flag for flag in tree["flags"] if "zero width" in flag]
        assert bool(flags) == flat
        assert band(tree["coefficients"]["a_pairs"]).endswith("(zero width)") == flat
        assert figures.factors(laws).axes[0].get_title().endswith("(zero width)") == flat
        if flat:
            assert "4 runs for 3 parameters do not show a spread" in flags[0]
