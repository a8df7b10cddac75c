"""Command: the cells of a suite as one page that needs nothing else, and as a Markdown table.

    python -m benchmarks.report.suite_page out=results/suite/real

Writes OUT/report.html and OUT/table.md: the leaderboard, what is claimed, a section for each task,
geometry, a map of users and, where OUT/tau.json is, loss against score over checkpoints.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import scatter, shape
from benchmarks.page import STYLE
from benchmarks.report import leaderboard, plots
from benchmarks.report.leaderboard import p_value, signed
from benchmarks.report.sections import section
from benchmarks.suite import results
from benchmarks.suite.results import TaskResult
from benchmarks.suite.significance import PairedDifference, compare_to, significance
from benchmarks.suite.summary import ORACLE, OURS, TaskTable, tables
from clue.config import run_command

FIGURES = ("alignment", "uniformity", "effective_rank", "hubness")


@dataclass(frozen=True, kw_only=True)
class TransferReportConfig:
    """Whose cells, and how many resamples of users the intervals and p-values have."""

    out: Path = Path("results/suite/real")
    resamples: int = 2000


def report(config: TransferReportConfig) -> Path:
    """Writes OUT/report.html and OUT/table.md; gives the page. FileNotFoundError without cells."""
    made = results.read(config.out)
    found = tables(made, resamples=config.resamples)
    claimed = significance(found)
    against = {one.task: one for one in claimed.get("beats the best baseline", [])}
    markdown = leaderboard.markdown(found, against)
    (config.out / "table.md").write_text(markdown, encoding="utf-8")
    page = config.out / "report.html"
    page.write_text(page_of(config, made, found, claimed), encoding="utf-8")
    return page


def page_of(
    config: TransferReportConfig,
    made: Sequence[TaskResult],
    found: Sequence[TaskTable],
    claimed: Mapping[str, Sequence[PairedDifference]],
) -> str:
    """Return the page."""
    behind = behind_of(found)
    users = max(cell.users for cell in made)
    lead = (
        f"{len(found)} tasks, {len({cell.model for cell in made})} rows, {len(made)} scores, up to "
        f"{users:,} users a task. A row is a frozen representation with its first probe, or a "
        "baseline tuned for that task alone; values are means over seeds of pretraining. Intervals "
        "of 95 % are from a bootstrap over seeds and users. Small ticks are single seeds."
    )
    body = [
        f"<h1>Transfer of frozen user vectors</h1><p class='soft'>{escape(lead)}</p>",
        "<h2>Leaderboard</h2>",
        "<p>The place among all rows of the task stands under each value, and the stronger its "
        "colour the better. Normalised gain is (x - untrained) / (best baseline - untrained), "
        "left out where no baseline beats the untrained encoder. The best baseline is chosen on "
        "the test users themselves, which flatters it. Ceilings are not ranked.</p>",
        f'<div class="card scroll">{leaderboard.html(found)}</div>',
        "<h2>What holds</h2>",
        f"<p>{OURS} minus the baseline on the same users, two-sided p by the bootstrap, corrected "
        "by Holm over the tasks of each claim at the level of .05.</p>",
        f'<div class="grid">{"".join(_claim_card(n, c, found) for n, c in claimed.items())}</div>',
        *_tau(config.out / "tau.json"),
        *_geometry(config.out / "geometry.json"),
        *_map(config.out / "map.json"),
        "<h2>Task by task</h2>",
        *(section(table, behind.get(table.name, [])) for table in found),
        "<h2>How this was made</h2>",
        _made(made, config.resamples),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Transfer</title><style>{STYLE}{plots.STYLE}</style></head><body><main>"
    )
    return f"{head}{''.join(body)}</main></body></html>\n"


def behind_of(found: Sequence[TaskTable]) -> dict[str, list[PairedDifference]]:
    """Gives, by task, ours minus every other row; each baseline is a claim over its own tasks."""
    baselines = dict.fromkeys(row.model for table in found for row in table.ranked)
    by_task: dict[str, list[PairedDifference]] = {}
    for baseline in baselines:
        if baseline != OURS:
            for one in compare_to(found, lambda table, baseline=baseline: table.rows.get(baseline)):
                by_task.setdefault(one.task, []).append(one)
    for each in by_task.values():
        each.sort(key=lambda one: one.gain)
    return by_task


def verdict(one: PairedDifference) -> str:
    """Return what a difference shows at the level of .05."""
    if not one.holm < 0.05:  # NaN too
        return "undecided"
    return "better" if one.gain > 0 else "worse"


def _claim_card(name: str, each: Sequence[PairedDifference], found: Sequence[TaskTable]) -> str:
    measure = {table.name: table.measure for table in found}
    count = {kind: sum(verdict(one) == kind for one in each) for kind in ("better", "worse")}
    lines: list[str] = []
    for one in each:
        value, _, between = signed(measure[one.task], one.delta).partition(" ")
        p = p_value(one.holm) or "unknown"
        lines.append(
            f"<tr><td>{escape(one.task)}<small>{escape(one.baseline)}</small></td>"
            f"<td>{value}<small>{between} p {p}, {verdict(one)}</small></td></tr>"
        )
    return (
        f'<div class="card figure"><span class="soft">{OURS} {escape(name)}</span>'
        f"<b>{count['better']} of {len(each)}</b><small>tasks; worse on {count['worse']}</small>"
        f"<details><summary>Task by task</summary><table>{''.join(lines)}</table></details></div>"
    )


def _tau(file: Path) -> list[str]:
    """The charts of loss against score, if the checkpoints were measured."""
    if not file.is_file():
        return []
    tree = json.loads(file.read_text(encoding="utf-8"))
    cards: list[str] = []
    for name, task in tree["tasks"].items():
        points = [(c["name"], c["loss"], c["values"][name]) for c in tree["checkpoints"]]
        tau = task["kendall"]
        told = f"tau {_two(tau['value'])} [{_two(tau['low'])} {_two(tau['high'])}]"
        told += f", Spearman {_two(task['spearman']['value'])}"
        chart = plots.loss_chart(points, task["measure"])
        title = f"{escape(name)}: {escape(task['measure'])}"
        cards.append(f'<div class="card"><h4>{title}</h4>{chart}<p class="note">{told}</p></div>')
    return [
        "<h2>Lower loss, better transfer?</h2>",
        "<p>A dot is a checkpoint of one run, named by its step; 0 is untrained. The loss is the "
        "contrastive entropy on valid users at a fixed number of negatives. Tau is Kendall's, "
        "positive where a lower loss goes with a better score; intervals of 95 % are over "
        "checkpoints, which follow one another in one run and so are not independent.</p>",
        f'<div class="grid">{"".join(cards)}</div>',
    ]


def _two(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _geometry(file: Path) -> list[str]:
    """The table of geometry, a row for each model: means over its seeds."""
    if not file.is_file():
        return []
    each: dict[str, list[dict[str, Any]]] = {}
    for found in json.loads(file.read_text(encoding="utf-8")).values():
        each.setdefault(found["model"], []).append(found)
    lines = ["<tr><th>model</th>" + "".join(f"<th>{n.replace('_', ' ')}</th>" for n in FIGURES)]
    for model, seeds in each.items():
        texts: list[str] = []
        for name in FIGURES:
            values = [seed[name] for seed in seeds if seed[name] is not None]
            texts.append(f"{np.mean(values):.2f}" if values else "")
        texts[2] += f"<small>of {seeds[0]['width']}</small>"
        cells_of = "".join(f"<td>{text}</td>" for text in texts)
        lines.append(f"<tr><td>{escape(model)}</td>{cells_of}</tr>")
    return [
        "<h2>Geometry</h2>",
        "<p>Of held-out users. Alignment: mean squared distance of a user's vectors from two "
        "services, lower is closer. Uniformity: log mean exp(-2 d²) over pairs of users, lower is "
        "more even. Effective rank: exp of the entropy of the singular values. Hubness: skewness "
        "of how often a user is among the ten nearest of others, lower is better.</p>",
        f'<div class="card scroll"><table>{"".join(lines)}</table></div>',
    ]


def _map(file: Path) -> list[str]:
    """The map of users."""
    if not file.is_file():
        return []
    tree = json.loads(file.read_text(encoding="utf-8"))
    points = scatter(np.array(tree["points"], float), tree["groups"], tree["names"])
    legend = "".join(
        f"<span>{shape(n)}{escape(name)}</span>" for n, name in enumerate(tree["names"])
    )
    note = (
        f"{len(tree['points']):,} held-out users by the vectors of {tree['model']}; shape and "
        f"colour are the {tree['meaning']}. Nearness is nearness of vectors, directions mean "
        "nothing."
    )
    return [
        f"<h2>Users on a map</h2><p>{escape(note)}</p>",
        f'<div class="card"><div class="map">{points}</div>',
        f'<div class="legend">{legend}</div></div>',
    ]


def _made(made: Sequence[TaskResult], resamples: int) -> str:
    oracles = sorted({cell.model for cell in made if cell.model.startswith(ORACLE)})
    facts = {
        "commits": ", ".join(sorted({str(cell.about["commit"]) for cell in made})),
        "seconds": f"{sum(cell.about['seconds'] for cell in made):,.0f} over {len(made)} scores",
        "versions": ", ".join(f"{n} {v}" for n, v in made[0].about["versions"].items()),
        "resamples": f"{resamples:,}",
        "oracles, not ranked": ", ".join(oracles) or "none",
    }
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="wrap">{escape(text)}</td></tr>'
        for name, text in facts.items()
    )
    return f'<div class="card"><table>{rows}</table></div>'


def main() -> None:
    """Reads the command line, writes the page, says where it is."""
    sys.stdout.write(f"report: {run_command(TransferReportConfig, report, description=__doc__)}\n")


if __name__ == "__main__":
    main()
