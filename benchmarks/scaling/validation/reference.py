"""Command: the fitter on published runs, its numbers beside those that were published.

    python -m benchmarks.scaling reference                 # reads ${CLUE_DATA}/scaling
    python -m benchmarks.scaling reference data=FOLDER sets=200

Writes OUT/reference.json: Chinchilla's surface as Epoch refitted it, OpenCLIP's frontiers,
Muennighoff's two values, a table on which the floor is not identified, and how often the intervals
hold the truth on drawn runs. The data are read in place and never copied: they state no licence.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_files import write_json
from benchmarks.metrics.format import markdown as table
from benchmarks.scaling.fit.isoflop import error_frontier
from benchmarks.scaling.fit.law_summary import band
from benchmarks.scaling.fit.laws import RepeatedLaw
from benchmarks.scaling.fit.sensitivity import fitted
from benchmarks.scaling.validation.chinchilla import TRUTH, chinchilla_study
from benchmarks.scaling.validation.coverage import compute_design, coverage, surface_design
from benchmarks.scaling.validation.published import expected, misfitting, openclip
from clue.config import run_command


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
    fits = {name: (error_frontier(*each), len(each[0])) for name, each in openclip(folder).items()}
    return {
        name: {"ours": [factor, -exponent], "published": known[name], "models": models}
        for name, ((factor, exponent), models) in fits.items()
    }


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
    laws = {size: fitted(misfitting(folder, size)) for size in ("N", "N_no_emb")}
    return {
        size: {"coefficients": fit.law.coefficients(fit.theta), "flags": fit.flags}
        for size, fit in laws.items()
    }


def reference(config: ReferenceConfig) -> dict[str, Any]:
    """Return the tree of OUT/reference.json, written: all studies."""
    drawn = {"starts": config.starts, "resamples": config.resamples}
    tree: dict[str, Any] = {
        "format": 1,
        "config": {**drawn, "sets": config.sets},
        "chinchilla": chinchilla_study(config.data, **drawn, seed=config.seed),
        "openclip": openclip_study(config.data),
        "muennighoff": muennighoff_study(config.data),
        "misfitting": misfitting_study(config.data),
    }
    if config.sets:
        designs = [compute_design(10), compute_design(16)]
        designs += [surface_design(TRUTH), surface_design(TRUTH, shared=0.004)]
        tree["coverage"] = {
            one.name: coverage(one, sets=config.sets, resamples=300, seed=config.seed)
            for one in designs
        }
    return write_json(config.out / "reference.json", tree)


def markdown(tree: Mapping[str, Any]) -> str:
    """Return the study as Markdown tables."""
    surface = tree["chinchilla"]
    rows: list[Sequence[str]] = []
    for name, row in surface["coefficients"].items():
        low, high = row["published 95 %"]
        rows.append((name, band(row["ours"]), f"{row['published']:.5g} [{low:g} {high:g}]"))
    objective = surface["objective"]
    rows.append(("objective", *(f"{objective[who]:.7g}" for who in ("ours", "published"))))
    parts = [table(("Chinchilla's 240 runs", "ours [95 %]", "published [95 %]"), rows)]
    rows = []
    for name, row in tree["openclip"].items():
        (a, b), (c, d) = row["ours"], row["published"]
        rows.append((f"OpenCLIP {name}: b, a", f"{a:.2f}, {b:.3f}", f"{c:g}, {d:g}"))
    for row in tree["muennighoff"]:
        point = ", ".join(f"{row[key]:.3g}" for key in "NDU")
        losses = [f"{row[who]:.10f}" for who in ("ours", "published")]
        rows.append((f"repeated data L({point})", *losses))
    parts.append(table(("check", "ours", "published"), rows))
    if "coverage" in tree:
        first = next(iter(tree["coverage"].values()))
        shown = [name for name in first if not name.startswith("a_")]
        rows = []
        for name, row in tree["coverage"].items():
            powers = ", ".join(f"{x:.1%}" for key, x in row.items() if key.startswith("a_"))
            rows.append((name, powers, *(f"{row[x]:.1%}" for x in shown)))
        parts.append(table(("truth inside the 95 % interval", "exponents", *shown), rows))
    return "\n\n".join(parts)


def main(argv: Sequence[str]) -> None:
    """Read the command line, run all, print the tables."""
    named = any(word in ("-h", "--help") or word.startswith("data=") for word in argv)
    words = [*argv] if named else [*argv, "data=${CLUE_DATA}/scaling"]
    tree = run_command(ReferenceConfig, reference, words, description=__doc__)
    sys.stdout.write(markdown(tree) + "\n")
