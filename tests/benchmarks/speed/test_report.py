# pyright: standard
import json
from pathlib import Path

import pytest

from benchmarks.external.machine import describe, load, merge_versions
from benchmarks.report.docs import render
from benchmarks.speed.report import (
    Claim,
    Report,
    Row,
    Spread,
    claim,
    markdown,
    number,
    read_report,
    write_report,
)

MACHINE = {
    "device": "a processor",
    "threads": 2,
    "load_start": 0.5,
    "load_end": 1.5,
    "commit": "abc1234",
    "uncommitted": False,
}


def a_report() -> Report:
    two = {"seconds": Spread.of([1.5, 1.25, 4.0]), "peak MiB": Spread.of([1234.4] * 3)}
    return Report(
        name="step",
        command="python -m benchmarks.speed step",
        machine=MACHINE,
        config={"rounds": 3},
        rows=[
            Row(case="B = 8", arm="ours", figures=two),
            Row(case="B = 8", arm="theirs", status="not measured", note="pip failed"),
        ],
        claims=[
            Claim(what="Speed", aim="at least 4", found=3.25, holds=False),
            Claim(what="Memory", aim="at most 1", found=None, holds=None),
        ],
        notes=["A note."],
        points=[],
    )


def test_a_spread_is_the_median_with_its_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, (3.0, 1.0, 2.0))
    assert Spread.of([1.0, 2.0]).median == 1.5
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2.00 [1.00 3.00]"
    assert str(Spread.of([2.0])) == "2.00"
    with pytest.raises(ValueError, match="rounds"):
        Spread.of([])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (7.404, "7.40"), (44.44, "44.4"), (135.2, "135"), (43523.0, "43,523")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("aim", "below", "equal", "above"),
    [
        ("at least", False, True, True),
        ("at most", True, True, False),
        ("below", True, False, False),
    ],
)
def test_a_claim_holds_on_the_right_side_of_its_limit(
    aim: str, below: bool, equal: bool, above: bool
) -> None:
    held = [claim("Ratio", value, aim, 1.1).holds for value in (1.0, 1.1, 1.2)]
    assert held == [below, equal, above]
    unmeasured = claim("Ratio", None, aim, 1.1, " (linear)")
    assert (unmeasured.holds, unmeasured.aim) == (None, f"{aim} 1.1 (linear)")


def test_a_report_reads_back_what_was_written(tmp_path: Path) -> None:
    write_report(a_report(), tmp_path / "speed/step.json")
    assert read_report(tmp_path / "speed/step.json") == a_report()
    tree = json.loads((tmp_path / "speed/step.json").read_text())
    assert tree["rows"][0]["figures"]["seconds"]["rounds"] == [1.5, 1.25, 4.0]
    (tmp_path / "speed/step.json").write_text(json.dumps({**tree, "format": 0}))
    with pytest.raises(ValueError, match=r"python -m benchmarks\.speed step"):
        read_report(tmp_path / "speed/step.json")


def test_the_readme_shows_every_row_also_where_we_lose(tmp_path: Path) -> None:
    write_report(a_report(), tmp_path / "results/speed/step.json")
    (tmp_path / "README.md").write_text("a\n<!-- speed:step -->\nold\n<!-- /speed -->\nb\n")
    text = render(tmp_path)
    assert text.splitlines() == [
        "a",
        "<!-- speed:step -->",
        "```bash",
        "python -m benchmarks.speed step",
        "```",
        "",
        "|  | arm | seconds | peak MiB |",
        "| --- | --- | --- | --- |",
        "| B = 8 | ours | 1.50 [1.25 4.00] | 1,234 |",
        "| B = 8 | theirs: not measured, pip failed | - | - |",
        "",
        "Median [least greatest] over the rounds; a processor, 2 threads, load average 0.5 before "
        "and 1.5 after, commit abc1234.",
        "- Speed: 3.25; aim at least 4: does not hold.",
        "- Memory: not measured; aim at most 1: open.",
        "- A note.",
        "<!-- /speed -->",
        "b",
    ]
    (tmp_path / "README.md").write_text(text)
    assert render(tmp_path) == text


def test_a_missing_report_names_its_command(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- speed:loss -->\n<!-- /speed -->\n")
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.speed loss"):
        render(tmp_path)
    assert markdown(a_report()).startswith("```bash")


def test_the_machine_is_described_in_full() -> None:
    machine = describe("cpu", 2)
    assert merge_versions([{"torch": "1"}, {"torch": "2"}, {}]) == {"torch": "1 and 2"}
    assert machine["threads"] == 2 and machine["cores"] >= 1 and machine["memory_gib"] > 0
    assert machine["load_start"] >= 0 and load() >= 0
    assert machine["device"] and machine["system"]
    assert {"commit", "uncommitted"} <= set(machine)
