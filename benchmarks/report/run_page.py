"""Command: a run and its results as one HTML file that needs nothing else.

    python -m benchmarks.report.run_page run=runs/demo corpus=corpora/demo results=results/demo
    python -m benchmarks.report.run_page transfer=results/suite/real

Learning curves, a map of held-out users, three of them with the items nearest to them, and every
task beside its controls. With `transfer` instead, the report of a transfer suite's scores
(benchmarks/report/suite_page.py). The file makes no request and can be mailed.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Line, interval_bar, line_chart, scatter, shape
from benchmarks.models import EncoderVectors, user_vectors
from benchmarks.page import page
from benchmarks.report.suite_page import TransferReportConfig
from benchmarks.report.suite_page import report as transfer_report
from benchmarks.results import (
    LOWER_IS_BETTER,
    TITLES,
    Row,
    Table,
    as_text,
    read_results,
    show,
)
from benchmarks.suite.user_map import (
    Groups,
    Person,
    Shelf,
    flat_map,
    groups_of,
    three_people,
)
from clue.config import run_command
from clue.data.corpus import Corpus
from clue.inference.text_encoder import TextEncoder


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to report on and where to. `users` and `label` name a true group of users, if known.

    `out` is RUN/report.html unless set. With `transfer` nothing else is read.
    """

    run: Path = Path("runs/demo")
    corpus: Path = Path("corpora/demo")
    results: Path = Path("results/demo")
    users: Path | None = None
    label: str | None = None
    out: Path | None = None
    transfer: Path | None = None


def report(config: ReportConfig) -> Path:
    """Return the file written. FileNotFoundError or ValueError, naming it, for what is missing."""
    if config.transfer is not None:
        return transfer_report(TransferReportConfig(out=config.transfer))
    corpus = Corpus.open(config.corpus)
    encoder = TextEncoder.load(config.run)
    tables, about = read_results(config.results / "results.json")
    if about["model"]["fingerprint"] != encoder.fingerprint:
        raise ValueError(
            f"{config.results} holds the results of another model than {config.run}; "
            "run python -m benchmarks.evaluate again"
        )
    log = read_log(config.run / "log.jsonl")
    model = EncoderVectors(encoder, corpus)
    groups = groups_of(corpus, config.users, config.label)
    points = flat_map(user_vectors(model, corpus, groups.users))
    main = [table for table in tables if table.main and table.users == "test alone"]
    main = main or [table for table in tables if table.main]
    manifest = corpus.manifest
    lead = (
        f"{manifest.num_users:,} users, {manifest.num_items:,} items and "
        f"{sum(manifest.num_events.values()):,} events of {', '.join(corpus.services)}. "
        "The encoder reads what a user did in one service as text, and was trained from scratch so "
        "that the same user's vectors from different services, or parts of one history, agree."
    )
    parts = {
        "title": f"CLUE: {escape(config.run.name)}",
        "lead": escape(lead),
        "figures": "".join(_figures(main)),
        "curves": "".join(_curves(log)),
        "curves_note": "Matching is measured on valid users, every one ranked; dotted is chance.",
        "map": scatter(points, groups.number.tolist(), groups.names),
        "map_note": escape(
            f"{len(groups.users):,} users of valid and test by their vectors over all services; "
            f"shape and colour are the {groups.meaning}. Training saw neither these users nor this "
            "label; nearness on the map is nearness of vectors, directions mean nothing."
        ),
        "legend": "".join(
            f"<span>{shape(number)}{escape(name)}</span>"
            for number, name in enumerate(groups.names)
        ),
        "people": "".join(person_card(one, groups) for one in three_people(corpus, groups, model)),
        "people_note": "Nearest by the user's vector over all services; items met before left out.",
        "table": benchmark_table(main),
        "table_note": escape(
            f"{'Test users alone' if main[0].users == 'test alone' else 'Valid and test users'}; "
            "intervals of 95 % from a bootstrap over users. Untrained is the same encoder before "
            "its first step. Everything is ranked in full, nothing is sampled."
        ),
        "details": _details(tables),
        "made": _made(config, corpus, about),
    }
    out = config.out or config.run / "report.html"
    out.write_text(page(parts), encoding="utf-8")
    return out


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log. FileNotFoundError without it, ValueError for a torn one."""
    if not file.is_file():
        raise FileNotFoundError(f"no run log {file}; clue/pretrain.py writes one")
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: {error}; was the run killed while writing? resume it") from None


def benchmark_table(tables: Sequence[Table]) -> str:
    """Return tables' headline measures as one HTML table: a row per measure, controls beside."""
    rows = [row for row in TITLES if any(row in table.rows for table in tables)]
    head = "".join(f"<th>{escape(TITLES[row])}</th>" for row in rows)
    lines = [f"<tr><th>task</th>{head}</tr>"]
    for table in tables:
        for name in table.headline:
            found = [r.measures[name] for r in table.rows.values() if name in r.measures]
            low, high = min(f.low for f in found), max(f.high for f in found)
            better = ", lower is better" if name in LOWER_IS_BETTER else ""
            chance = f", chance {table.chance[name]:.3g}" if name in table.chance else ""
            cells = [f"<td>{_cell(table, row, name, low, high)}</td>" for row in rows]
            cells[0] = cells[0].replace("<td>", '<td class="ours">', 1)
            task = f"{table.task}: {table.part}"
            small = f"<small>{escape(name + better + chance)}</small>"
            lines.append(f"<tr><td>{escape(task)}{small}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(table: Table, row: str, name: str, low: float, high: float) -> str:
    found = table.rows.get(row, Row({})).measures.get(name)
    if found is None:
        return ""
    value, between = show(name, found).split(" ", 1)
    return f"{value}<small>{between}</small>{interval_bar(found, low, high)}"


def _figures(tables: Sequence[Table]) -> list[str]:
    """A card per task: the first headline of the trained encoder beside the untrained one."""
    cards: list[str] = []
    for table in tables:
        name = table.headline[0]
        ours, control = (table.rows[row].measures[name] for row in ("trained", "untrained"))
        value = show(name, ours).split(" ", 1)[0]
        title = f'<span class="soft">{escape(table.task)}: {escape(name)}</span>'
        small = f"<small>{escape(table.part)}; untrained {show(name, control)}</small>"
        cards.append(f'<div class="card figure">{title}<b>{value}</b>{small}</div>')
    return cards


def _curves(log: Sequence[dict[str, Any]]) -> list[str]:
    """The training loss, and R@10 and the entropy of matching on valid users, over the steps."""
    train = [line for line in log if line["kind"] == "train"]
    valid = [line for line in log if line["kind"] == "valid"]
    found: list[str] = []
    if train:
        loss = Line("loss", [t["step"] for t in train], [t["loss"] for t in train])
        chart = line_chart([loss], x_label="step", level=None)
        found.append(f'<div class="card"><h3>Training loss, nats</h3>{chart}</div>')
    titles = {
        "recall_at_10": "Matching on valid users, R@10",
        "calibrated_entropy": "Matching on valid users, contrastive entropy, nats",
    }
    for key, title in titles.items() if valid else []:
        steps = [line["step"] for line in valid]
        pairs = list(valid[-1]["matching"])
        lines = [Line(p, steps, [v["matching"][p][key] for v in valid]) for p in pairs]
        sizes = [valid[-1]["matching"][pair]["gallery"] for pair in pairs]
        chance = np.mean([10 / s if key == "recall_at_10" else np.log(s) for s in sizes])
        if len(lines) > 4:
            mean = np.mean([line.y for line in lines], axis=0).tolist()
            thin = [Line(line.name, line.x, line.y, thin=True) for line in lines]
            lines = [Line("mean", steps, mean), *thin]
        chart = line_chart(lines, x_label="step", level=("chance", float(chance)))
        found.append(f'<div class="card"><h3>{title}</h3>{chart}</div>')
    return found


def person_card(person: Person, groups: Groups) -> str:
    """Return one person as an HTML card, with her group and her shelves."""
    number = groups.names.index(person.group)
    shelves = "".join(_shelf(shelf) for shelf in person.shelves)
    return (
        f'<div class="card"><h3>User {escape(person.user_id)}</h3>'
        f'<div class="legend left">{escape(groups.meaning)}: '
        f"<span>{shape(number)}{escape(person.group)}</span></div>{shelves}</div>"
    )


def _shelf(shelf: Shelf) -> str:
    newest, nearest = (
        "".join(f"<li>{escape(text)}</li>" for text in texts)
        for texts in (shelf.newest, shelf.nearest)
    )
    did = f"<ul>{newest}</ul>" if newest else '<p class="soft">nothing here</p>'
    return (
        f'<div class="shelf"><h4>{escape(shelf.service)}: {shelf.events} events, newest first</h4>'
        f"{did}<h4>nearest items in {escape(shelf.service)}</h4><ol>{nearest}</ol></div>"
    )


def _details(tables: Sequence[Table]) -> str:
    texts = "\n".join(as_text(table) for table in tables)
    return (
        "<details><summary>Every measure of every task, service and set of users</summary>"
        f'<div class="scroll"><pre class="wide">{escape(texts)}</pre></div></details>'
    )


def _made(config: ReportConfig, corpus: Corpus, about: dict[str, Any]) -> str:
    """The facts that a reader needs to make it again."""
    stages = config.run / "stages.json"  # What `python -m benchmarks.demo` noted, if it ran.
    noted = json.loads(stages.read_text(encoding="utf-8")) if stages.is_file() else {}
    seconds: dict[str, float] = noted or about["seconds"]
    split = corpus.manifest.split
    facts = {
        "model": about["model"]["fingerprint"],
        "corpus": corpus.fingerprint,
        "users": ", ".join(f"{count:,} {name}" for name, count in split.items()),
        "seconds": ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items()),
        "versions": ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
    }
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="wrap"><code>{escape(text)}</code></td></tr>'
        for name, text in facts.items()
    )
    settings = (config.run / "config.yaml").read_text(encoding="utf-8")
    return (
        f'<div class="card"><table>{rows}</table><details><summary>The run, all settings</summary>'
        f"<pre>{escape(settings)}</pre></details></div>"
    )


def main() -> None:
    """Reads the command line, writes the report, says where it is."""
    sys.stdout.write(f"report: {run_command(ReportConfig, report, description=__doc__)}\n")


if __name__ == "__main__":
    main()
