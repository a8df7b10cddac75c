"""One file for each (task, model, seed, probe): every score, so that nothing is computed twice.

A cell is OUT/cells/TASK/MODEL.SEED.PROBE.json with its queries beside it in Parquet. It is kept
until something that decides it changes: the task's recipe, the model, the corpus.
"""

import hashlib
import importlib.metadata
import json
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.metrics.bootstrap import Interval, bootstrap, centred, summary
from benchmarks.protocols import Measure, Model, Probe, Rival, Scored, Task

FORMAT = 2
SLICE = "slice "


@dataclass(frozen=True)
class Cell:
    """A model's scores on a task: of every measure the value and its interval of 95 %.

    `main_probe` says whether the probe is the model's first on this task: its row in the tables.
    `slices` has the main measure by slice and value: {"history": {"5-19": (Interval, queries)}}.
    `queries` is the file of the answers, None where it is not at hand.
    """

    task: str
    version: int
    family: str
    model: str
    seed: int
    probe: Probe
    main_probe: bool
    measures: dict[str, Measure]
    values: dict[str, Interval]
    slices: dict[str, dict[str, tuple[Interval, int]]]
    chosen: dict[str, Any]
    users: int
    count: int
    about: dict[str, Any]
    file: Path

    @property
    def main(self) -> str:
        """The name of the main measure."""
        return next(iter(self.measures))

    @property
    def queries(self) -> Path | None:
        """The Parquet file of the answers, if it is there."""
        file = self.file.with_suffix(".parquet")
        return file if file.is_file() else None


def place(out: Path, task: str, model: str, seed: int, probe: Probe) -> Path:
    """Return the file of a cell."""
    parts = [re.sub(r"[^\w-]+", "_", str(part)).strip("_") for part in (model, seed, probe)]
    return out / "cells" / task / f"{'.'.join(parts)}.json"


def digest(task: Task, model: Model | Rival, probe: Probe, resamples: int) -> str:
    """Return a hash of all that decides a cell."""
    told = [task.name, task.version, dict(task.recipe), model.fingerprint, probe, resamples, FORMAT]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def is_there(file: Path, wanted: str) -> bool:
    """Return whether the cell in `file` was made from the same task, model and probe."""
    if not file.is_file():
        return False
    return json.loads(file.read_text(encoding="utf-8"))["about"]["digest"] == wanted


def make(
    out: Path, task: Task, model: Model | Rival, probe: Probe, *, resamples: int, seed: int
) -> Cell:
    """Scores the model and writes its cell, the queries first; gives the cell."""
    started, file = time.perf_counter(), place(out, task.name, model.name, model.seed, probe)
    scored = task.score(model, probe)
    values, slices = measured(scored, resamples=resamples, seed=seed)
    cell = Cell(
        *(task.name, task.version, task.family, model.name, model.seed, probe),
        main_probe=probe == next((one for one in task.probes if task.takes(model, one)), None),
        measures=dict(scored.measures),
        values=values,
        slices=slices,
        chosen=dict(scored.chosen),
        users=len(scored.queries["user_id"].unique()),
        count=scored.queries.num_rows,
        about={
            "digest": digest(task, model, probe, resamples),
            "recipe": dict(task.recipe),
            "model_fingerprint": model.fingerprint,
            "seconds": round(time.perf_counter() - started, 2),
            "commit": commit(),
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("numpy", "scikit-learn", "scipy", "torch")
            },
        },
        file=file,
    )
    write(cell, scored.queries)
    return cell


def measured(
    scored: Scored, *, resamples: int, seed: int
) -> tuple[dict[str, Interval], dict[str, dict[str, tuple[Interval, int]]]]:
    """Return every measure with its interval, and the main one on every slice."""
    queries = scored.queries
    values = _intervals(scored.measures, queries, resamples, seed)
    name, main = next(iter(scored.measures.items()))
    slices: dict[str, dict[str, tuple[Interval, int]]] = {}
    for column in (c for c in queries.column_names if c.startswith(SLICE)):
        labels = np.array(queries[column].to_pylist())
        for label in np.unique(labels):
            part = queries.filter(pa.array(labels == label))
            found = _intervals({name: main}, part, resamples, seed)[name]
            if np.isfinite(found.value):
                slices.setdefault(column.removeprefix(SLICE), {})[str(label)] = (
                    found,
                    part.num_rows,
                )
    return values, slices


def _intervals(
    measures: Mapping[str, Measure], queries: pa.Table, resamples: int, seed: int
) -> dict[str, Interval]:
    users = queries["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    statistics = [measure.statistic(queries) for measure in measures.values()]
    values, drawn = bootstrap(statistics, users, resamples=resamples, seed=seed)
    for at, measure in enumerate(measures.values()):
        if measure.kind == "coverage":
            drawn[at] = centred(values[at], drawn[at])
    return dict(zip(measures, summary(values, drawn), strict=True))


def write(cell: Cell, queries: pa.Table) -> None:
    """Writes the queries, then the cell: one that is there is whole."""
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    beside = cell.file.with_suffix(".parquet")
    partial = beside.with_name(beside.name + ".partial")
    pq.write_table(queries, partial, compression="zstd")
    partial.replace(beside)
    tree = {"format": FORMAT, **asdict(cell)}
    del tree["file"]
    partial = cell.file.with_name(cell.file.name + ".partial")
    text = json.dumps(finite(tree), indent=1, ensure_ascii=False, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(cell.file)


def read(out: Path) -> list[Cell]:
    """Return the cells in `out`, by task, model and seed. FileNotFoundError where there is none."""
    files = sorted((out / "cells").rglob("*.json"))
    if not files:
        raise FileNotFoundError(f"no cells in {out}/cells; python -m benchmarks.suite makes them")
    return [_read(file) for file in files]


def _read(file: Path) -> Cell:
    tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if tree.pop("format") != FORMAT:
        raise ValueError(f"{file} is of another format; delete it and run the suite again")
    for measure in tree["measures"].values():
        measure["columns"] = tuple(measure["columns"])
    tree["measures"] = {name: Measure(**found) for name, found in tree["measures"].items()}
    tree["values"] = {name: _interval(found) for name, found in tree["values"].items()}
    tree["slices"] = {
        name: {label: (_interval(found), count) for label, (found, count) in each.items()}
        for name, each in tree["slices"].items()
    }
    return Cell(**tree, file=file)


def _interval(found: Mapping[str, float | None]) -> Interval:
    return Interval(**{k: float("nan") if v is None else v for k, v in found.items()})


def finite(value: Any) -> Any:
    """Return the same with None for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [finite(below) for below in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def commit() -> str:
    """Return the commit of the code, "unknown" outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def wanted_cells(
    tasks: Sequence[Task], models: Sequence[Model]
) -> list[tuple[Task, Model | Rival, Probe]]:
    """Return what a suite measures, task by task: the models, then the task's own rivals."""
    return [
        (task, model, probe)
        for task in tasks
        for model in [*models, *task.rivals(models)]
        for probe in task.probes
        if task.takes(model, probe)
    ]
