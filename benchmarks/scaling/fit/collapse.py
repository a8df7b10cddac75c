"""Command: whether all sizes learn alike, before a law of them is believed.

    python -m benchmarks.scaling collapse results/scaling/NAME/runs.parquet \\
        curves=results/scaling/NAME/curves.parquet out=results/scaling/NAME

Sizes of one recipe (pairs a parameter, shares of warm-up and decay, a rate that suits each) have
one learning curve, once the loss is taken over that at the end and the steps over all steps (Qiu
et al. 2025, arXiv 2507.02119; Bergsma et al. 2025, arXiv 2509.25087). A size whose curve leaves the
band of the seeds about the others is to be tuned anew, or left out, before anything is predicted.
Writes OUT/collapse.json.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks.json_files import write_json
from benchmarks.metrics.format import markdown
from benchmarks.scaling.fit.run_table import read_parquet, read_runs
from clue.config import run_command

SINCE = 0.3  # of the steps: before, a curve is of the start and the warm-up
SHARES = np.linspace(SINCE, 1, 8)[:-1]  # at which curves are compared; at 1 all are 1
FEWEST = 4  # measurements of a curve
LEVEL = 0.05  # of a false alarm, over all sizes and shares together
RECIPE = 1.1  # greatest ratio of pairs a parameter between two sizes of one recipe
MEDIAN = np.pi / 2  # variance of a median over that of a mean


@dataclass(frozen=True, kw_only=True)
class CollapseConfig:
    """The runs of role fit in `table`, and (point, steps, loss) along each of them."""

    table: Path
    curves: Path
    out: Path = Path("results/scaling")


def collapse(config: CollapseConfig) -> dict[str, Any]:
    """Return which sizes learn unlike the others, written.

    Of a size and seed the longest run counts. ValueError for curves of fewer than two sizes, or of
    no size with two seeds.
    """
    runs, curves = read_runs(config.table), read_parquet(config.curves, ("point", "steps", "loss"))
    lines: dict[str, list[tuple[float, float]]] = {}
    for line in curves.select(["point", "steps", "loss"]).to_pylist():
        lines.setdefault(line["point"], []).append((line["steps"], line["loss"]))
    rows = runs.take(runs["role"] == "fit")
    shapes = [f"{w}x{n}" for w, n in zip(rows["width"], rows["layers"], strict=True)]
    names = rows.columns.get("size", shapes)
    longest: dict[tuple[str, int], tuple[np.ndarray, float]] = {}
    for at in np.argsort(rows["steps"], kind="stable"):
        steps, losses = np.array(sorted(lines.get(str(rows["point"][at]), [(0, 1)]))).T
        if len(steps) >= FEWEST:
            curve = np.interp(SHARES, steps / steps[-1], np.log(losses / losses[-1]))
            pairs = float(rows["pairs"][at] / rows["params"][at])
            longest[str(names[at]), int(rows["seed"][at])] = curve, pairs
    sizes: dict[str, list[tuple[np.ndarray, float]]] = {}
    for (size, _), one in longest.items():
        sizes.setdefault(size, []).append(one)
    tree = judge(
        {size: np.array([curve for curve, _ in each]) for size, each in sizes.items()},
        {size: float(np.mean([pairs for _, pairs in each])) for size, each in sizes.items()},
    )
    return write_json(config.out / "collapse.json", tree)


def judge(curves: Mapping[str, np.ndarray], pairs: Mapping[str, float]) -> dict[str, Any]:
    """Return which sizes leave the band; curves (seeds, shares) are logs over those at the end.

    A size is compared with the median of all, in units of the error that the seeds give it.
    `pairs` a parameter say whether the recipe was one.
    """
    count = np.array([len(each) for each in curves.values()])
    freedom = int((count - 1).sum())
    if len(curves) < 2 or not freedom:
        raise ValueError(
            f"{len(curves)} sizes have a curve of {FEWEST} measurements, and {freedom} of them a "
            "second seed; a band needs two sizes and a second seed of one: raise validations, or "
            "add seeds"
        )
    means = np.array([each.mean(0) for each in curves.values()])
    square = sum(((each - each.mean(0)) ** 2).sum(0) for each in curves.values())
    sd = np.sqrt(square / freedom)
    off = means - np.median(means, axis=0)
    shared = MEDIAN * float((1 / count).mean()) / len(count)
    units = np.abs(off) / (sd * np.sqrt(1 / count + shared)[:, None])
    limit = float(student.ppf(1 - LEVEL / 2 / units.size, freedom))
    ratio = max(pairs.values()) / min(pairs.values())
    sizes = [
        {
            "size": size,
            "seeds": int(seeds),
            "pairs_a_parameter": pairs[size],
            "off": float(each_off[worst]),
            "at": float(SHARES[worst]),
            "units": float(each[worst]),
            "inside": bool(each[worst] <= limit),
        }
        for size, seeds, each_off, each in zip(curves, count, off, units, strict=True)
        for worst in [int(each.argmax())]
    ]
    collapses, one_recipe = all(one["inside"] for one in sizes), ratio <= RECIPE
    return {
        "passes": collapses and one_recipe,
        "collapses": collapses,
        "one_recipe": one_recipe,
        "pairs_ratio": ratio,
        "limit": limit,
        "freedom": freedom,
        "sizes": sizes,
    }


def table(tree: Mapping[str, Any]) -> str:
    """Return the outcome as Markdown."""
    outside = [one["size"] for one in tree["sizes"] if not one["inside"]]
    said = "All sizes learn alike" if not outside else f"{', '.join(outside)} learn unlike the rest"
    limit = f"limit {tree['limit']:.3g}, of {tree['freedom']} degrees of freedom of the seeds"
    recipe = f"pairs a parameter differ by {tree['pairs_ratio']:.3g} x between sizes"
    recipe += "" if tree["one_recipe"] else f", more than the {RECIPE:g} x of one recipe"
    head = ("size", "seeds", "pairs a parameter", "farthest off", "at", "of the seeds' error")
    rows = [
        [
            one["size"],
            one["seeds"],
            f"{one['pairs_a_parameter']:.3g}",
            f"{np.expm1(one['off']):+.2%}",
            f"{one['at']:.0%} of the steps",
            f"{one['units']:.2f}{'' if one['inside'] else ', outside'}",
        ]
        for one in tree["sizes"]
    ]
    return f"{said} ({limit}); {recipe}.\n\n{markdown(head, rows)}"


def main(argv: Sequence[str]) -> None:
    """Read the command line, compare, print the table."""
    sys.stdout.write(table(run_command(CollapseConfig, collapse, argv, description=__doc__)) + "\n")
