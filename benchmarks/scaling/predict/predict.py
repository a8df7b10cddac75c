"""Command: a prediction of runs that are not there yet, written once and hashed.

    python -m benchmarks.scaling predict results/scaling/NAME/runs.parquet \\
        sweep=configs/sweep/NAME.yaml out=results/scaling/NAME/prediction.json

Writes OUT with the SHA-256 of its content: commit it before the runs are trained. It refuses where
one of them is in the table, or where OUT holds another prediction. What became of it: verify.py.
A sweep trains its held-out points only once OUT, in its folder and of this name, predicts them.
With `scores`, what `transfer` wrote of the runs that are there, it says what each target will score
on each task: the expected score at every loss that the law may give it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.json_files import hashed, plain, read_prediction, write_json
from benchmarks.scaling.fit.downstream_scores import Form
from benchmarks.scaling.fit.law_intervals import Bootstrap
from benchmarks.scaling.fit.law_summary import about, band, described, table_flags
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.scaling.fit.selection import largest
from benchmarks.scaling.fit.study import FitConfig, laws_of
from benchmarks.scaling.predict import task_scores
from benchmarks.scaling.sweep.sweep_config import SweepConfig
from clue.config import load, run_command

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

    def matches(self, runs: Runs) -> np.ndarray:
        """Return of each row (n,) whether it is the target: by its name, or by size and data."""
        near = [
            np.abs(runs[key] / getattr(self, key) - 1) <= SAME
            for key in ("params", "pairs", "flops")
        ]
        return (runs["point"] == self.name) | np.all(near, axis=0)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is predicted by which law, chosen before the runs are there.

    `fit` says what is fitted and how. The law "surface" takes size and data, "compute" the FLOPs
    of runs of the best size, "params" the parameters where all else is held. `sweep` is the config
    of a study: its held-out points are targets. `scores` is a Parquet or JSON of (point, loss,
    task, score), none of a target.
    """

    fit: FitConfig
    law: Literal["surface", "compute", "params"] = "surface"
    targets: list[Target] = field(default_factory=list[Target])
    sweep: Path | None = None
    scores: Path | None = None
    score_law: Form = "logit"
    out: Path = Path("results/scaling/prediction.json")


def predict(config: PredictConfig) -> dict[str, Any]:
    """Return the tree of the prediction, written.

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
        rows = np.flatnonzero(target.matches(runs))
        if len(rows):
            raise ValueError(
                f"{target.name} is in {config.fit.table} already, as {runs['point'][rows[0]]} of "
                f"loss {runs['loss'][rows[0]]:.4g}: a prediction is made before the run; take "
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
    return write_json(config.out, {"sha256": hashed(content), "content": content})


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


def _content(config: PredictConfig, runs: Runs) -> dict[str, Any]:
    pure = f"{config.law}, E = 0"
    laws = laws_of(config.fit, runs, (config.law, pure))
    law, rows = laws[config.law], laws.rows[config.law]
    most, last = float(rows["flops"].max()), largest(rows["flops"], rows["loss"])
    x = factors(config, law.fit.law.factors)
    if config.law == "params":
        _refuse_other_data(config.targets, rows)
    scales = np.ones(len(x))
    if laws.noise.falls:
        scales = laws.scales(config.law, factors(config, (config.fit.size,))[:, 0])
    bands, trivials = law.predict(x, scales, seed=config.fit.seed), laws[pure].fit.loss(x)
    scores = _scores(config, rows, law, x, scales)
    # the table is known by its content, not by its path
    choices = {name: x for name, x in vars(config.fit).items() if not isinstance(x, Path)}
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "law": config.law,
        "fit": {**choices, "table": about(laws.runs)},
        "described": described(config.law, laws),
        "flags": table_flags(laws.runs),
        "targets": [
            {
                **vars(target),
                "factor": target.flops / most,
                "predicted": band,
                "trivial": {"pure power law": trivial, "largest fitted run": last},
                **({"scores": scores[target.name]} if scores else {}),
            }
            for target, band, trivial in zip(config.targets, bands, trivials, strict=True)
        ],
    }


def _scores(
    config: PredictConfig, rows: Runs, law: Bootstrap, x: np.ndarray, scales: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Return what the targets are to score by name and task, {} without a file of scores."""
    if not config.scores:
        return {}
    seed = config.fit.seed
    losses = np.vstack([law.fit.loss(x), law.predictive(x, scales, seed=seed)]).T
    named = {target.name: each for target, each in zip(config.targets, losses, strict=True)}
    return task_scores.predicted(config.scores, rows, named, config.score_law, seed=seed)


def _refuse_other_data(targets: Sequence[Target], rows: Runs) -> None:
    """Raise ValueError for a target that learns from more or fewer pairs than the law's runs."""
    pairs = float(rows["pairs"].mean())
    for target in targets:
        if abs(target.pairs / pairs - 1) > SAME:
            raise ValueError(
                f"target {target.name} learns from {target.pairs:,.0f} pairs, the runs of the law "
                f"params from {pairs:,.0f}; give targets of as many, or take law=surface"
            )


def factors(config: PredictConfig, names: Sequence[str]) -> np.ndarray:
    """Return the targets' factors (m, k); ValueError for one that a target does not name."""
    for target in config.targets:
        for name in names:
            if getattr(target, name) <= 0:
                raise ValueError(
                    f"target {target.name} has no {name}; the law {config.law} needs it"
                )
    return np.array([[float(getattr(each, name)) for name in names] for each in config.targets])


def report(config: PredictConfig) -> str:
    """Return what was predicted as lines to read, the prediction written."""
    tree = predict(config)
    lines: list[str] = []
    for one in tree["content"]["targets"]:
        loss = band(one["predicted"], ".4f")
        lines.append(f"{one['name']}: {loss}, {one['factor']:.3g} x the compute of the fit\n")
        for task, score in one.get("scores", {}).items():
            lines.append(f"    {task}: {band(score['predicted'], '.4f')}\n")
    end = f"{config.out}: sha256 {tree['sha256']}\ncommit it before these runs start\n"
    return "".join([*lines, end])


def main(argv: Sequence[str]) -> None:
    """Read the command line, write the prediction, print it."""
    sys.stdout.write(run_command(PredictConfig, report, argv, description=__doc__))
