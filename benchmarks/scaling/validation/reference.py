"""Command: the fitter on published runs, its numbers beside those that were published.

    python -m benchmarks.scaling reference                 # reads ${CLUE_DATA}/scaling
    python -m benchmarks.scaling reference data=FOLDER sets=200

Writes OUT/reference.json: Chinchilla's surface as Epoch refitted it, OpenCLIP's frontiers,
Muennighoff's two values, a table on which the floor is not identified, and how often the intervals
hold the truth on drawn runs. The data are read in place and never copied: they state no licence.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scaling.fit.data_constrained import RepeatedLaw
from benchmarks.scaling.fit.isoflop import error_frontier
from benchmarks.scaling.fit.law_summary import band, plain
from benchmarks.scaling.fit.sensitivity import fitted
from benchmarks.scaling.validation.chinchilla import TRUTH, chinchilla_study
from benchmarks.scaling.validation.coverage import (
    compute_design,
    coverage,
    surface_design,
)
from benchmarks.scaling.validation.published import expected, misfitting, openclip
from clue.config import read_command_line


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """Where the published runs are, and how much is drawn. `sets` at 0 leaves coverage out."""

    data: Path
    out: Path = Path("results/scaling")
    starts: int = 432
    resamples: int = 2000
    sets: int = 200
    seed: int = 0


def openclip_study(folder: Path) -> dict[str, Any]:
    """Return the frontiers error = b GMACs^-a beside the published ones."""
    known = expected(folder)["openclip_scaling"]["published"]
    found: dict[str, Any] = {}
    for name, (macs, errors) in openclip(folder).items():
        factor, exponent = error_frontier(macs, errors)
        found[name] = {"ours": [factor, -exponent], "published": known[name], "models": len(macs)}
    return found


def muennighoff_study(folder: Path) -> list[dict[str, float]]:
    """Return the law of repeated data at the two published points."""
    known = expected(folder)["muennighoff_2023"]
    law = RepeatedLaw(("N", "D", "U"), (0.0, 0.0))
    theta = np.array(
        [
            *(np.exp(known["e"]), known["a"], known["alpha"], known["b"], known["beta"]),
            *(np.log(known["rd_star"]), np.log(known["rn_star"])),
        ]
    )
    return [
        {
            **{"N": size, "D": read, "U": distinct, "published": loss},
            "ours": float(law.loss(theta, np.array([[size, read, distinct]]))[0]),
        }
        for size, read, distinct, loss in known["check"]
    ]


def misfitting_study(folder: Path) -> dict[str, Any]:
    """Return the surface by all parameters and by those without embeddings, with their flags."""
    found: dict[str, Any] = {}
    for size in ("N", "N_no_emb"):
        law = fitted(misfitting(folder, size))
        found[size] = {"coefficients": law.law.coefficients(law.theta), "flags": law.flags}
    return found


def coverage_study(config: ReferenceConfig) -> dict[str, Any]:
    """Return the share of drawn sets whose 95 % interval holds the truth, by design."""
    designs = (
        compute_design(10),
        compute_design(16),
        surface_design(TRUTH),
        surface_design(TRUTH, shared=0.004),
    )
    return {
        one.name: coverage(one, sets=config.sets, resamples=300, seed=config.seed)
        for one in designs
    }


def reference(config: ReferenceConfig) -> dict[str, Any]:
    """Runs all, writes OUT/reference.json, gives its tree."""
    tree: dict[str, Any] = {
        "format": 1,
        "config": {"starts": config.starts, "resamples": config.resamples, "sets": config.sets},
        "chinchilla": chinchilla_study(
            config.data, starts=config.starts, resamples=config.resamples, seed=config.seed
        ),
        "openclip": openclip_study(config.data),
        "muennighoff": muennighoff_study(config.data),
        "misfitting": misfitting_study(config.data),
    }
    if config.sets:
        tree["coverage"] = coverage_study(config)
    tree = plain(tree)
    config.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tree, indent=1, allow_nan=False)
    (config.out / "reference.json").write_text(text + "\n", encoding="utf-8")
    return tree


def markdown(tree: Mapping[str, Any]) -> str:
    """Return the study as Markdown tables."""
    surface = tree["chinchilla"]
    lines = ["| Chinchilla's 240 runs | ours [95 %] | published [95 %] |", "| --- | --- | --- |"]
    for name, row in surface["coefficients"].items():
        ours, (low, high) = row["ours"], row["published 95 %"]
        lines.append(f"| {name} | {band(ours)} | {row['published']:.5g} [{low:g} {high:g}] |")
    both = surface["objective"]
    lines.append(f"| objective | {both['ours']:.7g} | {both['published']:.7g} |")
    lines += ["", "| check | ours | published |", "| --- | --- | --- |"]
    for name, row in tree["openclip"].items():
        (a, b), (c, d) = row["ours"], row["published"]
        lines.append(f"| OpenCLIP {name}: b, a | {a:.2f}, {b:.3f} | {c:g}, {d:g} |")
    for row in tree["muennighoff"]:
        told = f"L({row['N']:.3g}, {row['D']:.3g}, {row['U']:.3g})"
        lines.append(f"| repeated data {told} | {row['ours']:.10f} | {row['published']:.10f} |")
    if "coverage" in tree:
        first = next(iter(tree["coverage"].values()))
        shown = [name for name in first if not name.startswith("a_")]
        lines += ["", f"| truth inside the 95 % interval | exponents | {' | '.join(shown)} |"]
        lines.append("| --- " * (len(shown) + 2) + "|")
        for name, row in tree["coverage"].items():
            powers = ", ".join(f"{x:.1%}" for key, x in row.items() if key.startswith("a_"))
            lines.append(f"| {name} | {powers} | {' | '.join(f'{row[x]:.1%}' for x in shown)} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Reads the command line, runs all, prints the tables."""
    asked = any(word in ("-h", "--help") or word.startswith("data=") for word in argv)
    words = [*argv] if asked else [*argv, "data=${CLUE_DATA}/scaling"]
    config = read_command_line(ReferenceConfig, words, description=__doc__ or "")
    sys.stdout.write(markdown(reference(config)) + "\n")
