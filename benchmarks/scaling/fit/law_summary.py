"""Command: every law of a table of runs, with intervals, what speaks against it, and the figures.

    python -m benchmarks.scaling fit results/scaling/NAME/runs.parquet out=results/scaling/NAME

Writes OUT/fit.json and OUT/figures. What the table may not hold is refused by name: run_table.py.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.json_files import plain, write_json
from benchmarks.metrics.format import markdown, zero_width
from benchmarks.scaling.fit import figures
from benchmarks.scaling.fit.isoflop import Cost, optima, parabolas, power
from benchmarks.scaling.fit.run_table import DAY, Runs, digest, read_runs
from benchmarks.scaling.fit.seed_noise import seed_noise
from benchmarks.scaling.fit.selection import edge_rates, main_grid
from benchmarks.scaling.fit.sensitivity import choices, ladder
from benchmarks.scaling.fit.study import FitConfig, Laws, laws_of
from clue.config import run_command

FORMAT = 1
EPOCHS = 4.0  # readings of a pair above which one is worth clearly less (Muennighoff et al. 2023)


def described(name: str, laws: Laws) -> dict[str, Any]:
    """Return a law as JSON can hold it, with what speaks against it."""
    drawn, sample = laws[name], laws.sample(name)
    fitted = drawn.fit
    sd, freedom = laws.seed_sd(name), laws.noise.freedom
    flags = [*fitted.flags]
    if freedom and fitted.spread > 2 * sd:
        flags.append(
            f"residuals spread {fitted.spread:.3%}, seeds {sd:.3%}: the form is not the truth here"
        )
    bands = drawn.coefficients()
    flat = [name for name, one in bands.items() if zero_width(one.value, one.low95, one.high95)]
    if flat:
        flags.append(
            f"the interval of {', '.join(flat)} has zero width: {len(sample)} runs for "
            f"{len(fitted.theta)} parameters do not show a spread; it is no certainty"
        )
    flags += [
        f"{name} lies anywhere in {band.low95:.2g} to {band.high95:.2g}: not identified"
        for name, band in bands.items()
        if name.startswith(("a_", "r_")) and band.high95 > 2 * max(band.low95, 1e-9)
    ]
    middle = np.exp(np.log(sample.x).mean(0))[None]
    tree = {
        "form": type(fitted.law).__name__,
        "factors": fitted.law.factors,
        "irreducible": "E" in fitted.law.names,
        "runs": len(sample),
        "trainings": len(np.unique(sample.clusters)),
        "coefficients": bands,
        "reference": {
            "at": dict(zip(fitted.law.factors, middle[0].tolist(), strict=True)),
            "loss": drawn.curve(middle)[0],
        },
        **{key: getattr(fitted, key) for key in ("objective", "starts", "agreeing", "condition")},
        "on_bounds": fitted.on_bounds,
        "residual_sd": fitted.spread,
        "seed_sd": sd if freedom else None,
        "seed_falls": laws.noise.falls,
        "flags": flags,
    }
    return plain(tree)


def about(runs: Runs) -> dict[str, Any]:
    """Return what was fitted: whose loss, how many runs, over how much compute."""
    flops = np.array([runs["flops"].min(), runs["flops"].max()])
    return {
        "studies": sorted({str(x) for x in runs["study"]}),
        "objective": str(runs["objective"][0]),
        "negatives": int(runs["negatives"][0]),
        "eval_set": str(runs["eval_set"][0]),
        "rows": len(runs),
        "trainings": len(np.unique(runs.clusters)),
        "sizes": len(np.unique(runs["params"])),
        "flops": flops,
        "pf_days": flops / DAY,
        "decades": runs.decades,
        "sha256": digest(runs),
    }


def table_flags(runs: Runs) -> list[str]:
    """Return what in the table weakens every law, a sentence each."""
    edges, read = edge_rates(runs), runs["epochs"] > EPOCHS
    flags: list[str] = []
    if not seed_noise(runs).freedom:
        flags.append("no configuration was trained with two seeds: the noise of a seed is unknown")
    if edges:
        flags.append(
            f"the best learning rate of {edges} configurations is at the edge of those tried; try "
            "beyond it"
        )
    if read.any():
        flags.append(
            f"{read.sum()} runs read their data {runs['epochs'].max():.3g} times, more than "
            f"{EPOCHS:g}: take the law of repeated data for them"
        )
    if len(runs) < 10:
        flags.append(f"{len(runs)} runs; with fewer than 10 an exponent is not identified")
    return flags


def isoflops(config: FitConfig, laws: Laws) -> dict[str, Any]:
    """Return the parabolas of the budgets, and the optimum over compute of the surface."""
    curves = parabolas(main_grid(laws.runs), config.size)
    minima = np.array([(one.flops, one.size) for one in curves if one.kept])
    exponent = power(*minima.T)[1] if len(minima) >= 2 else None
    tree: dict[str, Any] = {"isoflop": {"parabolas": curves, "exponent": exponent}}
    if "surface" in laws.fits:
        sample = laws.sample("surface")
        cost = Cost.of(sample.flops, *sample.x.T)
        # as far as the ladder may be believed, a decade above the runs
        over = np.geomspace(sample.flops.min(), 10 * sample.flops.max(), 13)
        tree |= {"cost": cost, "optimum": optima(laws["surface"], cost, over)}
    return tree


def study(config: FitConfig) -> dict[str, Any]:
    """Return the tree of OUT/fit.json, written with the figures: everything, fitted."""
    runs = read_runs(config.table)
    laws = laws_of(config, runs)
    both = {name: laws.sample(name) for name in ("surface", "compute") if name in laws.fits}
    tree: dict[str, Any] = {
        "format": FORMAT,
        "config": config,
        "table": about(laws.runs),
        "flags": table_flags(laws.runs),
        "laws": {name: described(name, laws) for name in laws.fits},
        "refused": laws.refused,
        "ladder": {name: ladder(sample, most=config.few) for name, sample in both.items()},
        "sensitivity": {},
        **isoflops(config, laws),
    }
    for name, sample in both.items():
        # compared at the most expensive run, where a choice matters most
        reference = sample.x[[int(np.argmax(sample.flops))]]
        tree["sensitivity"][name] = choices(
            laws.rows[name], sample.factors, laws[name].fit, reference, most=config.few
        )
    tree = plain(tree)
    if config.figures:
        tree["not_drawn"] = figures.draw(config, runs, laws, tree)
    return write_json(config.out / "fit.json", tree)


HEAD = ("E", "exponents", "runs", "residual sd")


def cells(law: Mapping[str, Any]) -> list[object]:
    """Return a law's cells below HEAD; a star marks what the runs do not identify.

    That lies on its bound, or has an interval that spans a factor of two.
    """
    values = law["coefficients"]

    def starred(name: str) -> str:
        unsure = any(flag.startswith((f"{name} ", f"log_{name} ")) for flag in law["flags"])
        return f"{name} {band(values[name])}{' *' if unsure else ''}"

    floor = "left out"
    if law["irreducible"]:
        floor = "0 (its bound) *" if "E" in law["on_bounds"] else band(values["E"])
    powers = "; ".join(starred(name) for name in values if name.startswith(("a_", "r_")))
    return [floor, powers, law["runs"], f"{law['residual_sd']:.2%}"]


def text(tree: Mapping[str, Any]) -> str:
    """Return the study as Markdown: a line for each law, then flags, refusals and the ladder."""
    about, laws = tree["table"], tree["laws"]
    rows = [[name, *cells(law), f"{law['agreeing']:.0%}"] for name, law in laws.items()]
    points = [*tree["flags"], *(f"{n}: {x}" for n, law in laws.items() for x in law["flags"])]
    points += [f"no law of {name}: {why}" for name, why in tree["refused"].items()]
    points += [f"no figure of {x}: {why}" for x, why in tree.get("not_drawn", {}).items()]
    for name, rungs in tree["ladder"].items():
        if rungs:
            law, pure, last = (
                float(np.median([abs(rung[key]) for rung in rungs]))
                for key in ("error", "pure", "last")
            )
            points.append(
                f"ladder of {name}: {len(rungs)} extrapolations up to "
                f"{max(rung['factor'] for rung in rungs):.3g} x compute, median error {law:.2%} "
                f"(pure power law {pure:.2%}, largest run so far {last:.2%})"
            )
    return "\n".join(
        [
            f"{about['rows']} runs of {about['trainings']} trainings, {about['sizes']} sizes, "
            f"{about['decades']:.2f} decades of compute, K = {about['negatives']:,}",
            "",
            markdown(("law", *HEAD, "starts agree"), rows),
            "",
            *(f"- {point}" for point in points),
        ]
    )


def band(values: Mapping[str, Any], digits: str = ".4g") -> str:
    """Return a value with its interval of 95 % as text, which says so where that has no width."""
    value, low, high = (values[name] for name in ("value", "low95", "high95"))
    if low is None or high is None:
        return f"{value:{digits}}"
    return f"{value:{digits}} [{low:{digits}} {high:{digits}}]{zero_width(value, low, high)}"


def main(argv: Sequence[str]) -> None:
    """Read the command line, fit, print the report."""
    tree = run_command(FitConfig, study, argv, description=__doc__)
    sys.stdout.write(text(tree) + "\n")
