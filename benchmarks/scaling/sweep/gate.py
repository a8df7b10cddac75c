"""Command: whether one learning rate suits all sizes, before any ladder is trained.

    python -m benchmarks.scaling gate configs/sweep/gate_synthetic.yaml

Trains the points of a sweep whose sizes have several `rates` each, those that are missing, and
writes OUT/gate.json: benchmarks/scaling/fit/rate_curves.py has the criteria. A sweep with
`gate: OUT/gate.json` takes its rates from there: the shared one, or, where the gate failed, each
size's own.
"""

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.json_files import write_json
from benchmarks.scaling.fit.rate_curves import judge, table
from benchmarks.scaling.fit.run_table import read_runs
from benchmarks.scaling.sweep.run import stopping, sweep
from benchmarks.scaling.sweep.sweep_config import SweepConfig
from clue.config import run_command


def gate(config: SweepConfig) -> dict[str, Any] | None:
    """Return the gate, written; None where the plan alone was printed.

    Raises what `sweep` and `judge` raise, and ValueError where a point failed.
    """
    failed = sweep(config)
    if config.dry:
        return None
    if failed:
        raise ValueError(f"{failed} points failed; the same command tries them again")
    tree = {"name": config.name, **judge(read_runs(config.out / "runs.parquet"))}
    return write_json(config.out / "gate.json", tree)


def main(argv: Sequence[str]) -> None:
    """Run the command line; SIGTERM and Ctrl-C let the running points save a checkpoint."""
    stopping()
    tree = run_command(SweepConfig, gate, argv, description=__doc__)
    if tree is not None:
        sys.stdout.write(table(tree) + "\n")
