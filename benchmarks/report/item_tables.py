"""Command: the item-ranking tasks of a suite, conditions by model with paired gains, and figures.

    python -m benchmarks.report.item_tables out=results/suite/hard_ml1m

Writes OUT/table.md and, for tasks of several conditions and for transfer, OUT/TASK.svg.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.baselines.next_item_models import CLOCK
from benchmarks.external.rectools_sasrec import seconds_to
from benchmarks.metrics import format
from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import show, signed
from benchmarks.report.charts import Line, Panel, line_panels, save
from benchmarks.suite import paired, results
from benchmarks.suite.paired import Pair
from benchmarks.suite.results import TaskResult
from benchmarks.suite.summary import widest
from benchmarks.tasks.conditions import key, parts
from clue.atomic import write_text
from clue.config import run_command

CONTROL = "popularity"
# What the table and the figure show of each kind of task; the scores hold all.
SHOWN = {
    "long tail": ("HR@10", "NDCG@10"),
    "cold start": ("HR@10", "NDCG@10", "coverage@10"),
    "corruption": ("NDCG@10", "retained NDCG@10"),  # a model that reads nothing retains all
    "rollout": ("HR@10", "recall"),
    "leave one out": ("HR@10", "NDCG@10", "MRR", "cross-entropy", "coverage@10"),
}
NOTES = {
    "long tail": "Items in groups of falling training counts, a quarter of the queries each.",
    "cold start": "The newest events of each history alone.",
    "corruption": "Retained is the share of the NDCG@10 of the whole input; items are replaced by "
    "others that were trained on, each equally likely.",
    "rollout": "The model's own best item feeds the next step; no scored event was trained on.",
    "leave one out": "The last event of each sequence, among all items of its services.",
}
X_LABELS = {
    "long tail": "popularity of the target, G1 the most popular",
    "cold start": "newest events that the model reads",
    "corruption": "share of the input's events",
    "rollout": "step of the rollout",
}


@dataclass(frozen=True, kw_only=True)
class ItemTablesConfig:
    """The folder of the suite's scores."""

    out: Path = Path("results/suite/hard_ml1m")


@dataclass(frozen=True)
class ItemTable:
    """A task: by model its seeds' results, the control first, then by size; and paired gains."""

    name: str
    kind: str
    models: Mapping[str, Sequence[TaskResult]]
    pairs: Sequence[Pair]

    def value(self, model: str, measure: str) -> Interval | None:
        """Return the mean over a model's seeds, as wide as the widest; None without the measure."""
        each = [one.values[measure] for one in self.models[model] if measure in one.values]
        return widest(each) if each else None

    @property
    def shown(self) -> list[str]:
        """The measures of the table in its order."""
        first = max(self.models.values(), key=lambda each: len(each[0].values))[0]
        return [m for base in SHOWN[self.kind] for m in first.values if parts(m)[0] == base]


def item_tables(out: Path) -> list[ItemTable]:
    """Return the item-ranking tasks in `out`. ValueError where there is none."""
    by_task: dict[str, dict[str, list[TaskResult]]] = {}
    for result in results.read(out):
        if result.family in SHOWN:
            by_task.setdefault(result.task, {}).setdefault(result.model, []).append(result)
    if not by_task:
        raise ValueError(f"{out} has no item-ranking task; suite_page shows the others")

    def size(each: Sequence[TaskResult]) -> tuple[float, str]:
        control = 0.0 if each[0].model == CONTROL else float("inf")
        return float(each[0].chosen.get("parameters", control)), each[0].model

    pairs = paired.read(out)
    return [
        ItemTable(
            name,
            next(iter(models.values()))[0].family,
            {each[0].model: each for each in sorted(models.values(), key=size)},
            [pair for pair in pairs if pair.task == name],
        )
        for name, models in by_task.items()
    ]


def markdown(table: ItemTable) -> str:
    """Return a task as Markdown; what has many conditions has a line for each of them."""
    head, *lines = _by_model(table) if table.kind == "leave one out" else _by_condition(table)
    rows = format.markdown(head, lines)
    users = next(iter(table.models.values()))[0].users
    return f"**{table.name}** ({users:,} users). {NOTES[table.kind]}\n\n{rows}"


def _by_condition(table: ItemTable) -> list[list[str]]:
    """Return a line for each measure and condition, a column for each model and each pair."""
    gains = [f"{pair.model} - {pair.minus}" for pair in table.pairs]
    lines = [["measure", "at", *table.models, *gains]]
    for measure in table.shown:
        values = [table.value(model, measure) for model in table.models]
        cells = ["-" if one is None else show(measure, one) for one in values]
        cells += [
            signed(measure, pair.deltas[measure]) if measure in pair.deltas else "-"
            for pair in table.pairs
        ]
        lines.append([*parts(measure), *cells])
    return lines


def _by_model(table: ItemTable) -> list[list[str]]:
    """Return a line for each model and pair, a column for each measure, by condition."""
    measures = list(dict.fromkeys(parts(name)[0] for name in table.shown))
    times = seconds(table)
    head = ["seen items", "row", *measures, *times]
    lines = [head]
    for condition in dict.fromkeys(parts(name)[1] for name in table.shown):
        names = [key(measure, condition) for measure in measures]
        for model in table.models:
            values = [(name, table.value(model, name)) for name in names]
            cells = ["-" if one is None else show(name, one) for name, one in values]
            cells += [each.get(model, "") for each in times.values()]
            lines.append([condition.removeprefix("seen "), model, *cells])
        for pair in table.pairs:
            cells = [signed(n, pair.deltas[n]) if n in pair.deltas else "-" for n in names]
            row = f"{pair.model} - {pair.minus}"
            cells += [""] * len(times)
            lines.append([condition.removeprefix("seen "), row, *cells])
    return lines


def seconds(table: ItemTable) -> dict[str, dict[str, str]]:
    """Return, by column and model, the processor time of training, all of it and to equal quality.

    Equal is the higher of the lowest validation losses of the models with a curve: all reached it.
    """
    logged = {model: each[0].chosen.get("curve") for model, each in table.models.items()}
    curves = {model: curve for model, curve in logged.items() if curve}
    if not curves:
        return {}
    whole = {model: f"{curve[-1][CLOCK]:,.0f}" for model, curve in curves.items()}
    if len(curves) == 1:
        return {"processor s": whole}
    shared = max(min(line["loss"] for line in curve) for curve in curves.values())
    to: dict[str, str] = {}
    for model, curve in curves.items():
        reached = seconds_to(curve, "loss", shared, clock=CLOCK)
        assert reached is not None  # its own lowest loss is no higher
        to[model] = f"{reached:,.0f}"
    return {"processor s": whole, f"processor s to {shared:.3f} nats on the valid items": to}


def figure(table: ItemTable) -> Figure | None:
    """Return the figure of a task, None where it has one condition and no family of models."""
    if table.kind == "leave one out":
        return _transfer(table)
    label = X_LABELS[table.kind]
    kinds = ("deleted", "replaced") if table.kind == "corruption" else ("",)
    panels: list[Panel] = []
    for base in SHOWN[table.kind]:
        for kind in kinds:
            measures = {
                parts(m)[1].removeprefix(kind).strip(): m
                for m in table.shown
                if parts(m)[0] == base and parts(m)[1].startswith(kind)
            }
            if len(measures) < 2:
                continue
            lines = [
                Line.of(
                    model,
                    {x: one for x, m in measures.items() if (one := table.value(model, m))},
                    "control" if model == CONTROL else "line",
                )
                for model in table.models
            ]
            panels.append(Panel(lines, kind, f"{label} {kind}".strip(), base))
    share = "row" if table.kind == "corruption" else False
    return line_panels(panels, columns=2 if len(panels) == 4 else 3, share_y=share)


def _transfer(table: ItemTable) -> Figure | None:
    """NDCG@10 over the sizes, a line for each kind, of models named "KIND SIZE"."""
    named = [model.split(" ") for model in table.models if model != CONTROL]
    kinds = list(dict.fromkeys(words[0] for words in named))
    if any(len(words) != 2 for words in named) or len(kinds) < 2 or len(named) == len(kinds):
        return None
    main = next(iter(table.models.values()))[0].main
    lines = [
        Line.of(
            kind,
            {
                words[1]: one
                for words in named
                if words[0] == kind and (one := table.value(" ".join(words), main))
            },
        )
        for kind in kinds
    ]
    return line_panels([Panel(lines, table.name, "model", parts(main)[0])])


def write(config: ItemTablesConfig) -> Path:
    """Return OUT/table.md, written with its figures."""
    blocks: list[str] = []
    for table in item_tables(config.out):
        blocks.append(markdown(table))
        drawn = figure(table)
        if drawn is not None:
            file = config.out / f"{table.name}.svg"
            save(drawn, file)
            blocks.append(f"![{table.name} by model, with intervals]({file})")
    write_text(config.out / "table.md", "\n\n".join(blocks) + "\n")
    return config.out / "table.md"


def main() -> None:
    """Read the command line, write the table and the figures."""
    file = run_command(ItemTablesConfig, write, description=__doc__)
    sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
