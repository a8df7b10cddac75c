"""What laws/NAME/law.json holds: the laws of the runs, what they are worth, and plans by them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_files import plain
from benchmarks.law.planner import Training, fit_of, training_of
from benchmarks.law.worth import worth
from benchmarks.scaling.fit.law_summary import about, described, table_flags
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.scaling.fit.study import Laws, laws_of

LAWS = ("surface", "surface, E = 0", "compute")
MULTIPLES = (1.0, 10.0, 100.0, 1000.0)  # of the largest fitted run's FLOPs


@dataclass(frozen=True)
class Facts:
    """What the runs do not say: whose law, of which logs, by which recipe.

    `corpus` has path, fingerprint, users, items, events, services, unit, once (units of one
    reading), queries and popularity, the loss of knowing that alone; `ladder` and `rates` are those
    of ladder.json and rates.json; `verified` is what `verify` wrote. `critical_batch` is None
    where it is unknown.
    """

    name: str
    objective: str
    corpus: Mapping[str, Any]
    ladder: Mapping[str, Any]
    rates: Mapping[str, Any]
    verified: Mapping[str, Any]
    critical_batch: float | None


def law_tree(folder: Path, facts: Facts) -> dict[str, Any]:
    """Return the tree, from FOLDER's runs.parquet, pretrain.yaml and, where it is, scores.json.

    Raises what a fit of the runs raises.
    """
    runs = read_runs(folder / "runs.parquet")
    laws = laws_of(fit_of(folder, decades_of(runs)), runs, LAWS)
    largest = largest_fitted(runs)
    tree: dict[str, Any] = {
        **vars(facts),
        "device": str(runs["device"][largest]),
        "commit": str(runs["commit"][largest]),
        "min_decades": decades_of(runs),
        "table": about(laws.runs),
        "least_loss": float(laws.runs["loss"].min()),
        "flags": table_flags(laws.runs),
        "laws": {name: described(name, laws) for name in laws.fits},
        "refused": dict(laws.refused),
        "worth": worth(laws) if "surface" in laws.fits else [],
        "flops_per_second": rate_of(runs, largest),
    }
    plans, why = plans_of(folder, tree, laws, float(runs["flops"][largest]))
    return plain({**tree, "plans": plans, "no_plan": why})


def decades_of(runs: Runs) -> float:
    """Return the decades of compute of the fitted runs, rounded down as a limit is."""
    return float(np.floor(100 * runs.take(runs["role"] == "fit").decades) / 100)


def largest_fitted(runs: Runs) -> int:
    """Return the row of the fitted run of most FLOPs."""
    return int(np.argmax(np.where(runs["role"] == "fit", runs["flops"], 0.0)))


def rate_of(runs: Runs, largest: int) -> float:
    """Return the FLOP/s of training, the median of the fitted runs of the largest run's width."""
    like = (runs["role"] == "fit") & (runs["width"] == runs["width"][largest])
    return float(np.median(runs["flops"][like] / runs["seconds"][like]))


def plans_of(
    folder: Path, tree: Mapping[str, Any], laws: Laws, largest: float
) -> tuple[list[Training], str]:
    """Return what to train for MULTIPLES of the largest run, up to what the log is worth.

    Or why the law plans nothing.
    """
    plans: list[Training] = []
    try:
        for multiple in MULTIPLES:
            plans.append(training_of(folder, tree, multiple * largest, laws=laws))
            if plans[-1].plan.budget < multiple * largest:
                break
    except ValueError as error:
        return [], str(error)
    return plans, ""
