"""Command: a run and its results as one HTML file that needs nothing else.

    python -m benchmarks.report.run_page run=runs/demo corpus=corpora/demo results=results/demo

Learning curves, a map of held-out users, three of them with the items nearest to them, and every
task of the suite in `results` beside its controls. The file makes no request and can be mailed.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from benchmarks.baselines.representations import EncoderModel
from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import number, show
from benchmarks.report.charts import Line, Panel, inline, line_panels, scatter
from benchmarks.report.rendering import Bar, Scale, kind_of, write_page
from benchmarks.report.sections import Section, all_differences
from benchmarks.snapshot import snapshot_at
from benchmarks.suite import results
from benchmarks.suite.results import TaskResult
from benchmarks.suite.summary import CONTROL, OURS, TaskTable, tables, widest
from benchmarks.suite.user_map import example_users, flat_map, groups_of
from clue.config import run_command
from clue.data.corpus import Corpus
from clue.monitor.read_log import RunHistory, read_log

QUOTED = 2  # measures of a task in the table, its main one first; the sections below have all
SINGLE = 4  # pairs of services that have a line of their own; of more, the mean has
RESAMPLES = 1000
AIMS = {
    "contrastive": "The encoder reads what a user did in one service as text, and was trained from "
    "scratch so that the same user's vectors from different services, or parts of one history, "
    "agree.",
    "next_item": "The model reads the ids of a user's items in their order, and was trained from "
    "scratch to say which comes next.",
    "universal": "The encoder reads what a user did, and its vector is made of blocks: who this is "
    "over services, what comes next, which items and words were met, how much and when. It was "
    "trained from scratch; the page's map is of the whole vector.",
}
CURVES = {
    "matching": {
        "recall_at_10": "Matching on valid users, R@10",
        "calibrated_entropy": "Matching on valid users, contrastive entropy, nats",
    },
    "next_item": {
        "recall_at_10": "Next items of valid users, HR@10",
        "cross_entropy": "Next items of valid users, cross-entropy, nats",
    },
}


@dataclass(frozen=True, kw_only=True)
class RunReportConfig:
    """What to report on and where to. `users` and `label` name a true group of users, if known.

    `results` is the folder of a suite that scored the run; where it has no scores, the page says
    how to make them. `out` is RUN/report.html unless set.
    """

    run: Path = Path("runs/demo")
    corpus: Path = Path("corpora/demo")
    results: Path = Path("results/demo")
    users: Path | None = None
    label: str | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Score:
    """A measure of a task over the models that have it: a cell each, None for those without."""

    task: str
    measure: str
    main: bool
    cells: list[Bar | None]

    @property
    def scale(self) -> Scale:
        """The scale of the cells' bars."""
        return Scale.of(cell for cell in self.cells if cell is not None)


def report(config: RunReportConfig) -> Path:
    """Write the page and return its path.

    Raises FileNotFoundError or ValueError, naming it, for what is missing.
    """
    corpus, log = Corpus.open(config.corpus), read_log(config.run)
    model = EncoderModel(OURS, config.run, corpus, seed=0, untrained=False)
    scores = results.read(config.results) if (config.results / results.FILE).is_file() else []
    check_model(scores, model.fingerprint, config)
    tasks = tables(scores, resamples=RESAMPLES)
    differences = all_differences(tasks)
    groups = groups_of(corpus, config.users, config.label)
    points = flat_map(model.users(snapshot_at(corpus, groups.users)))
    manifest = corpus.manifest
    return write_page(
        "run.html.j2",
        config.out or config.run / "report.html",
        title=f"CLUE: {config.run.name}",
        lead=(
            f"{manifest.num_users:,} users, {manifest.num_items:,} items and "
            f"{sum(manifest.num_events.values()):,} events of {', '.join(corpus.services)}. "
            f"{AIMS[model.source.config.objective]}"
        ),
        ours=OURS,
        control=CONTROL,
        curves=curves(log),
        groups=groups,
        chart=inline(scatter(points, groups.number.tolist(), groups.names), "map of users"),
        examples=example_users(corpus, groups, model),
        models=(models := models_of(tasks)),
        scores=[score for table in tasks for score in scores_of(table, models)],
        tasks=[Section(table, differences.get(table.name, [])) for table in tasks],
        without=f"No scores in {config.results}: {suite_command(config)} makes them.",
        made=made(config, corpus, model.fingerprint, scores),
        settings=(config.run / "config.yaml").read_text(encoding="utf-8"),
    )


def check_model(scores: Sequence[TaskResult], fingerprint: str, config: RunReportConfig) -> None:
    """Raise ValueError where the trained rows of `scores` are of another model."""
    trained = {r.about["model_fingerprint"] for r in scores if r.model == OURS}
    if scores and fingerprint not in trained:
        raise ValueError(
            f"{config.results} holds the results of another model than {config.run}; "
            f"{suite_command(config)} makes those of this one"
        )


def suite_command(config: RunReportConfig) -> str:
    """Return the command that scores the run."""
    folders = f"encoders=[{config.run}] corpus={config.corpus} out={config.results}"
    return f"python -m benchmarks.suite SUITE.yaml {folders}"


def models_of(tasks: Iterable[TaskTable]) -> list[str]:
    """Return all models: ours, the control, and the others as the tasks name them."""
    return list(dict.fromkeys([OURS, CONTROL, *(name for table in tasks for name in table.rows)]))


def scores_of(table: TaskTable, models: Sequence[str]) -> list[Score]:
    """Return the task's first measures over `models`, means over seeds as wide as the widest."""
    measures = table.results[0].measures
    scores: list[Score] = []
    for name in list(measures)[:QUOTED]:
        cells: list[Bar | None] = []
        for model in models:
            row = table.rows.get(model)
            known = [r.values[name] for r in row.results if name in r.values] if row else []
            cells.append(_cell(model, name, widest(known)) if known else None)
        better = ", lower is better" if measures[name].lower_is_better else ""
        scores.append(Score(table.name, name + better, name == table.measure, cells))
    return scores


def _cell(model: str, measure: str, interval: Interval) -> Bar:
    between = show(measure, interval).split(" ", 1)[1]
    return Bar(model, interval, number(measure, interval.value), between, kind_of(model))


def _losses(train: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return the training loss over the steps, a line for each part whose turn a step may be.

    One line of both parts of a universal run would jump between their scales at every turn.
    """
    parts = {
        "views": [step for step in train if "in_batch_recall" in step],
        "next item": [step for step in train if "in_batch_recall" not in step],
    }
    return [
        Line(name, [step["step"] for step in steps], _numbers(step["loss"] for step in steps))
        for name, steps in parts.items()
        if steps
    ]


def curves(log: RunHistory) -> list[tuple[str, Markup]]:
    """Return titles and charts over the steps: the training loss, and the held-out figures."""
    charts: list[tuple[str, Panel]] = []
    if log.train:
        charts.append(("Training loss, nats", Panel(_losses(log.train), x_label="step")))
    steps = [line["step"] for line in log.valid]
    for task, titles in CURVES.items():
        held_out = [figures for line in log.valid if (figures := _figures(line, task))]
        for figure, title in titles.items() if held_out else ():
            lines = [
                Line(name, steps, _numbers(each[name][figure] for each in held_out))
                for name in held_out[-1]
            ]
            sizes = np.array([of["negatives"] + 1 for of in held_out[-1].values()])
            chance = np.mean(10 / sizes if figure == "recall_at_10" else np.log(sizes))
            if len(lines) > SINGLE:
                mean = np.array([line.y for line in lines]).mean(0).tolist()
                others = [Line(line.name, line.x, line.y, role="background") for line in lines]
                lines = [Line("mean", steps, mean), *others]
            level = ("chance", float(chance))
            charts.append((title, Panel(lines, x_label="step", level=level)))
    return [(title, inline(line_panels([panel]), title)) for title, panel in charts]


def _figures(line: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    """Return a measurement's figures of a task; a universal run has those of both side by side."""
    both = line.get("held_out", {}).items()
    ours = {name: each for name, each in both if name.startswith("next ") == (task == "next_item")}
    return line.get(task, ours)


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def made(
    config: RunReportConfig, corpus: Corpus, fingerprint: str, scores: Sequence[TaskResult]
) -> dict[str, str]:
    """Return the facts that a reader needs to make the page again."""
    stages = config.run / "stages.json"  # what `python -m benchmarks.demo` noted, if it ran
    noted = json.loads(stages.read_text(encoding="utf-8")) if stages.is_file() else {}
    seconds: dict[str, float] = noted or {"scores": sum(r.about["seconds"] for r in scores)}
    versions = scores[0].about["versions"] if scores else {}
    facts = {
        "model": fingerprint,
        "corpus": corpus.fingerprint,
        "users": ", ".join(f"{n:,} {name}" for name, n in corpus.manifest.split.items()),
        "seconds": ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: text for name, text in facts.items() if text}


def main() -> None:
    """Read the command line, write the page, say where it is."""
    sys.stdout.write(f"report: {run_command(RunReportConfig, report, description=__doc__)}\n")


if __name__ == "__main__":
    main()
