"""Command: a prediction of runs that are not there yet, written once and hashed.

    python -m benchmarks.scaling predict results/scaling/NAME/runs.parquet \\
        sweep=configs/sweep/NAME.yaml out=results/scaling/NAME/prediction.json

Writes OUT with the SHA-256 of its content: commit it before the runs are trained. It refuses where
one of them is in the table, or where OUT holds another prediction. What became of it: verify.py.
A sweep trains its held-out points only once OUT, in its folder and of this name, predicts them.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.scaling.fit.law_summary import (
    about,
    described,
    plain,
    table_flags,
)
from benchmarks.scaling.fit.law_summary import band as show_band
from benchmarks.scaling.fit.prediction_file import hashed, read_prediction
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.scaling.fit.selection import largest
from benchmarks.scaling.fit.study import FitConfig, laws_of
from benchmarks.scaling.sweep.sweep_config import SweepConfig
from clue.config import load, read_command_line

SAME = 0.01  # relative difference of size and data up to which a run is the target


@dataclass(frozen=True, kw_only=True)
class Target:
    """A run to be: its directory's name, all its FLOPs, its parameters and pairs."""

    name: str
    flops: float
    params: float
    params_hidden: float = 0.0
    pairs: float
    users: float = 0.0
    events: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is predicted by which law, chosen before the runs are there.

    `fit` says what is fitted and how. The law "surface" takes size and data, "compute" the FLOPs
    of runs of the best size. `sweep` is the config of a study: its held-out points are targets.
    """

    fit: FitConfig
    law: Literal["surface", "compute"] = "surface"
    targets: list[Target] = field(default_factory=list[Target])
    sweep: Path | None = None
    out: Path = Path("results/scaling/prediction.json")


def predict(config: PredictConfig) -> dict[str, Any]:
    """Writes the prediction and gives its tree.

    ValueError without targets, for a target that was trained already, and for another prediction in
    OUT. The same prediction made again changes nothing.
    """
    if config.sweep:
        config = replace(config, targets=[*config.targets, *held_out(config.sweep)])
    if not config.targets:
        raise ValueError(
            "targets is empty; name the study whose held-out points are predicted, sweep=FILE, or "
            "the runs to be: targets=[{name: ..., flops: ...}]"
        )
    runs = read_runs(config.fit.table)
    for target in config.targets:
        there = np.flatnonzero(matching(runs, target))
        if len(there):
            raise ValueError(
                f"{target.name} is in {config.fit.table} already, as {runs['point'][there[0]]} of "
                f"loss {runs['loss'][there[0]]:.4g}: a prediction is made before the run; take "
                "targets that are not trained"
            )
    content = plain(_content(config, runs))
    if config.out.is_file():
        old = read_prediction(config.out)
        if {**old, "made": ""} == {**content, "made": ""}:
            return {"sha256": hashed(old), "content": old}
        raise ValueError(
            f"{config.out} holds another prediction, made {old['made']}; a prediction is not "
            "written over: name another file, out=..."
        )
    tree = {"sha256": hashed(content), "content": content}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return tree


def held_out(sweep: Path) -> list[Target]:
    """Return the held-out points of a study's config; raises what laying it out raises."""
    from benchmarks.scaling.sweep.grid import lay_out

    return [
        Target(
            name=point.name,
            flops=point.flops,
            params=point.facts.params,
            params_hidden=point.facts.params_hidden,
            pairs=point.run.batch * point.run.steps,
            users=point.facts.users,
            events=point.facts.events,
        )
        for point in lay_out(load(SweepConfig, sweep))
        if point.role == "held_out"
    ]


def matching(runs: Runs, target: Target) -> np.ndarray:
    """Says of each row (n,) whether it is the target: by its name, or by its size and data."""
    size = np.abs(runs["params"] / target.params - 1) <= SAME
    data = np.abs(runs["pairs"] / target.pairs - 1) <= SAME
    compute = np.abs(runs["flops"] / target.flops - 1) <= SAME
    return (runs["point"] == target.name) | (size & data & compute)


def _content(config: PredictConfig, runs: Runs) -> dict[str, Any]:
    simple = f"{config.law}, E = 0"
    laws = laws_of(config.fit, runs, (config.law, simple))
    if config.law not in laws.found:
        raise ValueError(f"no law {config.law}: {laws.refused[config.law]}")
    found, pure = laws.found[config.law], laws.found[simple]
    rows = laws.rows[config.law]
    most, last = float(rows["flops"].max()), largest(rows["flops"], rows["loss"])
    x = factors(config, found.fit.law.factors)
    bands, trivials = found.predict(x, seed=config.fit.seed), pure.fit.loss(x).tolist()
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "law": config.law,
        "fit": {**_without_paths(config.fit), "table": about(laws.runs)},
        "described": described(config.law, laws),
        "flags": table_flags(laws.runs),
        "targets": [
            {
                **asdict(target),
                "factor": target.flops / most,
                "predicted": band.as_tree(),
                "trivial": {"pure power law": trivial, "largest fitted run": last},
            }
            for target, band, trivial in zip(config.targets, bands, trivials, strict=True)
        ],
    }


def _without_paths(config: FitConfig) -> dict[str, Any]:
    """Return what decides a fit: the table is told by its content, not by its path."""
    return {name: x for name, x in asdict(config).items() if not isinstance(x, Path)}


def factors(config: PredictConfig, names: Sequence[str]) -> np.ndarray:
    """Return the targets' factors (m, k); ValueError for one that a target does not name."""
    rows: list[list[float]] = []
    for target in config.targets:
        row = [float(getattr(target, name)) for name in names]
        if min(row) <= 0:
            missing = names[int(np.argmin(row))]
            raise ValueError(
                f"target {target.name} has no {missing}; the law {config.law} needs it"
            )
        rows.append(row)
    return np.array(rows)


def main(argv: Sequence[str]) -> None:
    """Reads the command line, writes the prediction, prints it."""
    config = read_command_line(PredictConfig, argv, description=__doc__ or "")
    tree = predict(config)
    for one in tree["content"]["targets"]:
        sys.stdout.write(
            f"{one['name']}: {show_band(one['predicted'], '.4f')}, "
            f"{one['factor']:.3g} x the compute of the fit\n"
        )
    sys.stdout.write(f"{config.out}: sha256 {tree['sha256']}\ncommit it before these runs start\n")
