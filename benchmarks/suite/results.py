"""The scores of a suite, OUT/scores.jsonl: a line for each (task, model, seed, probe), made once.

A result is kept until something that decides it changes: the task's recipe, the model, the corpus.
Its queries lie beside it, OUT/queries/TASK/MODEL.SEED.PROBE.parquet.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import re
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.json_files import plain
from benchmarks.metrics.bootstrap import Interval, bootstrap, centred, summary
from benchmarks.protocols import Measure, Model, Probe, Scored, Task, TaskBaseline
from clue.atomic import write_text

FORMAT = 2
SLICE = "slice "
FILE = "scores.jsonl"
Key: TypeAlias = tuple[str, str, int, Probe]  # task, model, seed, probe


@dataclass(frozen=True)
class TaskResult:
    """A model's scores on a task: of every measure the value and its interval of 95 %.

    `main_probe` says whether the probe is the model's first on this task: its row in the tables.
    `slices` has the main measure by slice and value: {"history": {"5-19": (Interval, queries)}}.
    `out` is the folder of the suite's results.
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
    out: Path

    @property
    def main(self) -> str:
        """The name of the main measure."""
        return next(iter(self.measures))

    @property
    def key(self) -> Key:
        """What no other result of the suite shares."""
        return self.task, self.model, self.seed, self.probe

    @property
    def queries(self) -> Path | None:
        """The Parquet file of the answers, if it exists."""
        file = queries_file(self.out, self.key)
        return file if file.is_file() else None


def queries_file(out: Path, key: Key) -> Path:
    """Return where the answers of a result lie."""
    task, *rest = key
    parts = [re.sub(r"[^\w-]+", "_", str(part)).strip("_") for part in rest]
    return out / "queries" / task / f"{'.'.join(parts)}.parquet"


def digest(task: Task, model: Model | TaskBaseline, probe: Probe, resamples: int) -> str:
    """Return a hash of all that decides a result."""
    parts = [
        task.name,
        task.version,
        dict(task.recipe),
        model.fingerprint,
        probe,
        resamples,
        FORMAT,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def digests(out: Path) -> dict[Key, str]:
    """Return the hash of each result in `out` by its key, nothing where there is no file yet."""
    file = out / FILE
    if not file.is_file():
        return {}
    return {result.key: result.about["digest"] for result in read(out)}


def make(
    out: Path, task: Task, model: Model | TaskBaseline, probe: Probe, *, resamples: int, seed: int
) -> TaskResult:
    """Return the model's scores, written."""
    started = time.perf_counter()
    scored = task.score(model, probe)
    values, slices = measured(scored, resamples=resamples, seed=seed)
    result = TaskResult(
        *(task.name, task.version, task.family, model.name, model.seed, probe),
        main_probe=probe == next((one for one in task.probes if task.supports(model, one)), None),
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
        out=out,
    )
    write(result, scored.queries)
    return result


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
            interval = _intervals({name: main}, part, resamples, seed)[name]
            if np.isfinite(interval.value):
                slices.setdefault(column.removeprefix(SLICE), {})[str(label)] = (
                    interval,
                    part.num_rows,
                )
    return values, slices


def _intervals(
    measures: Mapping[str, Measure], queries: pa.Table, resamples: int, seed: int
) -> dict[str, Interval]:
    return dict(zip(measures, summary(*resampled(measures, queries, resamples, seed)), strict=True))


def resampled(
    measures: Mapping[str, Measure], queries: pa.Table, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the value of each measure (M,), and those of resampled users (M, resamples)."""
    users = queries["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    statistics = [measure.statistic(queries) for measure in measures.values()]
    values, drawn = bootstrap(statistics, users, resamples=resamples, seed=seed)
    for at, measure in enumerate(measures.values()):
        if measure.kind == "coverage":
            drawn[at] = centred(values[at], drawn[at])
    return values, drawn


def write(result: TaskResult, queries: pa.Table) -> None:
    """Write the queries, then the line, in the place of an older one of the same key.

    The file is replaced as a whole: a kill leaves the old one or the new.
    """
    beside = queries_file(result.out, result.key)
    beside.parent.mkdir(parents=True, exist_ok=True)
    partial = beside.with_name(beside.name + ".partial")
    pq.write_table(queries, partial, compression="zstd")
    partial.replace(beside)
    with _locked(result.out):
        others = read(result.out) if (result.out / FILE).is_file() else []
        kept = [one for one in others if one.key != result.key]
        lines = [_line(one) for one in sorted([*kept, result], key=lambda one: one.key)]
        write_text(result.out / FILE, "".join(lines))


def read(out: Path) -> list[TaskResult]:
    """Return the results in `out`, by task, model, seed and probe.

    FileNotFoundError where there are none, ValueError for a line of another format.
    """
    file = out / FILE
    if not file.is_file():
        raise FileNotFoundError(f"no scores in {file}; python -m benchmarks.suite makes them")
    lines = file.read_text(encoding="utf-8").splitlines()
    return [_parsed(line, file, number) for number, line in enumerate(lines, 1)]


@contextmanager
def _locked(out: Path) -> Generator[None]:
    """Hold the folder for one writer: two suites may fill one file."""
    with (out / ".scores.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _line(result: TaskResult) -> str:
    tree = {"format": FORMAT, **plain(result)}
    del tree["out"]
    return json.dumps(tree, ensure_ascii=False, allow_nan=False) + "\n"


def _parsed(line: str, file: Path, number: int) -> TaskResult:
    tree: dict[str, Any] = json.loads(line)
    if tree.pop("format") != FORMAT:
        raise ValueError(
            f"{file}, line {number} is of another format; delete it and run the suite again"
        )
    for measure in tree["measures"].values():
        measure["columns"] = tuple(measure["columns"])
    tree["measures"] = {name: Measure(**fields) for name, fields in tree["measures"].items()}
    tree["values"] = {name: read_interval(fields) for name, fields in tree["values"].items()}
    tree["slices"] = {
        name: {label: (read_interval(fields), count) for label, (fields, count) in each.items()}
        for name, each in tree["slices"].items()
    }
    return TaskResult(**tree, out=file.parent)


def read_interval(fields: Mapping[str, float | None]) -> Interval:
    """Return the interval of a JSON object, whose nulls are NaN."""
    return Interval(**{k: float("nan") if v is None else v for k, v in fields.items()})


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


def wanted_results(
    tasks: Sequence[Task], models: Sequence[Model]
) -> list[tuple[Task, Model | TaskBaseline, Probe]]:
    """Return what a suite measures, task by task: the models, then the task's own baselines."""
    return [
        (task, model, probe)
        for task in tasks
        for model in [*models, *task.baselines(models)]
        for probe in task.probes
        if task.supports(model, probe)
    ]
