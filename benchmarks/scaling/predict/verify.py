"""Command: a prediction beside the runs that it is of, and beside the trivial predictors.

    python -m benchmarks.scaling verify results/scaling/NAME/runs.parquet \\
        out=results/scaling/NAME/prediction.json

Takes the keys of `predict` and writes its OUT with `.verified` in the name. Errors are
predicted / observed - 1: above 0 where the loss came out lower than the law said.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.scaling.fit.law_intervals import Band
from benchmarks.scaling.fit.law_summary import band as show_band
from benchmarks.scaling.fit.law_summary import plain
from benchmarks.scaling.fit.prediction_file import hashed, read_prediction
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.scaling.predict.predict import (
    PredictConfig,
    Target,
    matching,
)
from clue.config import read_command_line


def verify(config: PredictConfig) -> dict[str, Any]:
    """Compares the prediction with the runs in the table, writes the outcome and gives its tree.

    ValueError for a run that is missing, was not decayed to its end, or was measured at another K
    or on other users.
    """
    content = read_prediction(config.out)
    runs = read_runs(config.fit.table)
    made = content["fit"]["table"]
    outcomes: list[dict[str, Any]] = []
    for told in content["targets"]:
        target = Target(**{key: told[key] for key in Target.__dataclass_fields__})
        mine = runs.take(matching(runs, target))
        _refuse_other(mine, target, made)
        observed = float(mine["loss"].mean())
        band = Band(**told["predicted"])
        guesses = {content["law"]: band.value, **told["trivial"]}
        outcomes.append(
            {
                "name": target.name,
                "runs": len(mine),
                "factor": told["factor"],
                "observed": observed,
                "predicted": told["predicted"],
                "inside80": band.holds(observed, 80),
                "inside95": band.holds(observed, 95),
                "errors": {name: guess / observed - 1 for name, guess in guesses.items()},
            }
        )
    tree = {"prediction": hashed(content), "made": content["made"], "targets": outcomes}
    out = config.out.with_suffix(".verified.json")
    out.write_text(json.dumps(plain(tree), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return tree


def _refuse_other(mine: Runs, target: Target, made: Mapping[str, Any]) -> None:
    if not len(mine):
        raise ValueError(f"{target.name} is not in the table; train it, then verify")
    if not mine["annealed"].all():
        raise ValueError(f"{target.name} is un-annealed; train it to the end of its decay")
    for name in ("negatives", "eval_set"):
        other = mine[name] != made[name]
        if other.any():
            raise ValueError(
                f"{target.name} was measured at {name} {mine[name][other][0]}, the prediction is "
                f"of {made[name]}; measure it there"
            )


def table(tree: Mapping[str, Any]) -> str:
    """Return the outcome of `verify` as Markdown."""
    names = list(tree["targets"][0]["errors"])
    head = ["run", "compute beyond the fit", "predicted, 95 %", "observed", "inside"]
    lines = [[*head, *(f"error, {name}" for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for one in tree["targets"]:
        inside = "80 %" if one["inside80"] else "95 %" if one["inside95"] else "no"
        lines.append(
            [
                one["name"],
                f"{one['factor']:.3g} x",
                show_band(one["predicted"], ".4f"),
                f"{one['observed']:.4f}",
                inside,
                *(f"{one['errors'][name]:+.2%}" for name in names),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str]) -> None:
    """Reads the command line, compares, prints the table."""
    config = read_command_line(PredictConfig, argv, description=__doc__ or "")
    sys.stdout.write(table(verify(config)) + "\n")
