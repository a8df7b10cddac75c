"""A law's part of the docs, from results/law/NAME: what was printed, doubts, plans, figure."""

import json
from pathlib import Path

from benchmarks.law.doubts import doubts
from benchmarks.law.page import DEVICES, plan_rows, summary
from benchmarks.metrics.format import markdown as table

SHOWN = ("budget", "factor", "model", "params", "steps", "readings", "loss", "between")
HEAD = (
    *("FLOPs", "over the largest run", "model", "parameters", "steps of batch", "readings"),
    *("expected loss", "80 %"),
)


def markdown(root: Path, name: str) -> str:
    """Return the part; FileNotFoundError where results/law/NAME has no law.json."""
    folder = Path("results") / "law" / name
    tree = json.loads((root / folder / "law.json").read_text(encoding="utf-8"))
    plans = table(
        (*HEAD, *(f"on {device}" for device in DEVICES)),
        [[*(one[key] for key in SHOWN), *one["hours"]] for one in plan_rows(tree)],
    )
    return "\n".join(
        [
            *("```text", summary(Path("laws") / name, tree).rstrip(), "```", ""),
            *(f"- {doubt[0].upper()}{doubt[1:]}." for doubt in doubts(tree)),
            *("", plans if tree["plans"] else f"No plan: {tree['no_plan']}.", ""),
            f"![loss over compute: the law, the runs, what was held out]({folder}/compute.svg)",
        ]
    )
