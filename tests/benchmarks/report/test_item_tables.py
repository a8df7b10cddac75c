# pyright: standard
"""The tables of item ranking: what is in the scores stands in them, and times to equal quality."""

from pathlib import Path

import pytest

from benchmarks.metrics.bootstrap import Interval
from benchmarks.protocols import Measure
from benchmarks.report.item_tables import (
    ItemTable,
    ItemTablesConfig,
    figure,
    item_tables,
    markdown,
    seconds,
    write,
)
from benchmarks.suite.paired import Pair
from benchmarks.suite.results import TaskResult, _line

ROOT = Path(__file__).parents[3]
SUITES = ("hard_ml1m", "hard_multi8", "next_item_ml1m", "next_item_amazon")


def result(model: str, values: dict[str, float], curve: list[dict[str, float]]) -> TaskResult:
    return TaskResult(
        *("films", 1, "leave one out", model, 0, "raw scores"),
        main_probe=True,
        measures={name: Measure("mean", (name,)) for name in values},
        values={name: Interval(value, value, value) for name, value in values.items()},
        slices={},
        chosen={"curve": curve} if curve else {},
        users=7,
        count=7,
        about={},
        out=Path("nowhere"),
    )


def test_the_times_are_those_to_the_loss_that_both_reached() -> None:
    name = "NDCG@10 [seen kept]"
    theirs = [{"processor_seconds": 100.0 * n, "loss": 7.0 - n} for n in (1, 2)]
    ours = [{"processor_seconds": 9.0 * n, "loss": 6.6 - n} for n in (1, 2)]
    models = {
        model: [result(model, {name: value}, curve)]
        for model, value, curve in (("popularity", 0.1, []), ("a", 0.2, theirs), ("b", 0.3, ours))
    }
    delta = Interval(0.1, 0.05, 0.15)
    table = ItemTable("films", "leave one out", models, [Pair("films", "b", "a", {name: delta})])
    whole, to = seconds(table).values()
    assert whole == {"a": "200", "b": "18"} and to == {"a": "200", "b": "18"}
    assert "processor s to 5.000 nats" in list(seconds(table))[1]  # a's lowest; b's is 4.6
    lines = markdown(table).splitlines()
    assert lines[0].startswith("**films** (7 users)")
    assert lines[4] == "| kept | popularity | .100 [.100 .100] |  |  |"
    assert lines[6] == "| kept | b | .300 [.300 .300] | 18 | 18 |"
    assert lines[7] == "| kept | b - a | +.100 [+.050 +.150] |  |  |"
    assert figure(table) is None


@pytest.mark.parametrize("name", SUITES)
def test_the_committed_scores_make_the_committed_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ROOT / "results" / "suite" / name
    tables = item_tables(source)
    out = Path("results") / "suite" / name
    monkeypatch.chdir(tmp_path)
    out.mkdir(parents=True)
    for file in ("scores.jsonl", "paired.jsonl"):
        (out / file).write_bytes((source / file).read_bytes())
    write(ItemTablesConfig(out=out))
    assert (out / "table.md").read_text() == (source / "table.md").read_text()
    drawn = sorted(file.name for file in out.glob("*.svg"))
    assert drawn == sorted(file.name for file in source.glob("*.svg"))
    assert len(tables) == {"hard_ml1m": 4, "next_item_amazon": 3}.get(name, 1)


def test_scores_of_other_tasks_are_named(tmp_path: Path) -> None:
    other = result("a", {"m": 1.0}, [])
    line = _line(other).replace("leave one out", "matching")
    (tmp_path / "scores.jsonl").write_text(line)
    with pytest.raises(ValueError, match="has no item-ranking task"):
        item_tables(tmp_path)
