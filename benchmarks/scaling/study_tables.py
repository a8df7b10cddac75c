"""A study's part of the README, from the files that its commands wrote into its folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics.format import markdown as table
from benchmarks.scaling.fit import collapse, rate_curves
from benchmarks.scaling.fit.figures import LABELS
from benchmarks.scaling.fit.law_summary import HEAD, cells
from benchmarks.scaling.fit.run_table import Runs, read_runs
from benchmarks.scaling.fit.selection import HELD, one_factor
from benchmarks.scaling.predict import check_plan, downstream, verify

FACTORS = 3
SHOWN = {  # the figures that say most, of those that `fit` draws
    "synthetic": {"compute": "loss over compute: the compute law, runs fitted and held out"},
    "synthetic_bag": {"compute": "loss over compute with a bag: the law, runs fitted and held out"},
    "next_item_ml1m": {"compute": "loss over compute: the compute law, runs fitted and held out"},
    "ladder_next_item_ml1m": {"compute": "loss over compute at equal data, predicted and run"},
    "ladder_next_item_topics": {"compute": "the same on synthetic ids"},
    "ladder_next_item_topics_long": {"compute": "the same, longer, to width 96"},
    "ladder_widths": {
        "compute": "the encoder's loss over compute at equal data, predicted and run",
        "scores": "scores of five tasks in another world over the loss",
    },
    "multi8": {
        "factors": "loss over each factor alone, with the law of each",
        "scores": "scores of four tasks over the loss",
    },
}


def markdown(root: Path, name: str) -> str:
    """Return, of what there is: laws, predictions, plan, transfer, rates that were tried, figures.

    FileNotFoundError where results/scaling/NAME holds none of these.
    """
    folder = root / "results" / "scaling" / name
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "fit.json": laws,
        "collapse.json": collapse.table,
        "prediction.verified.json": prediction,
        "prediction_compute.verified.json": prediction,
        "check.json": check_plan.sentence,
        "tau.json": downstream.table,
        "gate.json": rate_curves.table,
    }
    parts = [
        show(json.loads((folder / file).read_text(encoding="utf-8")))
        for file, show in shown.items()
        if (folder / file).is_file()
    ]
    if (folder / "runs.parquet").is_file():
        runs = read_runs(folder / "runs.parquet")
        varied = factors(runs)  # which have their seeds' errors already
        parts[1:1] = [varied]
        parts += [rates(runs), "" if varied else seeds(runs), spent(runs)]
    if not parts:
        raise FileNotFoundError(f"{folder} has no runs and no {', '.join(shown)}; run the study")
    parts += [
        f"![{text}](results/scaling/{name}/figures/{figure}.svg)"
        for figure, text in SHOWN.get(name, {}).items()
    ]
    return "\n\n".join(part for part in parts if part)


def laws(tree: Mapping[str, Any]) -> str:
    """Return what was fitted and each law: E, exponents, and which of them mean nothing."""
    about = tree["table"]
    least, most = about["flops"]
    first = next(iter(tree["laws"].values()))
    noise, falls = first["seed_sd"], first.get("seed_falls")
    seeds = f"seeds differ by {noise:.1%} (sd)" if noise else "the noise of a seed is unknown"
    seeds += f", as N to the power -{falls:.2f}, and runs weigh by it" if falls else ""
    return (
        f"{about['rows']} fitted runs of {about['trainings']} trainings, {about['sizes']} sizes, "
        f"{least:.2g} to {most:.2g} FLOPs ({about['decades']:.2f} decades), "
        f"K = {about['negatives']:,}; {seeds}. A star marks what the runs do not identify: on its "
        "bound, or with an interval that spans a factor of two.\n\n"
    ) + table(
        ("law, with 95 % intervals", *HEAD),
        [[name, *cells(law)] for name, law in tree["laws"].items()],
    )


def prediction(tree: Mapping[str, Any]) -> str:
    """Return when it was made and hashed, and how it and the trivial predictors fared."""
    made, mark = tree["made"], tree["prediction"][:12]
    when = f"Predicted on {made[:10]} at {made[11:16]} UTC, before these runs (SHA-256 {mark})"
    return f"{when}; errors are predicted / observed - 1:\n\n{verify.table(tree)}"


def spent(runs: Runs) -> str:
    """Return how long the trainings took; a run that branched off a trunk shares most of its."""
    longest = [runs["seconds"][runs.clusters == one].max() for one in np.unique(runs.clusters)]
    return (
        f"Training took {sum(longest) / 60:.0f} minutes of one processor thread beside other work, "
        "starts and branches not counted."
    )


def factors(runs: Runs) -> str:
    """Return what each factor alone does to the loss from its least to its greatest value.

    Of several seeds it is their mean and its standard error. "" for a study that varies fewer than
    FACTORS of them alone.
    """
    fitted = runs.take(runs["role"] == "fit")
    varied = [factor for factor in HELD if len(np.unique(fitted[factor])) > 2]
    if len(varied) < FACTORS:
        return ""
    lines: list[tuple[str, str, str]] = []
    for factor in varied:
        rows = one_factor(fitted, factor)
        values = np.unique(rows[factor])
        each = [_mean(rows["loss"][rows[factor] == value]) for value in values]
        names = ", ".join(f"{value:,}" for value in values)
        lines.append((LABELS[factor], names, ", ".join(each)))
    return table(("factor, the rest held", "values", "loss at each"), lines)


def _mean(losses: np.ndarray) -> str:
    """Return the mean of the losses (n,) of seeds, with its standard error where n > 1."""
    spread = losses.std(ddof=1) / np.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return f"{losses.mean():.3f}" + (f" ± {spread:.3f}" if spread else "")


def _tried(runs: Runs) -> dict[tuple[Any, ...], dict[float, list[float]]]:
    """Return the losses of each size and length (the key's first and last) by learning rate."""
    names = [str(point).split("-")[0] for point in runs["point"]]
    rest = (runs[name].tolist() for name in ("users", "batch", "max_events", "steps"))
    tried: dict[tuple[Any, ...], dict[float, list[float]]] = {}
    for *key, rate, loss in zip(names, *rest, runs["lr"], runs["loss"], strict=True):
        tried.setdefault(tuple(key), {}).setdefault(float(rate), []).append(float(loss))
    return dict(sorted(tried.items()))


def seeds(runs: Runs) -> str:
    """Return mean and noise of what was trained with several seeds at one rate, "" without."""
    lines: list[list[str]] = []
    for (name, *_, steps), losses in _tried(runs).items():
        each = np.array(next(iter(losses.values())))
        if len(losses) == 1 and len(each) > 1:
            sd = float(np.log(each).std(ddof=1))
            error = f"{sd / np.sqrt(len(each)):.2%}"
            cells = [str(len(each)), f"{each.mean():.4f}", f"{sd:.2%}", error]
            lines.append([f"{name}, {steps:,} steps", *cells])
    return (
        table(("size", "seeds", "mean loss", "sd of a seed", "of the mean"), lines) if lines else ""
    )


def rates(runs: Runs) -> str:
    """Return the losses of what was trained at several rates, "" where nothing was.

    A row is a size and a length; seeds are averaged.
    """
    several = {key: losses for key, losses in _tried(runs).items() if len(losses) > 1}
    if not several:
        return ""
    columns = sorted({rate for losses in several.values() for rate in losses})
    lines = [
        [
            f"{name}, {steps:,} steps",
            *(f"{np.mean(losses[rate]):.3f}" if rate in losses else "" for rate in columns),
        ]
        for (name, *_, steps), losses in several.items()
    ]
    return table(("loss by learning rate", *(f"{rate:.2g}" for rate in columns)), lines)
