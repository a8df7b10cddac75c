"""A table beside a log (labels, impressions, sales), its ids and times read by the log's rules."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from clue.data.ingest.files import log_file
from clue.data.ingest.readers import Scan, columns_of, has_column, rejected_rows, scan
from clue.data.ingest.times import counts_sql, seconds_sql, time_sql, unit_of
from clue.data.ingest.values import NULL_VALUES, Column, id_sql, lost_sql, named, quoted, text_sql

ColumnKind = Literal["id", "time", "number", "text"]


def read_columns(file: Path, columns: Mapping[str, ColumnKind]) -> pa.Table:
    """Return the columns of a table in the order of its rows, in any format that a log may have.

    An "id" is text by the rule of ids, a "time" float64 epoch seconds (or positions, where its
    numbers are no clock's), a "number" float64, "text" as it stands; null where a cell is empty.
    Raises FileNotFoundError without the file and ValueError for a missing column, and, by row and
    value, for a cell that is not what its column holds.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no table {file}; it needs the columns {', '.join(columns)}")
    log = log_file(file, "table")
    present = columns_of(log)
    for name in columns:
        if not has_column(log, present, name):
            raise ValueError(f"{file}: no column {name!r}; there are {', '.join(present)}")
    with closing(duckdb.connect()) as db:
        db.execute("SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false")
        source = scan(db, log, list(columns))
        try:
            db.execute(f"CREATE TABLE cells AS {_select(source, columns)}")
        except duckdb.Error:
            raise ValueError(f"{file} cannot be read to its end; is the file whole?") from None
        _refuse_bad_cells(db, file)
        return _result(db, file, columns)


def _select(source: Scan, columns: Mapping[str, ColumnKind]) -> str:
    chosen, bad = (
        "",
        f'WHEN "#broken" IS NOT NULL THEN {quoted(source.reason)} || \': \' || "#broken"',
    )
    bad += ' WHEN "#nested" IS NOT NULL THEN \'a list or an object: \' || "#nested"'
    for number, (name, kind) in enumerate(columns.items()):
        column = source.column(name)
        value, is_bad = _value(column, kind)
        chosen += f", {value} AS v{number}"
        if kind == "time":
            chosen += f", {time_sql(column, None).is_number} AS n{number}"
        if is_bad:
            what = quoted(f"{name} is no {kind}: ")
            bad += f" WHEN {is_bad} THEN {what} || {column.text}"
    return f'SELECT "#row", CASE {bad} END AS bad{chosen} FROM ({source.sql})'


def _value(column: Column, kind: ColumnKind) -> tuple[str, str]:
    """Return SQL of a cell and of whether it holds something that is not of its kind."""
    if kind == "id":
        return id_sql(column, NULL_VALUES), lost_sql(column)
    if kind == "text":
        return text_sql(column), ""
    if kind == "time":
        value = time_sql(column, None).seconds
    else:
        value = f"try_cast({column.sql} AS DOUBLE)"
    if column.kind in ("time", "nanoseconds") and kind == "number":
        value = "NULL::DOUBLE"
    empty = f"coalesce({column.text}, '') = ''"
    return value, f"NOT {empty} AND NOT coalesce(isfinite({value}), false)"


def _refuse_bad_cells(db: duckdb.DuckDBPyConnection, file: Path) -> None:
    rows = [(row, f"{reason}: {text}") for row, reason, text in rejected_rows(db)]
    rows += db.sql(
        'SELECT "#row", bad FROM cells WHERE bad IS NOT NULL ORDER BY 1 LIMIT 3'
    ).fetchall()
    if rows:
        shown = "; ".join(f"row {row}: {value}" for row, value in rows[:3])
        raise ValueError(f"{file}: {shown}; repair the table")


def _result(
    db: duckdb.DuckDBPyConnection, file: Path, columns: Mapping[str, ColumnKind]
) -> pa.Table:
    chosen: list[str] = []
    for number, (name, kind) in enumerate(columns.items()):
        value = f"v{number}"
        if kind == "time":
            counts = f"SELECT {counts_sql(value)} FROM cells WHERE n{number}"
            ((*by_unit,),) = db.sql(counts).fetchall()
            if by_unit[0]:
                converted = seconds_sql(value, unit_of(by_unit, f"{file}: {name}"))
                value = f"CASE WHEN n{number} THEN {converted} ELSE {value} END"
        chosen.append(f"{value} AS {named(name)}")
    return db.sql(f'SELECT {", ".join(chosen)} FROM cells ORDER BY "#row"').to_arrow_table()
