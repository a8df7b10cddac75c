"""Log files as DuckDB reads them: Parquet, CSV and JSON lines, every row numbered in file order.

Columns are read as c0, c1, ... and never by the names that a log gives them: DuckDB takes `ID` and
`id` for one, and no name at all for an error. Rows are counted from 1; a CSV header and blank lines
do not count.
"""

import csv
import gzip
import io
import json
import re
import tempfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa

from clue.data.ingest.files import LogFile
from clue.data.ingest.parquet import column_names, parquet_batches, parquet_columns
from clue.data.ingest.values import MISSING, Column, quoted

SAMPLE = 1000  # rows of JSON lines whose keys are looked at first
DELIMITERS = (",", ";", "\t", "|")
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Scan:
    """One file as SQL `SELECT "#row", "#broken", "#nested", c0, c1, ...`; `columns` by their names.

    `#broken` is NULL, or what is wrong with the row as a whole, which is then bad for `reason`;
    `#nested` is NULL, or a list or an object where a value belongs. `source` lives as long as the
    SQL may be run: what was unpacked for it is removed with it.
    """

    sql: str
    columns: dict[str, Column]
    reason: str
    source: Any

    def column(self, name: str) -> Column:
        """Return the column of a name; one that the file lacks is NULL."""
        return self.columns.get(name, MISSING)


def is_empty(file: LogFile) -> bool:
    """Return whether a file has no byte but white space: a day without events."""
    if file.format == "parquet":
        return file.path.stat().st_size == 0
    with _reading(file), _open_text(file) as lines:
        return not any(line.strip() for line in lines)


def columns_of(file: LogFile) -> list[str]:
    """Return the names of a file's columns, its folders' behind them; nameless ones are left out.

    Of JSON lines those are the keys of the first rows. Raises ValueError when the file is
    unreadable, names a column twice, or is one JSON array.
    """
    with _reading(file):
        names = _names(file)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"{file}: column {twice[0]!r} appears twice; rename one")
    own = [name for name in names if name]
    return [*own, *(name for name in file.partitions if name not in own)]


def has_column(file: LogFile, names: Sequence[str], name: str) -> bool:
    """Return whether a file has a column, its first ones being `names` (`columns_of`).

    A key of JSON lines may come first in the last of a million rows.
    """
    if name in names:
        return True
    if file.format != "json":
        return False
    forms = {json.dumps(name), json.dumps(name, ensure_ascii=False)}
    with _reading(file), _open_text(file) as lines:
        for line in lines:  # few lines are parsed: those that hold the name, perhaps as a value
            if any(form in line for form in forms) and name in _keys(line):
                return True
    return False


def delimiter_of(file: LogFile) -> str:
    """Return what parts the values of a CSV file: what is told, or most frequent in its header."""
    if file.delimiter is not None:
        return file.delimiter
    with _open_text(file) as lines:
        header = re.sub(r'"[^"]*"', "", next(lines, ""))
    return max(DELIMITERS, key=header.count)  # the first of equals: the comma


def scan(db: duckdb.DuckDBPyConnection, file: LogFile, names: Sequence[str]) -> Scan:
    """Return SQL over the columns of these names, to be run once and before the next `scan`.

    A column that JSON lines lack is NULL, of other files it is left out. Raises ValueError for a
    column of a type that is not read.
    """
    present = columns_of(file)
    own = [n for n in names if n not in file.partitions and (n in present or file.format == "json")]
    folders = {
        name: Column("NULL" if value is None else quoted(value), "text")
        for name, value in file.partitions.items()
        if name in names and (name not in present or name not in own)
    }
    copy = _readable(file)
    path = file.path if copy is None else Path(copy.name)
    if file.format == "parquet":
        columns = parquet_columns(path, own)
        db.register("parquet", parquet_batches(path, own, file.row_groups))
        sql = 'SELECT *, NULL::VARCHAR AS "#nested" FROM parquet'
        return Scan(sql, columns | folders, "text_not_utf8", copy)
    if file.format == "csv":
        sql, columns = _csv_sql(file, path, own)
        return Scan(sql, columns | folders, "malformed_row", copy)
    sql, columns = _json_sql(file, path, own)
    return Scan(sql, columns | folders, "not_a_json_object_in_utf8", copy)


def rejected_rows(db: duckdb.DuckDBPyConnection) -> list[tuple[int, str, str]]:
    """Return (row, reason, text) of CSV rows the last scan could not split, and forget them."""
    if not db.sql("SELECT 1 FROM duckdb_tables() WHERE table_name = 'reject_errors'").fetchall():
        return []
    rows = db.sql(
        "SELECT line - 1, list(error_type), any_value(csv_line) FROM reject_errors "
        "GROUP BY line ORDER BY line"
    ).fetchall()
    db.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    return [
        (row, "text_not_utf8" if "INVALID ENCODING" in errors else "malformed_row", line)
        for row, errors, line in rows
    ]


@contextmanager
def _reading(file: LogFile) -> Generator[None]:
    """Raise what a library says of a broken file as a ValueError that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        why = error.strerror if isinstance(error, PermissionError) else "is the file whole?"
        kind = file.format + ("" if file.compression == "none" else f" in {file.compression}")
        raise ValueError(f"{file} cannot be read as {kind}; {why}") from None


def _names(file: LogFile) -> list[str]:
    if file.format == "parquet":
        unpacked = _readable(file)
        return column_names(file.path if unpacked is None else Path(unpacked.name))
    if file.format == "csv":
        return _header(file)
    names: dict[str, None] = {}
    with _open_text(file) as lines:
        for line in islice(lines, SAMPLE):
            if not names and line.lstrip().startswith("["):
                raise ValueError(
                    "it is one JSON array; write one object a line, as `jq -c '.[]'` does"
                )
            names |= dict.fromkeys(_keys(line))
    return list(names)


def _keys(line: str) -> list[str]:
    """Return the keys of a line of JSON; none where it is no object, which is judged by its row."""
    try:
        row = json.loads(line)
    except ValueError:
        return []
    return list(row) if isinstance(row, dict) else []


def _header(file: LogFile) -> list[str]:
    delimiter = delimiter_of(file)
    with _open_text(file) as lines:
        if len(delimiter) > 1:
            names = next(lines, "").rstrip("\r\n").split(delimiter)
        else:
            names = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
    return [name.strip() for name in names]


def _open_bytes(file: LogFile) -> Any:
    if file.compression == "gzip":
        return gzip.open(file.path)
    if file.compression == "zstd":
        return pa.input_stream(str(file.path), compression="zstd")
    return file.path.open("rb")


def _open_text(file: LogFile) -> TextIO:
    with _open_bytes(file) as stream:
        codec = "utf-16" if stream.read(2) in UTF16 else "utf-8-sig"
    return io.TextIOWrapper(_open_bytes(file), encoding=codec, errors="replace", newline="")


def _readable(file: LogFile) -> Any:
    """Return a plain copy of what no library reads, removed when let go; None where there is none.

    That is Parquet packed as a whole, and UTF-16.
    """
    if file.format == "parquet":
        with file.path.open("rb") as stream:
            # Some call .parquet.zst what is Parquet with pages of zstd.
            if file.compression == "none" or stream.read(4) == b"PAR1":
                return None
        copy = tempfile.NamedTemporaryFile()  # noqa: SIM115
        with _open_bytes(file) as stream:
            while part := stream.read(1 << 24):
                copy.write(part)
        copy.flush()
        return copy
    with _open_bytes(file) as stream:
        if stream.read(2) not in UTF16:
            return None
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115
    with _open_text(file) as lines:
        while part := lines.read(1 << 24):
            copy.write(part.encode())
    copy.flush()
    return copy


def _compression(file: LogFile, path: Path) -> str:
    return quoted(file.compression if path == file.path else "none")


def _csv_sql(file: LogFile, path: Path, own: Sequence[str]) -> tuple[str, dict[str, Column]]:
    # The dialect is fixed: a sniffer that guesses from a sample may guess otherwise tomorrow.
    header = _header(file)
    types = ", ".join(f"c{number}: 'VARCHAR'" for number in range(len(header)))
    columns = {name: Column(f"c{header.index(name)}", "text") for name in own}
    chosen = "".join(f", {column.sql}" for column in columns.values())
    sql = (
        'SELECT row_number() OVER () AS "#row", NULL::VARCHAR AS "#broken", '
        f'NULL::VARCHAR AS "#nested"{chosen} FROM read_csv({quoted(str(path))}, '
        f"auto_detect = false, header = true, delim = {quoted(delimiter_of(file))}, "
        f"quote = '\"', escape = '\"', compression = {_compression(file, path)}, "
        f"columns = {{{types}}}, ignore_errors = true, store_rejects = true)"
    )
    return sql, columns


def _json_sql(file: LogFile, path: Path, own: Sequence[str]) -> tuple[str, dict[str, Column]]:
    columns = {name: Column(f"c{number}", "text") for number, name in enumerate(own)}
    pointers = [quoted(_pointer(name)) for name in own]
    chosen = "".join(f", texts[{i + 1}] AS c{i}" for i in range(len(own)))
    # A list as text begins with a bracket, but so may a text; only then its type is asked for.
    nested = "".join(
        f" WHEN (starts_with(texts[{i + 1}], '[') OR starts_with(texts[{i + 1}], '{{')) "
        f"AND json_type(json, {pointer}) IN ('ARRAY', 'OBJECT') "
        f"THEN {quoted(f'{name}=')} || texts[{i + 1}]"
        for i, (name, pointer) in enumerate(zip(own, pointers, strict=True))
    )
    # A line that is not JSON, or not UTF-8, arrives as NULL.
    broken = (
        "CASE WHEN json IS NULL OR json_type(json) <> 'OBJECT' THEN coalesce(json::VARCHAR, '') END"
    )
    source = (
        f"SELECT json, json_extract_string(json, [{', '.join(pointers)}]) AS texts FROM "
        f"read_ndjson_objects({quoted(str(path))}, ignore_errors = true, "
        f"compression = {_compression(file, path)})"
    )
    sql = (
        f'SELECT row_number() OVER () AS "#row", {broken} AS "#broken", '
        f'CASE{nested or " WHEN false THEN NULL::VARCHAR"} END AS "#nested"{chosen} FROM ({source})'
    )
    return sql, columns


def _pointer(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")
