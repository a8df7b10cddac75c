"""Command: the scores of a suite as one page that needs nothing else, and as a Markdown table.

    python -m benchmarks.report.suite_page out=results/suite/real

Writes OUT/report.html and OUT/table.md: the leaderboard, what is significant, a section for each
task, geometry and a map of users.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.charts import inline, scatter
from benchmarks.report.leaderboard import Leaderboard, markdown, shade
from benchmarks.report.rendering import write_page
from benchmarks.report.sections import Section, all_differences
from benchmarks.suite import results
from benchmarks.suite.results import TaskResult
from benchmarks.suite.significance import significance
from benchmarks.suite.summary import ORACLE, OURS, tables
from clue.config import run_command

FIGURES = ("alignment", "uniformity", "effective_rank", "hubness")


@dataclass(frozen=True, kw_only=True)
class SuiteReportConfig:
    """Whose scores, and how many resamples of users the intervals and p-values have."""

    out: Path = Path("results/suite/real")
    resamples: int = 2000


def report(config: SuiteReportConfig) -> Path:
    """Write OUT/report.html and OUT/table.md and return the page's path.

    Raises FileNotFoundError without scores.
    """
    scores = results.read(config.out)
    tasks = tables(scores, resamples=config.resamples)
    claims, board, differences = significance(tasks), Leaderboard(tasks), all_differences(tasks)
    against = {one.task: one for one in claims.get("beats the best baseline", [])}
    (config.out / "table.md").write_text(markdown(board, against), encoding="utf-8")
    return write_page(
        "suite.html.j2",
        config.out / "report.html",
        title="Transfer of frozen user vectors",
        lead=(
            f"{len(tasks)} tasks, {len({result.model for result in scores})} rows, {len(scores)} "
            f"scores, up to {max(result.users for result in scores):,} users a task. A row is a "
            "frozen representation with its first probe, or a baseline tuned for that task alone; "
            "values are means over seeds of pretraining. Intervals of 95 % are from a bootstrap "
            "over seeds and users. Small ticks are single seeds."
        ),
        ours=OURS,
        board=board,
        shade=shade,
        claims=claims,
        measures={table.name: table.measure for table in tasks},
        figures=FIGURES,
        geometry=geometry(_read(config.out / "geometry.json")),
        users=users_map(_read(config.out / "map.json")),
        tasks=[Section(table, differences.get(table.name, [])) for table in tasks],
        made=made(scores, config.resamples),
    )


def geometry(tree: dict[str, Any] | None) -> dict[str, tuple[list[str], int]]:
    """Return of each model the means over its seeds of FIGURES, as texts, and its width."""
    seeds: dict[str, list[dict[str, Any]]] = {}
    for figures in (tree or {}).values():
        seeds.setdefault(figures["model"], []).append(figures)
    rows: dict[str, tuple[list[str], int]] = {}
    for model, each in seeds.items():
        values = [[s[name] for s in each if s[name] is not None] for name in FIGURES]
        rows[model] = [f"{np.mean(v):.2f}" if v else "" for v in values], each[0]["width"]
    return rows


def users_map(tree: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the note, the chart and the names of the groups of the map of users."""
    if tree is None:
        return None
    note = (
        f"{len(tree['points']):,} held-out users by the vectors of {tree['model']}; shape and "
        f"colour are the {tree['meaning']}. Nearness is nearness of vectors, directions mean "
        "nothing."
    )
    chart = scatter(np.array(tree["points"], float), tree["groups"], tree["names"])
    return {"note": note, "names": tree["names"], "chart": inline(chart, "map of users")}


def made(scores: Sequence[TaskResult], resamples: int) -> dict[str, str]:
    """Return the facts that a reader needs to make the scores again."""
    oracles = sorted({result.model for result in scores if result.model.startswith(ORACLE)})
    seconds = sum(result.about["seconds"] for result in scores)
    return {
        "commits": ", ".join(sorted({str(result.about["commit"]) for result in scores})),
        "seconds": f"{seconds:,.0f} over {len(scores)} scores",
        "versions": ", ".join(f"{n} {v}" for n, v in scores[0].about["versions"].items()),
        "resamples": f"{resamples:,}",
        "oracles, not ranked": ", ".join(oracles) or "none",
    }


def _read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def main() -> None:
    """Read the command line, write the page, say where it is."""
    sys.stdout.write(f"report: {run_command(SuiteReportConfig, report, description=__doc__)}\n")


if __name__ == "__main__":
    main()
