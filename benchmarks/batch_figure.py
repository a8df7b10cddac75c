"""The table and the figure of the batch-size study."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import show


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One batch in one comparison: the small and the large model at their best learning rates.

    The gains are large minus small on the same resampled users: below 0 is better for entropy.
    """

    mode: str
    batch: int
    negatives: int
    steps: list[int]
    rates: list[float]
    flops: list[float]
    seconds: list[float]
    entropy: list[Interval]
    entropy_gain: Interval
    recall: list[Interval]
    recall_gain: Interval


def read_cells(file: Path) -> tuple[list[Cell], list[str]]:
    """Return the cells that the study wrote and the names of its sizes."""
    tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    cells: list[Cell] = []
    for fields in tree["cells"]:
        for name in ("entropy", "recall"):
            fields[name] = [Interval(**found) for found in fields[name]]
            fields[f"{name}_gain"] = Interval(**fields[f"{name}_gain"])
        cells.append(Cell(**fields))
    return cells, list(tree["config"]["sizes"])


def table(cells: Sequence[Cell], sizes: Sequence[str]) -> str:
    """Return the study as Markdown, a table for each comparison."""
    parts: list[str] = []
    for mode in dict.fromkeys(cell.mode for cell in cells):
        mine = [cell for cell in cells if cell.mode == mode]
        name = f"CE_{mine[0].negatives}"
        head = ["batch", "steps"]
        head += [f"{name}, {size}" for size in sizes] + [f"{sizes[1]} - {sizes[0]}"]
        head += [f"R@10, {size}" for size in sizes] + [f"{sizes[1]} - {sizes[0]}"]
        lines = [head, ["---"] * len(head)]
        for cell in mine:
            steps = " / ".join(map(str, dict.fromkeys(cell.steps)))
            entropy = [show("entropy", x) for x in (*cell.entropy, cell.entropy_gain)]
            recall = [show("recall", x) for x in (*cell.recall, cell.recall_gain)]
            lines.append([f"{cell.batch:,}", steps, *entropy, *recall])
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"At {mode}:\n\n{rows}")
    return "\n\n".join(parts)


def draw(cells: Sequence[Cell], sizes: Sequence[str], out: Path) -> None:
    """Writes a figure: entropy and recall over the batch, a column for each comparison."""
    modes = list(dict.fromkeys(cell.mode for cell in cells))
    with mpl.rc_context({"svg.hashsalt": "clue", "font.size": 9}):
        figure = Figure(figsize=(8, 5.6), layout="constrained")
        axes = figure.subplots(2, len(modes), sharex=True, sharey="row", squeeze=False)
        for column, mode in enumerate(modes):
            mine = [cell for cell in cells if cell.mode == mode]
            batches = [cell.batch for cell in mine]
            for row, measure in enumerate(("entropy", "recall")):
                axis = axes[row][column]
                for number, size in enumerate(sizes):
                    found = [getattr(cell, measure)[number] for cell in mine]
                    values = [x.value for x in found]
                    spread = [[x.value - x.low for x in found], [x.high - x.value for x in found]]
                    axis.errorbar(
                        [batch * (0.97, 1.03)[number] for batch in batches],
                        values,
                        yerr=spread,
                        label=size,
                        marker="os"[number],
                        linestyle=("-", "--")[number],
                        color=("#0072b2", "#d55e00")[number],  # told apart in grey by their shapes
                        capsize=2,
                    )
                axis.set_xscale("log", base=2)
                axis.grid(alpha=0.3)
                if row == 0:
                    axis.set_title(f"At {mode}")
                else:
                    axis.set_xlabel("batch (pairs)")
        axes[0][0].set_ylabel(f"held-out CE_{cells[0].negatives} (nats), lower is better")
        axes[1][0].set_ylabel("matching R@10")
        axes[0][0].legend(title="model", frameon=False)
        figure.savefig(out, metadata={"Date": None})
