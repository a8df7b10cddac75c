"""The tables and the figures of the hard tasks, from the results that the command wrote."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import show

# Lines are told apart in grey by their marks and dashes; the colours are Okabe and Ito's.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS, DASHES = "osD^vPX", ("-", "--", "-.", ":")
CONTROL = "popularity"
X_LABELS = {
    "long tail": "popularity of the target, G1 the most popular",
    "cold start": "newest events that the model reads",
    "robustness": "share of the input's events",
    "trajectory": "step of the rollout",
}
# What the table and the figure show of each task; the cells hold all.
SHOWN = {
    "long tail": ("HR@10", "NDCG@10"),
    "cold start": ("HR@10", "NDCG@10", "coverage@10"),
    "robustness": ("NDCG@10", "retained NDCG@10"),  # who reads nothing retains all
    "trajectory": ("HR@10", "recall"),
    "transfer": ("NDCG@10", "NDCG@10 - scratch"),
}


@dataclass(frozen=True)
class Task:
    """One task over the ladder: rows[model][condition, measure], `gain` the largest - smallest.

    `users` counts whom it asked. A transfer task's name is `transfer: TARGET`.
    """

    name: str
    users: int
    note: str
    rows: Mapping[str, Mapping[tuple[str, str], Interval]]
    gain: Mapping[tuple[str, str], Interval]

    @property
    def kind(self) -> str:
        """The name without the target."""
        return self.name.partition(":")[0]

    @property
    def shown(self) -> list[tuple[str, str]]:
        """The keys of the table and the figure, by measure."""
        keys = list(next(iter(self.rows.values())))
        return [key for name in SHOWN[self.kind] for key in keys if key[1] == name]


def as_tree(task: Task) -> dict[str, Any]:
    """Return the task as JSON can hold it."""

    def lines(found: Mapping[tuple[str, str], Interval]) -> list[dict[str, Any]]:
        return [{"condition": c, "measure": m, **vars(x)} for (c, m), x in found.items()]

    rows = {model: lines(found) for model, found in task.rows.items()}
    about = {"name": task.name, "users": task.users, "note": task.note}
    return {**about, "rows": rows, "gain": lines(task.gain)}


def read_tasks(file: Path) -> list[Task]:
    """Return the tasks that the command wrote; FileNotFoundError where it did not."""
    if not file.is_file():
        raise FileNotFoundError(f"no results in {file}; run python -m benchmarks.hard_tasks")

    def intervals(lines: list[dict[str, Any]]) -> dict[tuple[str, str], Interval]:
        return {
            (x["condition"], x["measure"]): Interval(x["value"], x["low"], x["high"]) for x in lines
        }

    tree = json.loads(file.read_text(encoding="utf-8"))
    return [
        Task(
            task["name"],
            task["users"],
            task["note"],
            {model: intervals(lines) for model, lines in task["rows"].items()},
            intervals(task["gain"]),
        )
        for task in tree["tasks"]
    ]


def table(task: Task) -> str:
    """Return a task as Markdown: a line for each condition, a column for each model."""
    sizes = [model for model in task.rows if model != CONTROL]
    head = ["measure", "at", *task.rows]
    head += [f"{sizes[-1]} - {sizes[0]}"] if task.gain else []
    lines = [head, ["---"] * len(head)]
    for key in task.shown:
        cells = [show(key[1], row[key]) if key in row else "-" for row in task.rows.values()]
        cells += [show(key[1], task.gain[key])] if task.gain else []
        lines.append([key[1], key[0], *cells])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{task.name.capitalize()} ({task.users:,} users). {task.note}\n\n{rows}"


def draw(tasks: Sequence[Task], out: Path) -> None:
    """Writes the figure of one task, or of the transfer to each target, side by side."""
    panels = _transfer_panels(tasks) if tasks[0].kind == "transfer" else _panels(tasks[0])
    with mpl.rc_context({"svg.hashsalt": "clue", "font.size": 9}):
        columns = 2 if len(panels) == 4 else min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(1.2 + 3.1 * columns, 0.4 + 3.0 * rows), layout="constrained")
        # what is drawn of robustness is to be read across: the same share on the same height
        share = "row" if tasks[0].kind == "robustness" else False
        axes = figure.subplots(rows, columns, squeeze=False, sharey=share).ravel()
        for axis, (title, x_label, y_label, lines) in zip(axes, panels, strict=False):
            _lines(axis, lines)
            axis.set_title(title)
            axis.set_xlabel(x_label)
            axis.set_ylabel(y_label)
            axis.grid(alpha=0.3)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        handles, names = axes[0].get_legend_handles_labels()
        title = "pretrained on" if tasks[0].kind == "transfer" else "model"
        figure.legend(handles, names, title=title, frameon=False, loc="outside right upper")
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else {})


Lines = dict[str, dict[str, Interval]]  # of each line its points by the name of their place
Panel = tuple[str, str, str, Lines]


def _panels(task: Task) -> list[Panel]:
    """Return a panel for each measure, or, of robustness, for each way to break the input."""

    def lines(name: str, start: str) -> Lines:
        return {
            model: {
                condition.removeprefix(start).strip(): x
                for (condition, measure), x in row.items()
                if measure == name and condition.startswith(start)
            }
            for model, row in task.rows.items()
        }

    label = X_LABELS[task.kind]
    if task.kind == "robustness":
        pairs = [(name, kind) for name in SHOWN[task.kind] for kind in ("deleted", "replaced")]
        return [(kind, f"{label} {kind}", name, lines(name, kind)) for name, kind in pairs]
    measures = [m for m in SHOWN[task.kind] if len({c for c, n in task.shown if n == m}) > 1]
    return [("", label, measure, lines(measure, "")) for measure in measures]


def _transfer_panels(tasks: Sequence[Task]) -> list[Panel]:
    """Return a panel for each target: NDCG@10 over the sizes, a line for each kind."""
    panels: list[Panel] = []
    for task in tasks:
        kinds = [condition for condition, measure in task.shown if measure == "NDCG@10"]
        lines = {
            kind: {model: row[kind, "NDCG@10"] for model, row in task.rows.items()}
            for kind in kinds
        }
        panels.append((task.name.partition(": ")[2], "model", "NDCG@10", lines))
    return panels


def _lines(axis: Axes, lines: Lines) -> None:
    """Draws lines with their intervals, the places of the points side by side at equal gaps."""
    places = list(next(iter(lines.values())))
    trained = [name for name in lines if name != CONTROL]
    for name, points in lines.items():
        number = trained.index(name) if name in trained else len(trained)
        values = [points[place].value for place in places]
        below = [points[place].value - points[place].low for place in places]
        above = [points[place].high - points[place].value for place in places]
        shift = 0.06 * (number - (len(lines) - 1) / 2)
        control = name == CONTROL
        axis.errorbar(
            [place + shift for place in range(len(places))],
            values,
            yerr=[below, above],
            label=name,
            marker="x" if control else MARKS[number % len(MARKS)],
            linestyle=":" if control else DASHES[number % len(DASHES)],
            color="#777777" if control else COLOURS[number % len(COLOURS)],
            markersize=5,
            capsize=2,
        )
    axis.set_xticks(range(len(places)), places)
