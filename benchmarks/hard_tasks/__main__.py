"""Command: five hard tasks over a ladder of next-item models, from the smallest to the largest.

    python -m benchmarks.hard_tasks configs/benchmarks/hard_ml1m.yaml

After Zhang et al. 2024 (arXiv 2311.11351): long-tail targets, cold-start users, robustness,
trajectory, transfer between services; what each asks is said in benchmarks/hard_tasks/. All are on
test items, in full ranking, with intervals of 95 % over users, and the largest model minus the
smallest on the same resamples. Every pair of task and model is a cell (JSON and .npz below
`cells`), and a finished one is kept while model, corpus and settings are the same. Writes
OUT/results.json and a figure for each task, and prints the tables.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.next_item_models import (
    ItemModel,
    Popularity,
    TrainedItems,
    asked_of,
    same_questions,
)
from benchmarks.hard_tasks.figure import CONTROL, Task, as_tree, draw, table
from benchmarks.hard_tasks.scores import Cell, Scores, measure, read_cell, write_cell
from benchmarks.hard_tasks.transfer import on_target, target_sequences, transfer
from benchmarks.tasks.rollout import futures, trajectory
from benchmarks.tasks.stress import cold_start, long_tail, robustness
from clue.config import read_command_line
from clue.data.corpus import Corpus
from clue.data.sequences import Sequences

NOTES = {
    "long tail": "Items in groups of falling training counts, a quarter of the questions each.",
    "cold start": "The newest events of each history alone.",
    "robustness": "Share of the NDCG@10 of the whole input that is left; items are replaced by "
    "others that were trained on, each as likely.",
    "trajectory": "The model's own best item feeds the next step; no scored event was trained on.",
    "transfer": "The target service's last events, after those before them in it alone.",
}


@dataclass(frozen=True, kw_only=True)
class HardTasksConfig:
    """The ladder: run directories by a name, from the smallest model to the largest.

    `models` answer long tail, cold start and robustness. `trajectory` are runs that hold out more
    than `steps` events (sequences.held_out, or a temporal split), which may be the same ones.
    `transfer` are runs by target service, kind (scratch, mix, diff) and size. Where one is empty,
    its tasks are left out.

    `filter_seen` leaves what a history holds out of the ranking: right for films, not for shops.
    `lengths` are those of cold start, `rates` those of robustness, whose input are the newest
    `events`. At most `questions` test items are asked, the first of a fixed shuffle.
    """

    name: str
    corpus: Path
    out: Path
    cells: Path = Path("runs/hard_tasks")
    models: dict[str, Path] = field(default_factory=dict[str, Path])
    trajectory: dict[str, Path] = field(default_factory=dict[str, Path])
    transfer: dict[str, dict[str, dict[str, Path]]] = field(
        default_factory=dict[str, dict[str, dict[str, Path]]]
    )
    filter_seen: bool = False
    lengths: list[int] = field(default_factory=lambda: [1, 2, 5, 10, 20, 50])
    rates: list[float] = field(default_factory=lambda: [0.0, 0.1, 0.2, 0.3, 0.5])
    events: int = 50
    steps: int = 10
    questions: int = 16_384
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an empty ladder, a name that is taken, and conditions that mean nothing."""
        if not (self.models or self.trajectory or self.transfer):
            raise ValueError("no runs to measure; name some in models, trajectory or transfer")
        if CONTROL in {*self.models, *self.trajectory}:
            raise ValueError(f"{CONTROL} is the control's name; call the run something else")
        for target, kinds in self.transfer.items():
            sizes = {tuple(runs) for runs in kinds.values()}
            if len(sizes) != 1:
                raise ValueError(f"transfer.{target}: its kinds have other sizes: {sorted(sizes)}")
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"lengths are {self.lengths}; they must be positive counts")
        if self.rates[:1] != [0.0] or not all(0 <= rate <= 1 for rate in self.rates):
            raise ValueError(f"rates are {self.rates}; they are shares, the first of them 0")
        for name in ("events", "steps", "questions", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")


class Study:
    """The cells of one config on one corpus."""

    def __init__(self, config: HardTasksConfig, corpus: Corpus) -> None:
        """Keeps both, and what else a cell depends on."""
        self.config, self.corpus = config, corpus
        common = ("filter_seen", "questions", "resamples", "seed")
        self.settings = {name: getattr(config, name) for name in common}

    def cell(
        self,
        task: str,
        model: str,
        fingerprints: Mapping[str, str],
        settings: Mapping[str, Any],
        score: Callable[[], Scores],
    ) -> Cell:
        """Return the finished cell of a task and a model, or measures and keeps it."""
        of = {"task": task, "model": model, "fingerprints": dict(fingerprints)}
        of |= {"corpus": self.corpus.fingerprint, "settings": {**self.settings, **settings}}
        name = f"{task}-{model}".replace(": ", "-").replace(" ", "_").replace("/", "_")
        file = self.config.cells / self.config.name / f"{name}.json"
        found = read_cell(file, of)
        if found is None:
            sys.stderr.write(f"hard_tasks: {task}: {model}\n")
            draws = {"resamples": self.config.resamples, "seed": self.config.seed}
            found = measure(score(), **draws)
            write_cell(found, file, of)
        return found

    def task(self, name: str, cells: Mapping[str, Cell]) -> Task:
        """Return the task's intervals, and the largest model minus the smallest."""
        trained = [cell for model, cell in cells.items() if model != CONTROL]
        return Task(
            name,
            len(np.unique(trained[0].users)),
            NOTES[name.partition(":")[0]],
            {model: cell.measures() for model, cell in cells.items()},
            trained[-1].minus(trained[0]) if len(trained) > 1 else {},
        )


def opened(runs: Mapping[str, Path], corpus: Corpus) -> dict[str, TrainedItems]:
    """Return models of a ladder; FileNotFoundError and ValueError name the run that is wrong."""
    return {name: TrainedItems.open(run, corpus) for name, run in runs.items()}


def with_control(
    models: Mapping[str, TrainedItems], sequences: Sequences
) -> list[tuple[str, ItemModel, dict[str, str]]]:
    """Return the control, then the models, each with its fingerprint."""
    trained = [(name, m, {name: m.checkpoint.fingerprint}) for name, m in models.items()]
    held_out = {"sequences": str(next(iter(models.values())).sequences)}
    return [(CONTROL, Popularity(sequences.counts()), held_out), *trained]


def on_questions(study: Study) -> list[Task]:
    """Return long tail, cold start and robustness."""
    config = study.config
    models = opened(config.models, study.corpus)
    sequences = Sequences(study.corpus, same_questions(list(models.values())))
    asked, counts = asked_of(sequences, config.questions), sequences.counts()
    seen = config.filter_seen
    pool = np.flatnonzero(counts)
    draws = {"events": config.events, "seed": config.seed}
    tasks: dict[str, tuple[dict[str, Any], Callable[[ItemModel], Scores]]] = {
        "long tail": ({}, lambda model: long_tail(model, asked, counts, filter_seen=seen)),
        "cold start": (
            {"lengths": config.lengths},
            lambda model: cold_start(model, asked, config.lengths, filter_seen=seen),
        ),
        "robustness": (
            {"rates": config.rates, "events": config.events},
            lambda model: robustness(model, asked, config.rates, pool, **draws, filter_seen=seen),
        ),
    }
    found: list[Task] = []
    for task, (settings, score) in tasks.items():
        cells = {
            name: study.cell(task, name, prints, settings, lambda s=score, m=model: s(m))
            for name, model, prints in with_control(models, sequences)
        }
        found.append(study.task(task, cells))
    return found


def on_trajectories(study: Study) -> list[Task]:
    """Return the trajectory."""
    config = study.config
    models = opened(config.trajectory, study.corpus)
    sequences = Sequences(study.corpus, same_questions(list(models.values())))
    asked = futures(sequences, config.steps, config.questions)
    cells = {
        name: study.cell(
            "trajectory",
            name,
            prints,
            {"steps": config.steps},
            lambda m=model: trajectory(m, asked, filter_seen=config.filter_seen),
        )
        for name, model, prints in with_control(models, sequences)
    }
    return [study.task("trajectory", cells)]


def on_transfer(study: Study) -> list[Task]:
    """Return the transfer to each target."""
    config, corpus = study.config, study.corpus
    found: list[Task] = []
    for target, kinds in config.transfer.items():
        asked = asked_of(target_sequences(corpus, target), config.questions)
        cells: dict[str, Cell] = {}
        for size in next(iter(kinds.values())):
            models = opened({kind: runs[size] for kind, runs in kinds.items()}, corpus)
            prints = {kind: model.checkpoint.fingerprint for kind, model in models.items()}
            own = {kind: on_target(model, corpus, target) for kind, model in models.items()}
            cells[size] = study.cell(
                f"transfer: {target}",
                size,
                prints,
                {},
                lambda own=own, asked=asked: transfer(own, asked, filter_seen=config.filter_seen),
            )
        found.append(study.task(f"transfer: {target}", cells))
    return found


def run(config: HardTasksConfig) -> str:
    """Measures what is missing, writes results and figures, gives the tables.

    Raises FileNotFoundError and ValueError, naming it, for what is missing or does not fit.
    """
    study = Study(config, Corpus.open(config.corpus))
    tasks = on_questions(study) if config.models else []
    tasks += on_trajectories(study) if config.trajectory else []
    transfers = on_transfer(study) if config.transfer else []
    config.out.mkdir(parents=True, exist_ok=True)
    about = {
        "name": config.name,
        "corpus": {"name": study.corpus.manifest.name, "fingerprint": study.corpus.fingerprint},
        "settings": study.settings,
        "tasks": [as_tree(task) for task in (*tasks, *transfers)],
    }
    file = config.out / "results.json"
    file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for task in tasks:
        draw([task], config.out / f"{task.name.replace(' ', '_')}.svg")
    if transfers:
        draw(transfers, config.out / "transfer.svg")
    return "\n\n".join(table(task) for task in (*tasks, *transfers))


def main() -> None:
    """Reads the command line, runs the study, prints the tables."""
    config = read_command_line(HardTasksConfig, sys.argv[1:], description=__doc__ or "")
    try:
        sys.stdout.write(run(config) + "\n")
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
