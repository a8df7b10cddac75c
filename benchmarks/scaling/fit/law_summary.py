"""Command: every law of a table of runs, with intervals, what speaks against it, and the figures.

    python -m benchmarks.scaling fit results/scaling/NAME/runs.parquet out=results/scaling/NAME

Writes OUT/fit.json and OUT/figures. What the table may not hold is refused by name: runs.py.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics.format import zero_width
from benchmarks.scaling.fit import figures
from benchmarks.scaling.fit.isoflop import Cost, optima, parabolas, power
from benchmarks.scaling.fit.law_intervals import summary
from benchmarks.scaling.fit.run_table import DAY, Runs, digest, read_runs
from benchmarks.scaling.fit.selection import edge_rates, main_grid, noise
from benchmarks.scaling.fit.sensitivity import choices, ladder
from benchmarks.scaling.fit.study import FitConfig, Laws, laws_of
from clue.config import read_command_line

FORMAT = 1
EPOCHS = 4.0  # readings of a pair above which one is worth clearly less (Muennighoff et al. 2023)


def described(name: str, laws: Laws) -> dict[str, Any]:
    """Return a law as JSON can hold it, with what speaks against it."""
    found, sample = laws.found[name], laws.sample(name)
    fitted = found.fit
    sd, freedom = noise(laws.runs)
    flags = [*fitted.flags]
    if freedom and fitted.spread > 2 * sd:
        flags.append(
            f"residuals spread {fitted.spread:.3%}, seeds {sd:.3%}: the form is not the truth here"
        )
    bands = found.coefficients()
    flat = [name for name, one in bands.items() if zero_width(one.value, one.low95, one.high95)]
    if flat:
        flags.append(
            f"the interval of {', '.join(flat)} has zero width: {len(sample)} runs for "
            f"{len(fitted.theta)} parameters do not show a spread; it is no certainty"
        )
    for coefficient, band in bands.items():
        if coefficient.startswith(("a_", "r_")) and band.high95 > 2 * max(band.low95, 1e-9):
            flags.append(
                f"{coefficient} lies anywhere in {band.low95:.2g} to {band.high95:.2g}: not "
                "identified"
            )
    middle = np.exp(np.log(sample.x).mean(0))[None]
    return {
        "form": type(fitted.law).__name__,
        "factors": list(fitted.law.factors),
        "irreducible": "E" in fitted.law.names,
        "runs": len(sample),
        "trainings": len(np.unique(sample.clusters)),
        "coefficients": summary(bands),
        "reference": {
            "at": dict(zip(fitted.law.factors, middle[0].tolist(), strict=True)),
            "loss": found.curve(middle)[0].as_tree(),
        },
        "objective": fitted.objective,
        "starts": fitted.starts,
        "agreeing": fitted.agreeing,
        "condition": fitted.condition,
        "on_bounds": list(fitted.on_bounds),
        "residual_sd": fitted.spread,
        "seed_sd": sd if freedom else None,
        "flags": flags,
    }


def about(runs: Runs) -> dict[str, Any]:
    """Return what was fitted: whose loss, how many runs, over how much compute."""
    flops = runs["flops"]
    return {
        "studies": sorted({str(x) for x in runs["study"]}),
        "objective": str(runs["objective"][0]),
        "negatives": int(runs["negatives"][0]),
        "eval_set": str(runs["eval_set"][0]),
        "rows": len(runs),
        "trainings": len(np.unique(runs.clusters)),
        "sizes": len(np.unique(runs["params"])),
        "flops": [float(flops.min()), float(flops.max())],
        "pf_days": [float(flops.min() / DAY), float(flops.max() / DAY)],
        "decades": runs.decades,
        "sha256": digest(runs),
    }


def table_flags(runs: Runs) -> list[str]:
    """Says what in the table weakens every law."""
    found: list[str] = []
    if not noise(runs)[1]:
        found.append("no configuration was trained with two seeds: the noise of a seed is unknown")
    edges = edge_rates(runs)
    if edges:
        found.append(
            f"the best learning rate of {edges} configurations is at the edge of those tried; try "
            "beyond it"
        )
    read = runs["epochs"] > EPOCHS
    if read.any():
        found.append(
            f"{read.sum()} runs read their data {runs['epochs'].max():.3g} times, more than "
            f"{EPOCHS:g}: take the law of repeated data for them"
        )
    if len(runs) < 10:
        found.append(f"{len(runs)} runs; with fewer than 10 an exponent is not identified")
    return found


def isoflops(config: FitConfig, laws: Laws) -> dict[str, Any]:
    """Return the parabolas of the budgets, and the optimum over compute of the surface."""
    grid = main_grid(laws.runs)
    found = parabolas(grid, config.size)
    kept = [one for one in found if one.kept]
    tree: dict[str, Any] = {
        "parabolas": [{**asdict(one), "polynomial": one.polynomial.tolist()} for one in found],
        "exponent": None,
    }
    if len(kept) >= 2:
        flops = np.array([one.flops for one in kept])
        tree["exponent"] = power(flops, np.array([one.size for one in kept]))[1]
    surface = laws.found.get("surface")
    if not surface:
        return {"isoflop": tree}
    size, data = laws.sample("surface").x.T
    flops = laws.rows["surface"]["flops"]
    cost = Cost.of(flops, size, data)
    # as far as the ladder may be believed, a decade above the runs
    over = np.geomspace(flops.min(), 10 * flops.max(), 13)
    best = optima(surface, cost, over)
    return {
        "isoflop": tree,
        "cost": asdict(cost),
        "optimum": {
            "flops": over.tolist(),
            "exponent": best.exponent.as_tree(),
            **{
                name: [band.as_tree() for band in bands]
                for name, bands in (("size", best.size), ("data", best.data), ("loss", best.loss))
            },
        },
    }


def study(config: FitConfig) -> dict[str, Any]:
    """Fits everything, writes OUT/fit.json and the figures, gives the tree of the JSON."""
    runs = read_runs(config.table)
    laws = laws_of(config, runs)
    both = [name for name in ("surface", "compute") if name in laws.found]
    tree: dict[str, Any] = {
        "format": FORMAT,
        "config": asdict(config),
        "table": about(laws.runs),
        "flags": table_flags(laws.runs),
        "laws": {name: described(name, laws) for name in laws.found},
        "refused": dict(laws.refused),
        "ladder": {
            name: [asdict(rung) for rung in ladder(laws.sample(name), most=config.few)]
            for name in both
        },
        "sensitivity": {},
        **isoflops(config, laws),
    }
    for name in both:
        sample, found = laws.sample(name), laws.found[name].fit
        # compared at the most expensive run, where a choice matters most
        reference = sample.x[[int(np.argmax(sample.flops))]]
        made = choices(laws.rows[name], sample.factors, found, reference, most=config.few)
        tree["sensitivity"][name] = [asdict(one) for one in made]
    tree = plain(tree)
    if config.figures:
        tree["not_drawn"] = figures.draw(config, runs, laws, tree)
    config.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tree, indent=1, allow_nan=False)
    (config.out / "fit.json").write_text(text + "\n", encoding="utf-8")
    return tree


def plain(value: Any) -> Any:
    """Return a tree as JSON can hold it: arrays as lists, paths as text, NaN and infinity null."""
    match value:
        case dict():
            tree: dict[Any, Any] = value
            return {str(key): plain(below) for key, below in tree.items()}
        case list() | tuple():
            items: Sequence[Any] = value
            return [plain(below) for below in items]
        case np.ndarray():
            return plain(value.tolist())
        case Path():
            return str(value)
        case float():
            return value if np.isfinite(value) else None
        case _:
            return value


def text(tree: Mapping[str, Any]) -> str:
    """Return the study as Markdown: a line for each law, then flags, refusals and the ladder."""
    table = tree["table"]
    lines = [
        f"{table['rows']} runs of {table['trainings']} trainings, {table['sizes']} sizes, "
        f"{table['decades']:.2f} decades of compute, K = {table['negatives']:,}",
        "",
        "| law | E | exponents | runs | starts agree | residual sd |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, law in tree["laws"].items():
        found = law["coefficients"]
        powers = [f"{x} {band(found[x])}" for x in found if x.startswith(("a_", "r_"))]
        floor = band(found["E"]) if law["irreducible"] else "left out"
        lines.append(
            f"| {name} | {floor} | {'; '.join(powers)} | {law['runs']} | {law['agreeing']:.0%} | "
            f"{law['residual_sd']:.2%} |"
        )
    flags = [
        *tree["flags"],
        *(f"{n}: {x}" for n, law in tree["laws"].items() for x in law["flags"]),
    ]
    lines += ["", *(f"- {x}" for x in flags)]
    lines += [f"- no law of {name}: {why}" for name, why in tree["refused"].items()]
    lines += [f"- no figure of {x}: {why}" for x, why in tree.get("not_drawn", {}).items()]
    for name, rungs in tree["ladder"].items():
        errors = [[abs(rung[key]) for rung in rungs] for key in ("error", "pure", "last")]
        if rungs:
            law, pure, last = (float(np.median(each)) for each in errors)
            lines.append(
                f"- ladder of {name}: {len(rungs)} extrapolations up to "
                f"{max(rung['factor'] for rung in rungs):.3g} x compute, median error {law:.2%} "
                f"(pure power law {pure:.2%}, largest run so far {last:.2%})"
            )
    return "\n".join(lines)


def band(found: Mapping[str, Any], digits: str = ".4g") -> str:
    """Return a value with its interval of 95 % as text, which says so where that has no width."""
    value, low, high = (found[name] for name in ("value", "low95", "high95"))
    if low is None or high is None:
        return f"{value:{digits}}"
    return f"{value:{digits}} [{low:{digits}} {high:{digits}}]{zero_width(value, low, high)}"


def main(argv: Sequence[str]) -> None:
    """Reads the command line, fits, prints the report."""
    config = read_command_line(FitConfig, argv, description=__doc__ or "")
    sys.stdout.write(text(study(config)) + "\n")
