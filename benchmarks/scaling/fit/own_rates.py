"""Command: the runs of each size at its own best rate, where no rate suits all sizes.

    python -m benchmarks.scaling rates results/scaling/NAME/runs.parquet

Of a configuration that was trained at several rates, the log loss of each seed at the rate of the
lowest point of the parabola (rate_curves.py) is that of the seed's own parabola there: a sum of its
log losses with the same weights for all seeds, so that their noise stays what it is. Such a seed
is one row, named as its run at the nearest rate; what was trained at one rate stays as it is. Of
held-out runs it is the same; those of role check are left out. Writes `own_rates.parquet` beside
the table: what a law is fitted on, and what a prediction is verified with.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.metrics.format import markdown
from benchmarks.scaling.fit.rate_curves import Curve, curve, parabola
from benchmarks.scaling.fit.run_table import RUNS, Runs, read_runs
from benchmarks.scaling.fit.seed_noise import SeedNoise, seed_noise
from benchmarks.scaling.fit.selection import CONFIGURATION, groups
from clue.config import run_command

NAME = "own_rates.parquet"


@dataclass(frozen=True, kw_only=True)
class OwnRatesConfig:
    """The runs of all rates, in `table`."""

    table: Path


def own_rates(runs: Runs) -> tuple[Runs, list[Curve]]:
    """Return the runs at each configuration's own best rate, and the parabolas that say which.

    ValueError for a configuration of two rates, one whose lowest point is not among those tried,
    and a seed that was not trained at all of them.
    """
    runs = runs.take(runs["role"] != "check")
    noise = seed_noise(runs)
    roles = runs.replace(held=(runs["role"] != "fit").astype(np.float64))
    same = groups(roles, (*CONFIGURATION[:-1], "held"))
    parts: list[Runs] = []
    curves: list[Curve] = []
    for number in range(same.max() + 1):
        rows = runs.take(same == number)
        if len(np.unique(rows["lr"])) > 1:
            rows, one = _at_best(rows, noise)
            curves.append(one)
        parts.append(rows)
    names = parts[0].columns
    columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return Runs(columns), sorted(curves, key=lambda one: (one.width, one.layers))


def _at_best(rows: Runs, noise: SeedNoise) -> tuple[Runs, Curve]:
    """Return one row for each seed of a configuration, at its best rate, and the parabola."""
    rates, seeds = np.unique(rows["lr"]), np.unique(rows["seed"])
    for seed in seeds:
        tried = np.unique(rows["lr"][rows["seed"] == seed])
        if not np.array_equal(tried, rates):  # its noise would be taken for that of a rate
            raise ValueError(
                f"size {rows['size'][0]}, seed {seed} was trained at the rates {tried.tolist()}, "
                f"not at all of {rates.tolist()}; train the others, or leave the seed out"
            )
    one = curve(rows, noise)
    if one.why:
        raise ValueError(f"size {one.size}: {one.why}")
    near, points = parabola(rates, one.middle)
    lowest = one.log_best - np.log(one.middle)
    weights = np.array([lowest**2, lowest, 1.0]) @ np.linalg.pinv(points)  # of the log losses
    nearest = int(np.abs(points[:, 1] - lowest).argmin())
    kept: list[int] = []
    losses: list[float] = []
    for seed in seeds:
        at = np.flatnonzero((rows["seed"] == seed) & np.isin(rows["lr"], rates[near]))
        at = at[np.argsort(rows["lr"][at])]
        kept.append(int(at[nearest]))
        losses.append(float(np.exp(weights @ np.log(rows["loss"][at]))))
    rate = np.full(len(kept), np.exp(one.log_best))
    return rows.take(np.array(kept)).replace(loss=np.array(losses), lr=rate), one


def write(config: OwnRatesConfig) -> str:
    """Return the best rates as Markdown, the table of runs at them written."""
    runs, curves = own_rates(read_runs(config.table))
    schema = pa.schema([field for field in RUNS if field.name in runs.columns])
    columns = {
        name: pa.array(runs[name].tolist(), schema.field(name).type) for name in schema.names
    }
    pq.write_table(pa.table(columns, schema=schema), config.table.with_name(NAME))
    head = ("size", "rates tried", "best rate", "runs", "loss there", "sd of a seed")
    lines: list[list[str]] = []
    for one in curves:
        losses = runs["loss"][runs["size"] == one.size]
        sd = f"{np.log(losses).std(ddof=1):.2%}" if len(losses) > 1 else "one seed"
        tried = ", ".join(f"{rate:g}" for rate in one.rates)
        best, mean = f"{np.exp(one.log_best):.3g}", f"{np.exp(np.log(losses).mean()):.4f}"
        lines.append([one.size, tried, best, str(len(losses)), mean, sd])
    return markdown(head, lines)


def main(argv: Sequence[str]) -> None:
    """Read the command line, write the table, print the rates."""
    sys.stdout.write(run_command(OwnRatesConfig, write, argv, description=__doc__) + "\n")
