"""Fields of events on their way into the corpus: from cells to numbers and categories, checked.

A cell that is empty, or one of `null_values`, is a missing value and no error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa

from clue.data.fields import FIRST, MISSING, MOST_VALUES, OTHER, Field, FieldKind, learn_edges
from clue.data.ingest.spool import Spool
from clue.data.ingest.values import Column, id_sql, quoted, text_sql

TRUE, FALSE = ("true", "t", "yes", "1", "1.0"), ("false", "f", "no", "0", "0.0")
BAD: dict[FieldKind, str] = {
    "numeric": "not_a_number",
    "categorical": "id_beyond_2_53",
    "boolean": "not_a_boolean",
}
LEARN_FROM = 1 << 24  # events that percentiles are of, evenly spread; 64 MB of numbers
CHUNK = 1 << 22  # events recoded at a time


@dataclass(frozen=True)
class StagedField:
    """A column of the log that is a field of `services`, or of all where that is None."""

    kind: FieldKind
    column: str
    services: tuple[str, ...] | None


def column_name(number: int) -> str:
    """Return the name of staged field `number` in table `events`."""
    return f"field{number}"


def sql_type(kind: FieldKind) -> str:
    """Return the SQL type of a staged field."""
    return "FLOAT" if kind == "numeric" else "VARCHAR"


def value_sql(column: Column, kind: FieldKind, null_values: Sequence[str]) -> str:
    """Return SQL of a cell as a value of a field: NULL or NaN is missing, or none of its kind."""
    if kind == "categorical":
        return id_sql(column, null_values)
    if kind == "boolean":
        text = f"lower(trim({text_sql(column)}))"
        true, false = (", ".join(map(quoted, words)) for words in (TRUE, FALSE))
        value = (
            f"CASE WHEN {text} IN ({true}) THEN 'true' WHEN {text} IN ({false}) THEN 'false' END"
        )
        taken = any(value.lower() in TRUE + FALSE for value in null_values)
    else:
        is_time = column.kind in ("time", "nanoseconds")
        value = "NULL::FLOAT" if is_time else f"try_cast({column.sql} AS FLOAT)"
        taken = any(_is_number(value) for value in null_values)
    missing = _is_missing(column, null_values)
    return f"CASE WHEN {missing} THEN NULL ELSE {value} END" if taken else value


def check_sql(
    field: StagedField, name: str, column: Column, null_values: Sequence[str]
) -> tuple[str, str, str]:
    """Return the check of a staged field called `name`: reason, SQL of whether bad, of the value.

    A cell is bad that is there and is no value of its kind, in a row of a service with the field.
    """
    bad = f"CASE WHEN {name} IS NULL THEN NOT {_is_missing(column, null_values)} "
    bad += f"ELSE isinf({name}) END" if field.kind == "numeric" else "ELSE false END"
    if field.services is not None:
        bad = f"service IN ({', '.join(map(quoted, field.services))}) AND {bad}"
    return BAD[field.kind], bad, f"{quoted(f'{field.column}=')} || {column.text}"


def _is_missing(column: Column, null_values: Sequence[str]) -> str:
    text, nulls = f"trim({column.text})", ["", *null_values]
    if column.kind not in ("text", "decimal"):
        text, nulls = text_sql(column), [value for value in null_values if _is_number(value)]
    parts = [f"{column.sql} IS NULL"]
    parts += [f"isnan({column.sql})"] if column.kind == "float" else []
    parts += [f"{text} IN ({', '.join(map(quoted, nulls))})"] if nulls else []
    return f"coalesce({' OR '.join(parts)}, false)"


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


@dataclass(frozen=True)
class Stored:
    """A field of one service in the query that reads its events, in the order of the histories.

    `select` is SQL of its numbers (float32, NaN: missing) or of the row of its value in `names`,
    the sorted values, counted from 1 (int32, 0: missing); `join` is what the query needs for that.
    """

    field: Field
    select: str
    join: str
    names: pa.ChunkedArray | None

    @property
    def dtype(self) -> type:
        """What the query returns."""
        return np.float32 if self.names is None else np.int32


def stored(db: duckdb.DuckDBPyConnection, field: Field, name: str, events: str) -> Stored:
    """Return how the field staged as `name` is read from `events`, SQL of rows behind FROM.

    Categories are staged as numbers of the texts in table `known_<name>`.
    """
    if field.kind == "numeric":
        return Stored(field, f"coalesce({name}, 'nan'::FLOAT) AS {name}", "", None)
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE values_of_{name} AS "
        f"SELECT number, {name} AS value, (row_number() OVER (ORDER BY {name}))::INTEGER AS row "
        f"FROM known_{name} SEMI JOIN (SELECT {name} AS number FROM {events}) USING (number)"
    )
    names = db.sql(f"SELECT value FROM values_of_{name} ORDER BY row").to_arrow_table()["value"]
    join = f"LEFT JOIN values_of_{name} ON values_of_{name}.number = e.{name}"
    return Stored(field, f"coalesce(values_of_{name}.row, 0) AS {name}", join, names)


def settle(column: Stored, raw: Spool, is_train: Spool, codes: Spool) -> tuple[Field, Spool]:
    """Return a field as its training users have it, and what is stored of it, row by row (n,).

    `raw` (n,) is what the query of `column` returned, `is_train` (n,) whether the event is of a
    user to train on; `codes`, uint16 (n,), is filled where the field has categories.
    """
    values, train = raw.read(), is_train.read()
    chunks = [slice(start, start + CHUNK) for start in range(0, len(values), CHUNK)]
    if column.names is None:
        step = step_of(len(values))
        samples = [np.empty(0, np.float32)]
        for chunk in chunks:
            first = -chunk.start % step
            samples.append(values[chunk][first::step][train[chunk][first::step]])
            _release(raw, is_train)
        return replace(column.field, edges=learn_edges(np.concatenate(samples))), raw
    counts = np.zeros(1 + len(column.names), np.int64)
    for chunk in chunks:
        counts += np.bincount(values[chunk][train[chunk]], minlength=len(counts))
        _release(raw, is_train)
    field, code_of = ranked(column.field, column.names, counts)
    for chunk in chunks:
        codes.add(code_of[values[chunk]])
        raw.release()
    return field, codes


def step_of(events: int) -> int:
    """Return how far apart the events lie that percentiles are of."""
    return max(1, -(-events // LEARN_FROM))


def ranked(
    field: Field, names: pa.Array | pa.ChunkedArray, counts: np.ndarray
) -> tuple[Field, np.ndarray]:
    """Return a field with its most frequent values, and the code of each row, uint16 (V + 1,).

    `names` (V,) are the sorted values, `counts` (V + 1,) how often training users have each, and
    none of them first.
    """
    order = np.argsort(-counts[1:], kind="stable")[:MOST_VALUES]  # ties stay sorted by name
    order = order[counts[1:][order] > 0]
    code_of = np.full(len(counts), OTHER, np.uint16)
    code_of[0] = MISSING
    code_of[1 + order] = FIRST + np.arange(len(order))
    values = names.take(pa.array(order)).to_pylist()
    return replace(field, values=tuple(values)), code_of


def _release(*columns: Spool) -> None:
    for column in columns:
        column.release()
