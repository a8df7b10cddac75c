# pyright: standard
"""The page holds every score, asks for nothing, and ranks no oracle."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.metrics.format import number
from benchmarks.report.leaderboard import Leaderboard, shade
from benchmarks.report.sections import Section
from benchmarks.report.suite_page import SuiteReportConfig, report
from benchmarks.suite import geometry, results
from benchmarks.suite.summary import tables
from tests.benchmarks.conftest import Suite
from tests.benchmarks.report.offline import offline
from tests.benchmarks.results_fixture import FakeModel, FakeTask

EVIL = "<script>alert('x')</script>&\""


@pytest.fixture(scope="module")
def made(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the suite with the page, geometry and a map beside it."""
    out = tmp_path_factory.mktemp("report")
    shutil.copytree(suite.out, out, dirs_exist_ok=True)
    figures = dataclasses.asdict(geometry.Geometry(0.5, -3.1, 21.5, 1.75, 64, 100, 0))
    figures["alignment"] = None
    found = {"CLUE.0": {"model": "CLUE", "seed": 0, "made_of": "", **figures}}
    (out / "geometry.json").write_text(json.dumps(found))
    flat = {"model": "CLUE 0", "meaning": "most used service", "names": ["food", "films"]}
    flat |= {"points": [[0, 0], [1000, 500], [10, 1000]], "groups": [0, 1, 1]}
    (out / "map.json").write_text(json.dumps(flat))
    report(SuiteReportConfig(out=out, resamples=50))
    return out


def test_every_score_is_on_the_page(suite: Suite, made: Path) -> None:
    page = (made / "report.html").read_text()
    checked = 0
    for cell in suite.results:
        part = page.split(f'<section id="{cell.task}">')[1].split("</section>")[0]
        table = part.split("Every measure, every seed")[1]
        row = table.split(f"<td>{cell.model}, {cell.probe}</td>")[1].split("</tr>")[0]
        for name, found in cell.values.items():
            assert f"{number(name, found.value)} [{number(name, found.low)}" in row
            checked += 1
    assert checked == 103 + 11 + 10  # R2 has Spearman beside it: cells of spend and of taste


def test_the_page_asks_for_nothing(made: Path) -> None:
    page = (made / "report.html").read_text()
    assert len(offline(page)) > 1000
    assert "width=device-width" in page


def test_an_oracle_has_a_column_of_the_table_and_no_rank(suite: Suite, made: Path) -> None:
    head, _, *lines = ((made / "table.md").read_text()).splitlines()
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    known = {cell.task: cell for cell in suite.results if cell.model == "oracle"}
    cells = {line.split("|")[1].strip(): line.strip("|").split("|") for line in lines}
    checked = 0
    for task, row in cells.items():
        shown = row[columns.index("oracle")].strip()
        result = known.get(task)
        assert shown == (number(result.main, result.values[result.main].value) if result else "")
        checked += result is not None
    assert checked == len(known) > 0


def test_links_of_the_leaderboard_lead_to_their_sections(made: Path) -> None:
    page = (made / "report.html").read_text()
    links = re.findall(r'<a href="#([^"]+)"', page)
    assert len(links) == 7 and all(f'<section id="{link}">' in page for link in links)


def test_an_oracle_is_shown_and_not_ranked(suite: Suite, made: Path) -> None:
    found = {table.name: table for table in tables(suite.results, resamples=20)}
    table = found["synthetic/taste"]
    page = (made / "report.html").read_text()
    board = Leaderboard(list(found.values()))
    assert "oracle" not in board.models
    best = re.search(r'#synthetic/taste.*?<td class="r0">([^<]*)<small>1 of 5', page, re.DOTALL)
    assert best is not None and best[1] == number("R2", table.rows["CLUE"].value)
    assert table.rows["oracle"].value > table.rows["CLUE"].value
    section = Section(table, [])
    assert section.bars[0].name == section.bars[0].kind == "oracle"
    assert "of what the truth attains" in section.about and section.about in page


def test_the_markdown_has_the_rows_that_lose(made: Path) -> None:
    lines = (made / "table.md").read_text().splitlines()
    assert lines[0].startswith("| task | measure | CLUE |") and len(lines) == 2 + 7 + 3
    films = next(line for line in lines if line.startswith("| next/films"))
    assert re.search(r"\| \*\*\.\d{3} EASE\*\* \|  \| -\.\d{3} \[-.*\] EASE \|", films)
    assert len({line.count("|") for line in lines}) == 1


def test_figures_beside_the_cells_are_on_the_page(made: Path) -> None:
    page = (made / "report.html").read_text()
    assert "<td>-3.10</td><td>21.50<small>of 64</small></td><td>1.75</td>" in page
    assert "3 held-out users by the vectors of CLUE 0" in page


def test_without_figures_beside_the_scores_the_page_has_no_part_of_them(
    made: Path, tmp_path: Path
) -> None:
    shutil.copy(made / "scores.jsonl", tmp_path)
    page = report(SuiteReportConfig(out=tmp_path, resamples=10))
    assert page == tmp_path / "report.html" and (tmp_path / "table.md").is_file()
    text = page.read_text()
    assert "Geometry" not in text and "on a map" not in text


def test_without_an_untrained_encoder_no_gain_over_it_is_shown(made: Path, tmp_path: Path) -> None:
    scores = (made / "scores.jsonl").read_text().splitlines(keepends=True)
    for folder, kept in (("all", scores), ("trained", [s for s in scores if "untrained" not in s])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scores.jsonl").write_text("".join(kept))
        page = report(SuiteReportConfig(out=tmp_path / folder, resamples=10))
        shown = [
            "mean normalised gain" in text
            for text in ((tmp_path / folder / "table.md").read_text(), page.read_text())
        ]
        assert shown == [folder == "all"] * 2


def test_only_the_best_row_has_the_strongest_shade_and_the_worst_third_none() -> None:
    assert [shade(rank, 7) for rank in range(1, 8)] == [0, 1, 1, 2, 2, 3, 3]
    assert [shade(rank, 2) for rank in (1, 2)] == [0, 1] and shade(1, 1) == 0


def test_without_cells_the_command_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.suite makes them"):
        report(SuiteReportConfig(out=tmp_path))


def test_names_stay_text(tmp_path: Path) -> None:
    task = FakeTask("a/b", EVIL, "auroc", {"CLUE": 0.5, EVIL: 0.2, "untrained": 0.1})
    for model in task.quality:
        results.make(tmp_path, task, FakeModel(model), "linear", resamples=10, seed=0)
    page = report(SuiteReportConfig(out=tmp_path, resamples=10)).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
