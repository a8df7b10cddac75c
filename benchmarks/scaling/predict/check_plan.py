"""Command: a plan beside the run that it asked for, once that is trained.

    python -m benchmarks.scaling check results/scaling/NAME/runs.parquet \\
        plan=results/scaling/OTHER/plan.json out=results/scaling/OTHER/check.json

The run is the row of role "check" in the table whose shape, batch, steps and rate are the plan's.
Errors are predicted / observed - 1: above 0 where the loss came out lower than the plan said.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_files import hashed, write_json
from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.law_summary import band as show_band
from benchmarks.scaling.fit.run_table import read_runs
from clue.config import run_command

SAME = 0.02  # relative difference up to which a rate, rounded to be written, is the plan's


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """The table that has the run, and the file that `plan` wrote."""

    table: Path
    plan: Path
    out: Path = Path("results/scaling/check.json")


def check(config: CheckConfig) -> dict[str, Any]:
    """Return what became of the plan, written; ValueError for a run that is missing."""
    if not config.plan.is_file():
        raise FileNotFoundError(f"no plan {config.plan}; `plan ... out={config.plan}` writes it")
    plan = json.loads(config.plan.read_text(encoding="utf-8"))
    build, band = plan["build"], Band(**plan["loss"])
    runs = read_runs(config.table)
    planned = (runs["role"] == "check") & (np.abs(runs["lr"] / build["lr"] - 1) <= SAME)
    for name in ("width", "layers", "batch", "steps"):
        planned &= runs[name] == build[name]
    if not planned.any():
        raise ValueError(
            f"{config.table} has no run of role check of width {build['width']}, "
            f"{build['layers']} layers, batch {build['batch']}, {build['steps']} steps and rate "
            f"{build['lr']:.3g}; train it, then check"
        )
    runs = runs.take(planned)
    observed = float(runs["loss"].mean())
    tree = {
        "plan": hashed(plan),
        "budget": plan["budget"],
        "factor": plan["factor"],
        "build": build,
        "spent": runs["flops"].mean(),
        "params": runs["params"][0],
        "negatives": runs["negatives"][0],
        "predicted": band,
        "observed": observed,
        "inside80": band.holds(observed, 80),
        "inside95": band.holds(observed, 95),
        "error": band.value / observed - 1,
    }
    return write_json(config.out, tree)


def sentence(tree: Mapping[str, Any]) -> str:
    """Return the outcome in words."""
    build, loss = tree["build"], show_band(tree["predicted"], ".3f")
    inside = "inside the interval of 80 %" if tree["inside80"] else "inside the interval of 95 %"
    inside = inside if tree["inside95"] else "outside the interval of 95 %"
    return (
        f"The plan for {tree['budget']:.3g} FLOPs, {tree['factor']:.3g} x the largest fitted run: "
        f"width {build['width']}, {build['layers']} layers, {build['steps']:,} steps of "
        f"{build['batch']}, rate {build['lr']:.2g}, loss {loss}. Trained as planned it spent "
        f"{tree['spent']:.3g} FLOPs and reached {tree['observed']:.3f}: {inside}, error "
        f"{tree['error']:+.2%} (K = {tree['negatives']:,})."
    )


def main(argv: Sequence[str]) -> None:
    """Read the command line, compare, print the sentence."""
    tree = run_command(CheckConfig, check, argv, description=__doc__)
    sys.stdout.write(sentence(tree) + "\n")
