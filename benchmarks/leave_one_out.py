"""The committed results of leave-one-out as Markdown."""

from collections.abc import Mapping
from typing import Any

from benchmarks.metrics.bootstrap import Interval
from benchmarks.metrics.format import show

SEEN = ("seen kept", "seen left out")


def markdown(about: Mapping[str, Any]) -> str:
    """Return the results as Markdown: each model, their mean, popularity, by what is ranked."""
    named = ("HR@10", "NDCG@10", "MRR", "coverage@10")
    lines = [f"| seen items | row | {' | '.join(named)} | s |", "|" + " --- |" * (len(named) + 3)]
    for seen in (about["headline"], *(s for s in SEEN if s != about["headline"])):
        for row, found in about["tables"][seen].items():
            if row in ("mean - popularity", "mean" if len(about["models"]) == 1 else ""):
                continue
            seconds = about["models"].get(row, {}).get("training_seconds")
            cells = [show(key, Interval(**found[key])) for key in named]
            cells.append("" if seconds is None else f"{seconds:,.0f}")
            lines.append(f"| {seen.removeprefix('seen ')} | {row} | {' | '.join(cells)} |")
    return "\n".join(lines)
