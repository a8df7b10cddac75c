"""The table of runs that a sweep writes and a fit reads, and what a fit refuses in it by name."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RUNS = pa.schema(
    [
        *((name, pa.string()) for name in ("study", "point", "trunk")),
        ("seed", pa.int64()),
        ("objective", pa.string()),
        ("flops", pa.float64()),
        *((name, pa.int64()) for name in ("params", "params_hidden", "pairs", "users", "events")),
        ("epochs", pa.float64()),
        *((name, pa.int64()) for name in ("steps", "batch", "max_events", "width", "layers")),
        *((name, pa.float64()) for name in ("lr", "loss", "loss_se")),
        ("negatives", pa.int64()),
        *((name, pa.string()) for name in ("eval_set", "loss_kind")),
        ("annealed", pa.bool_()),
        ("seconds", pa.float64()),
        *((name, pa.string()) for name in ("device", "commit", "role", "size", "arm")),
    ]
)
OPTIONAL = ("trunk", "size", "arm")  # columns that a table may lack
POSITIVE = ("flops", "params", "params_hidden", "pairs", "steps", "batch", "loss", "negatives")
# What says that two rows are the same training and its same end, whatever they are called.
SAME = (
    *("objective", "seed", "flops", "params", "params_hidden", "pairs", "users", "events", "steps"),
    *("batch", "max_events", "width", "layers", "lr", "loss", "negatives", "eval_set", "role"),
)
KINDS = {pa.bool_(): "true or false", pa.int64(): "a whole number", pa.float64(): "a number"}
DAY = 8.64e19  # FLOPs of a petaFLOP/s-day


@dataclass(frozen=True)
class Runs:
    """Rows as columns (n,): those of RUNS.

    Text columns hold str, the others numbers, float64 or int64; `loss_se` is NaN where unknown.
    """

    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.columns["loss"])

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column (n,)."""
        return self.columns[name]

    def take(self, rows: np.ndarray) -> "Runs":
        """Return the rows that a mask (n,) or indices (m,) choose."""
        return Runs({name: values[rows] for name, values in self.columns.items()})

    def replace(self, **columns: np.ndarray) -> "Runs":
        """Return the same rows with other values in some columns (n,)."""
        return Runs({**self.columns, **columns})

    @property
    def clusters(self) -> np.ndarray:
        """The training (n,) that each row belongs to, a number: rows of one are not independent.

        That is its `trunk` where the table has that column, else its `point`.
        """
        name = "trunk" if "trunk" in self.columns else "point"
        names = [f"{s}\n{p}" for s, p in zip(self["study"], self[name], strict=True)]
        return np.unique(names, return_inverse=True)[1]

    @property
    def decades(self) -> float:
        """Decades of compute from the least to the most FLOPs."""
        return float(np.log10(self["flops"].max() / self["flops"].min())) if len(self) else 0.0


def read_runs(file: Path) -> Runs:
    """Return the runs of a Parquet file, duplicates dropped and in an order of their own.

    The order depends on what the rows hold, so that a permuted file gives the same fit to the bit.
    FileNotFoundError without the file; ValueError for a column that is missing, is not a number or
    is empty, for a number that must be positive and is not, and for two losses of one end.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"no table of runs {file}; `python -m benchmarks.scaling sweep` writes one"
        )
    return from_table(read_parquet(file), str(file))


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file's columns; ValueError, naming it, for another file or columns."""
    try:
        schema = pq.read_schema(file)
        missing = [name for name in columns or () if name not in schema.names]
        if not missing:
            return pq.read_table(file, columns=None if columns is None else [*columns])
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{file} is no Parquet table ({first}); write it again") from None
    raise ValueError(
        f"{file} lacks the column {missing[0]}; it has {', '.join(schema.names)}: rename one"
    )


def from_table(table: pa.Table, where: str = "the table") -> Runs:
    """Return the runs of an Arrow table; raises what `read_runs` raises."""
    needed = [name for name in RUNS.names if name not in OPTIONAL]
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise ValueError(f"{where} lacks the columns {', '.join(missing)}; write them in the sweep")
    if not table.num_rows:
        raise ValueError(f"{where} has no rows; has a run of the sweep finished?")
    optional = [name for name in OPTIONAL if name in table.column_names]
    columns = {name: _array(name, table[name], where) for name in (*needed, *optional)}
    for name in POSITIVE:
        wrong = np.flatnonzero(~(np.isfinite(columns[name]) & (columns[name] > 0)))
        if len(wrong):
            raise ValueError(
                f"{where}: {name} of {columns['point'][wrong[0]]} is {columns[name][wrong[0]]}; it "
                "must be above 0 and finite: has the run diverged?"
            )
    return _distinct(Runs(columns))


def _array(name: str, column: Any, where: str) -> np.ndarray:
    if column.null_count and name != "loss_se":
        raise ValueError(f"{where}: {column.null_count} empty cells of {name}; fill them")
    kind = RUNS.field(name).type
    if kind not in KINDS:
        return np.array([str(x) for x in column.to_pylist()], dtype=object)
    try:
        values = column.cast(kind).to_pylist()
    except (ValueError, pa.ArrowNotImplementedError):
        raise ValueError(
            f"{where}: {name} is {column.type} such as {column[0].as_py()!r}, not {KINDS[kind]}; "
            "write it so in the sweep"
        ) from None
    return np.array([np.nan if x is None else x for x in values])


def _distinct(runs: Runs) -> Runs:
    """Return the rows sorted by what they hold, each once; ValueError for two losses of one end."""
    # a run that two arms of a comparison share is a row of each
    keys = [runs[name] for name in (*SAME, *(["arm"] if "arm" in runs.columns else []))]
    order = np.lexsort([_sortable(runs["point"]), *map(_sortable, keys[::-1])])
    kept: dict[tuple[Any, ...], int] = {}
    for row in order:
        kept.setdefault(tuple(key[row] for key in keys), int(row))
    runs = runs.take(np.array([*kept.values()]))
    ends: dict[tuple[Any, ...], tuple[float, str]] = {}
    for study, point, seed, steps, loss, role in zip(
        *(runs[name] for name in ("study", "point", "seed", "steps", "loss", "role")), strict=True
    ):
        first = ends.setdefault((study, point, seed, steps), (loss, role))
        if first != (loss, role):
            raise ValueError(
                f"{point} has two rows at step {steps}: loss {first[0]}, role {first[1]}, and loss "
                f"{loss}, role {role}; keep one"
            )
    return runs


def _sortable(values: np.ndarray) -> np.ndarray:
    return values.astype(str) if values.dtype == object else values


def fit_rows(runs: Runs, *, min_decades: float = 3.0, drop_unannealed: bool = False) -> Runs:
    """Return the rows of role "fit", all of which may stand in one law.

    ValueError, by name, for: losses of training; losses whose learning rate was not decayed to the
    end (left out instead with `drop_unannealed`); several objectives, numbers of negatives K or
    evaluation sets; fewer decades of compute than `min_decades`.
    """
    runs = runs.take(runs["role"] == "fit")
    if not len(runs):
        raise ValueError("no row has the role fit; what is held out is never fitted")
    _refuse_training(runs)
    open_ends = ~runs["annealed"].astype(bool)
    if open_ends.any() and not drop_unannealed:
        raise ValueError(
            f"un-annealed points: {open_ends.sum()} of {len(runs)} had no decay of the learning "
            f"rate to their end ({_some(runs['point'][open_ends])}) and lie above those that had; "
            "write drop_unannealed=true to leave them out"
        )
    runs = runs.take(~open_ends)
    for name, what in (
        ("negatives", "mixed K: the loss and its exponent depend on the number of negatives"),
        ("eval_set", "mixed evaluation sets: their losses do not compare"),
        ("objective", "mixed objectives: their losses do not compare"),
    ):
        values = np.unique(_sortable(runs[name]))
        if len(values) > 1:
            raise ValueError(f"{what}; {name} is {_some(values)}: fit each in a table of its own")
    if runs.decades < min_decades:
        raise ValueError(
            f"too few decades: the runs span {runs.decades:.2f} decades of compute, the limit is "
            f"{min_decades:g}; train smaller and larger runs, or write "
            f"min_decades={np.floor(runs.decades * 100) / 100:g} and quote that figure beside "
            "every exponent"
        )
    return runs


def _refuse_training(runs: Runs) -> None:
    training = runs["loss_kind"] != "held_out"
    if not training.any():
        return
    batches = np.unique(runs["batch"][training])
    which = f" at different batch sizes ({_some(batches)})" if len(batches) > 1 else ""
    raise ValueError(
        f"training losses{which}: {training.sum()} rows have a loss_kind other than held_out. Each "
        "batch is a task of its own, with its own number of negatives: measure the held-out loss "
        "at one K and fit that"
    )


def _some(values: Sequence[Any] | np.ndarray) -> str:
    more = f" and {len(values) - 4} more" if len(values) > 4 else ""
    return ", ".join(str(x) for x in values[:4]) + more


def digest(runs: Runs) -> str:
    """Return the SHA-256 (hex) of what the rows hold, the same for the same runs in any file."""
    content = hashlib.sha256()
    for name in (*SAME, "point"):
        content.update(repr([name, *runs[name].tolist()]).encode())
    return content.hexdigest()
