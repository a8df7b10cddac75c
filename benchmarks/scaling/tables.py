"""A study's part of the README, from the files that its commands wrote into its folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.scaling import check, transfer, verify
from benchmarks.scaling.report import band

SHOWN = {  # the figures that say most, of those that `fit` draws
    "synthetic": {"compute": "loss over compute, predicted and held out"},
    "next_item_ml1m": {"learning_curves": "loss over compute by size"},
    "multi8": {
        "factors": "loss over each factor alone",
        "scores": "scores of four tasks over the loss",
    },
}


def markdown(root: Path, name: str) -> str:
    """Gives, of what there is: the laws, the prediction, the plan, transfer, and the figures.

    FileNotFoundError where results/scaling/NAME holds none of these.
    """
    folder = root / "results" / "scaling" / name
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "fit.json": laws,
        "prediction.verified.json": prediction,
        "check.json": check.sentence,
        "tau.json": transfer.table,
    }
    there = {file: show for file, show in shown.items() if (folder / file).is_file()}
    if not there:
        raise FileNotFoundError(f"{folder} has none of {', '.join(shown)}; run the study first")
    parts = [
        show(json.loads((folder / file).read_text(encoding="utf-8")))
        for file, show in there.items()
    ]
    parts += [
        f"![{text}](results/scaling/{name}/figures/{figure}.svg)"
        for figure, text in SHOWN.get(name, {}).items()
    ]
    return "\n\n".join(parts)


def prediction(tree: Mapping[str, Any]) -> str:
    """Gives when it was made and hashed, and how it and the trivial predictors fared."""
    made, mark = tree["made"], tree["prediction"][:12]
    said = f"Predicted on {made[:10]} at {made[11:16]} UTC, before these runs (SHA-256 {mark})"
    return f"{said}; errors are predicted / observed - 1:\n\n{verify.table(tree)}"


def laws(tree: Mapping[str, Any]) -> str:
    """Gives what was fitted and each law: E, exponents and what the loss at the middle is."""
    about = tree["table"]
    least, most = about["flops"]
    lines = [
        f"{about['rows']} fitted runs of {about['trainings']} trainings, {about['sizes']} sizes, "
        f"{least:.2g} to {most:.2g} FLOPs ({about['decades']:.2f} decades), "
        f"K = {about['negatives']:,}.",
        "",
        "| law, with 95 % intervals | E | exponents | runs | residual sd |",
        "|" + " --- |" * 5,
    ]
    for name, law in tree["laws"].items():
        found = law["coefficients"]
        floor = band(found["E"]) if law["irreducible"] else "left out"
        powers = [f"{x} {band(found[x])}" for x in found if x.startswith(("a_", "r_"))]
        lines.append(
            f"| {name} | {floor} | {'; '.join(powers)} | {law['runs']} | {law['residual_sd']:.2%} |"
        )
    return "\n".join(lines)
