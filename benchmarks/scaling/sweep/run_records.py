"""What a finished point showed: its row, its learning curve, and the tables of all of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scaling.fit.run_table import RUNS
from benchmarks.scaling.sweep.grid import Point
from benchmarks.scaling.sweep.sweep_config import SweepConfig
from clue.atomic import write_text
from clue.config import load
from clue.monitor.read_log import read_log
from clue.run.pretrain_config import PretrainConfig

CURVES = pa.schema(
    [
        *((name, pa.string()) for name in ("study", "point", "role")),
        *((name, pa.int64()) for name in ("params", "steps", "pairs")),
        *((name, pa.float64()) for name in ("flops", "loss")),
        ("annealed", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class HeldOut:
    """A held-out loss in nats over all Q queries, its standard error, and K, their mean."""

    loss: float
    se: float
    negatives: int


def held_out(figures: Mapping[str, Mapping[str, float]]) -> HeldOut:
    """Return the mean over all queries of the calibrated entropy, or of the cross-entropy.

    Galleries of different sizes weigh as much as they have queries, and their K are averaged so.
    The standard error takes the galleries for independent; it is of the queries, which all points
    of a study share, and so larger than the noise between points.
    """
    each = list(figures.values())
    key = "calibrated_entropy" if "calibrated_entropy" in each[0] else "cross_entropy"
    queries = np.array([one.get("gallery") or one["queries"] for one in each])
    share = queries / queries.sum()
    columns = (key, "entropy_se", "negatives")
    loss, se, negatives = np.array([[one[name] for name in columns] for one in each]).T
    total = float(np.sqrt((share**2) @ (se**2)))
    return HeldOut(float(share @ loss), total, round(float(share @ negatives)))


def spent(run: Path) -> np.ndarray:
    """Return (lines, 3): steps done, model FLOPs and seconds up to there, those of a trunk too.

    Of a run that was stopped between two lines of its log, the steps from the first to the stop
    count as the mean of those after it.
    """
    history = read_log(run)
    first = history.start[0]["step"]
    totals = [np.zeros(3)]
    trunk = load(PretrainConfig, run / "config.yaml", raw=True).trunk
    if first:
        if trunk is None:
            raise ValueError(f"{run} begins at step {first} and names no trunk; train it again")
        before = spent(trunk)
        flops, seconds = (np.interp(first, before[:, 0], before[:, n]) for n in (1, 2))
        totals = [np.array([first, flops, seconds])]
    for line in history.train:
        done = line["step"] - totals[-1][0]
        totals.append(totals[-1] + done * np.array([1.0, line["model_flops"], line["seconds"]]))
    return np.array(totals)


def record(config: SweepConfig, point: Point, machine: Mapping[str, Any], wall: float) -> None:
    """Write RUN/point.json: that the point is finished, its row and its curve."""
    run, facts = point.run, point.facts
    costs, history = spent(run.run), read_log(run.run)
    steps, own = int(costs[-1, 0]), config.schedule == "own"
    over = own and bool(history.phase) and history.phase[-1]["phase"] == "done"
    valid = history.valid
    if not valid or valid[-1]["step"] != steps or (steps != run.steps and not over):
        raise ValueError(f"{run.run} ended before its step {run.steps}: its log says why")
    next_item = run.objective == "next_item"
    measured = [held_out(line.get("next_item" if next_item else "matching", {})) for line in valid]
    end = min(measured, key=lambda one: one.loss) if own else measured[-1]
    model = run.decoder if next_item else run.model.user
    length = run.decoder if next_item else run.views
    row = {
        **{key: getattr(run, key) for key in ("seed", "objective", "batch")},
        "flops": costs[-1, 1],
        **{key: getattr(facts, key) for key in ("params", "params_hidden", "users", "events")},
        "pairs": run.batch * steps,
        "epochs": steps / facts.epoch,
        "steps": steps,
        "max_events": length.max_events,
        "width": model.width,
        "layers": model.layers,
        "lr": run.optimizer.lr,
        "loss": end.loss,
        "loss_se": end.se,
        "negatives": end.negatives,
        "eval_set": facts.eval_set,
        "loss_kind": "held_out",
        "annealed": True,
        "seconds": costs[-1, 2],
        "device": machine["device"],
        "commit": machine["commit"] + ("+" if machine["uncommitted"] else ""),
    }
    curve = [
        {
            "steps": line["step"],
            "pairs": line["step"] * run.batch,
            "flops": float(np.interp(line["step"], costs[:, 0], costs[:, 1])),
            "loss": one.loss,
            "annealed": line["step"] == steps,
        }
        for line, one in zip(valid, measured, strict=True)
    ]
    alone = {"steps": steps - costs[0, 0], "flops": costs[-1, 1] - costs[0, 1], "wall": wall}
    kept = {"fingerprint": point.fingerprint, "row": row, "curve": curve, "own": alone}
    write_text(run.run / "point.json", json.dumps(kept, indent=1) + "\n")


def finished(point: Point) -> dict[str, Any] | None:
    """Return what was recorded of a point; None where it was not trained to its end."""
    file = point.run.run / "point.json"
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    return kept if kept["fingerprint"] == point.fingerprint else None


def write_tables(config: SweepConfig, points: Sequence[Point]) -> None:
    """Write OUT/runs.parquet and OUT/curves.parquet of the finished points."""
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for point in points:
        kept = finished(point)
        if kept is None:
            continue
        names = {"study": config.name, "point": point.name, "role": point.role}
        # ends of one trunk share most of their steps: a bootstrap must draw them together
        row = {**names, "trunk": point.family, "size": point.size, **kept["row"]}
        rows += [{**row, "arm": arm} for arm in point.arms]
        curves += [{**names, "params": point.facts.params, **line} for line in kept["curve"]]
    config.out.mkdir(parents=True, exist_ok=True)
    for name, schema, table in (("runs", RUNS, rows), ("curves", CURVES, curves)):
        beside = config.out / f".writing-{name}.parquet"
        pq.write_table(pa.Table.from_pylist(table, schema=schema), beside)
        beside.replace(config.out / f"{name}.parquet")
