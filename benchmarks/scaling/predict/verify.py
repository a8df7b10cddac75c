"""Command: a prediction beside the runs that it is of, and beside the trivial predictors.

    python -m benchmarks.scaling verify results/scaling/NAME/runs.parquet \\
        out=results/scaling/NAME/prediction.json

Takes the keys of `predict` and writes its OUT with `.verified` in the name. Errors are
predicted / observed - 1: above 0 where the loss came out lower than the law said. Of a run that was
trained at several rates the best one counts, as of those that were fitted. With `scores`, in which
`transfer` has put these runs too, it compares the predicted scores as well.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.json_files import hashed, read_prediction, write_json
from benchmarks.metrics.format import markdown
from benchmarks.scaling.fit.downstream_scores import read_scores
from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.law_summary import band as show_band
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.scaling.fit.selection import best_rates
from benchmarks.scaling.predict import task_scores
from benchmarks.scaling.predict.predict import PredictConfig, Target
from clue.config import run_command


def verify(config: PredictConfig) -> dict[str, Any]:
    """Return how the prediction compares with the runs in the table, written.

    ValueError for a run that is missing, was not decayed to its end, or was measured at another K
    or on other users, and for one without a score on a task that was predicted.
    """
    content = read_prediction(config.out)
    scores = read_scores(config.scores) if config.scores else {}
    runs = read_runs(config.fit.table)
    outcomes: list[dict[str, Any]] = []
    known: set[tuple[str, ...]] = set()
    for predicted in content["targets"]:
        target = Target(**{key: predicted[key] for key in Target.__dataclass_fields__})
        rows = runs.take(target.matches(runs))
        _refuse_other(rows, target, content["fit"]["table"])
        points = tuple(map(str, rows["point"]))
        if points in known:  # at one of its rates; own_rates.py has one row of all
            continue
        known.add(points)
        rows = best_rates(rows)  # as of what was fitted
        observed = float(rows["loss"].mean())
        band = Band(**predicted["predicted"])
        guesses = {content["law"]: band.value, **predicted["trivial"]}
        told = predicted.get("scores", {}) if config.scores else {}
        tasks = task_scores.outcome(told, scores, list(map(str, rows["point"])))
        outcomes.append(
            {
                "name": target.name,
                "runs": len(rows),
                "factor": predicted["factor"],
                "observed": observed,
                "predicted": band,
                "inside80": band.holds(observed, 80),
                "inside95": band.holds(observed, 95),
                "errors": {name: guess / observed - 1 for name, guess in guesses.items()},
                **({"tasks": tasks} if tasks else {}),
            }
        )
    tree = {"prediction": hashed(content), "made": content["made"], "targets": outcomes}
    return write_json(config.out.with_suffix(".verified.json"), tree)


def _refuse_other(rows: Runs, target: Target, made: Mapping[str, Any]) -> None:
    if not len(rows):
        raise ValueError(f"{target.name} is not in the table; train it, then verify")
    if not rows["annealed"].all():
        raise ValueError(f"{target.name} is un-annealed; train it to the end of its decay")
    for name in ("negatives", "eval_set"):
        other = rows[name][rows[name] != made[name]]
        if len(other):
            raise ValueError(
                f"{target.name} was measured at {name} {other[0]}, the prediction is of "
                f"{made[name]}; measure it there"
            )


def table(tree: Mapping[str, Any]) -> str:
    """Return the outcome of `verify` as Markdown."""
    names = list(tree["targets"][0]["errors"])
    head = ["run", "compute beyond the fit", "predicted, 95 %", "observed", "inside"]
    rows = [
        [
            one["name"],
            f"{one['factor']:.3g} x",
            show_band(one["predicted"], ".4f"),
            f"{one['observed']:.4f}",
            "80 %" if one["inside80"] else "95 %" if one["inside95"] else "no",
            *(f"{one['errors'][name]:+.2%}" for name in names),
        ]
        for one in tree["targets"]
    ]
    losses = markdown([*head, *(f"error, {name}" for name in names)], rows)
    return "\n\n".join(part for part in (losses, task_scores.table(tree["targets"])) if part)


def main(argv: Sequence[str]) -> None:
    """Read the command line, compare, print the table."""
    tree = run_command(PredictConfig, verify, argv, description=__doc__)
    sys.stdout.write(table(tree) + "\n")
