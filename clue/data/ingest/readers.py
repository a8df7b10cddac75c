"""Log files as DuckDB reads them: Parquet, CSV and JSON lines, every row numbered in file order.

Rows are counted from 1; a CSV header and blank lines do not count.
"""

import csv
import glob
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Scan:
    """One file as SQL `SELECT "#row", "#broken", <columns>`; `kinds` is what each column holds.

    A kind is "text", "integer", "float" or "time". `#broken` is NULL, or what is wrong with the row
    as a whole, which is then bad for `reason`.
    """

    sql: str
    kinds: dict[str, str]
    reason: str


def find_files(patterns: Sequence[str], what: str) -> list[Path]:
    """Return the files that paths and globs name, in order, the matches of one glob sorted.

    Raises FileNotFoundError for a pattern without a match, and ValueError for a suffix that is none
    of `SUFFIXES` or a file named twice (its rows would count twice).
    """
    files: list[Path] = []
    for pattern in patterns:
        # A path that exists is itself even when it holds a character that globs read as magic.
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not found:
            raise FileNotFoundError(f"{what}: no file matches {pattern!r}; check the path")
        files += [Path(name) for name in found]
    for number, file in enumerate(files):
        if not file.name.endswith(SUFFIXES):
            raise ValueError(f"{what}: {file} ends in none of {' '.join(SUFFIXES)}; convert it")
        if file in files[:number]:
            raise ValueError(f"{what}: {file} is named twice; name it once")
    return files


def columns_of(file: Path) -> list[str]:
    """Return the column names of a file (JSON lines: the keys of the first 1,000 rows).

    Raises ValueError when the file is empty, unreadable or names a column twice.
    """
    try:
        names = _names(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{file}: column {twice[0]!r} appears twice; rename one")
    if not names:
        raise ValueError(f"{file} has no columns; is it empty?")
    return names


def scan(db: duckdb.DuckDBPyConnection, file: Path, columns: Sequence[str]) -> Scan:
    """Return SQL over the given columns of a file, to be run once and before the next `scan`.

    Raises ValueError for a column of a nested type.
    """
    if file.suffix == ".parquet":
        return _scan_parquet(db, file, columns)
    kinds = dict.fromkeys(columns, "text")
    if ".csv" in file.suffixes[-2:]:
        return Scan(_csv_sql(file, columns), kinds, "malformed_row")
    chosen = "".join(
        f", json_extract_string(json, {quoted(_pointer(name))}) AS {named(name)}"
        for name in columns
    )
    # A line that is not JSON, or not UTF-8, arrives as NULL.
    broken = (
        "CASE WHEN json IS NULL OR json_type(json) <> 'OBJECT' THEN coalesce(json::VARCHAR, '') END"
    )
    source = f"read_ndjson_objects({quoted(str(file))}, ignore_errors = true)"
    sql = f'SELECT row_number() OVER () AS "#row", {broken} AS "#broken"{chosen} FROM {source}'
    return Scan(sql, kinds, "not_a_json_object_in_utf8")


def rejected_rows(db: duckdb.DuckDBPyConnection) -> list[tuple[int, str, str]]:
    """Return (row, reason, text) of CSV rows the last scan could not split, and forgets them."""
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


def text_sql(column: str, kind: str) -> str:
    """Return SQL for a column as text; 7.0 reads "7", pandas turns ids with gaps into floats."""
    name = named(column)
    if kind != "float":
        return f"{name}::VARCHAR"
    whole = f"{name} = trunc({name}) AND abs({name}) < 9e15"  # beyond, floats skip whole numbers
    return (
        f"CASE WHEN {whole} THEN {name}::BIGINT::VARCHAR "
        f"WHEN isfinite({name}) THEN {name}::VARCHAR END"
    )


def seconds_sql(column: str, kind: str) -> str:
    """Return SQL for a column as a time: numbers as they are, dates as epoch seconds (UTC if bare).

    NULL where it is neither.
    """
    name = named(column)
    if kind == "time":
        return f"epoch({name})"
    if kind != "text":
        return f"{name}::DOUBLE"
    return f"coalesce(try_cast({name} AS DOUBLE), epoch(try_cast({name} AS TIMESTAMPTZ)))"


def quoted(text: str) -> str:
    """Return `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def named(column: str) -> str:
    """Return `column` as an SQL name."""
    return '"' + column.replace('"', '""') + '"'


def _names(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return pq.read_schema(file).names
    with _open_text(file) as lines:
        if ".csv" in file.suffixes[-2:]:
            return next(csv.reader(lines, strict=True), [])
        names: dict[str, None] = {}
        for line in islice(lines, 1000):
            try:
                row = json.loads(line)
            except ValueError:
                continue  # judged, with its row number, when the rows are read
            names |= dict.fromkeys(row if isinstance(row, dict) else ())
        return list(names)


def _open_text(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def _csv_sql(file: Path, columns: Sequence[str]) -> str:
    # The dialect is fixed: a sniffer that guesses from a sample may guess otherwise tomorrow.
    names = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in columns_of(file))
    chosen = "".join(f", {named(name)}" for name in columns)
    return (
        f'SELECT row_number() OVER () AS "#row", NULL AS "#broken"{chosen} FROM read_csv('
        f"{quoted(str(file))}, auto_detect = false, header = true, delim = ',', quote = '\"', "
        f"escape = '\"', columns = {{{names}}}, ignore_errors = true, store_rejects = true)"
    )


def _scan_parquet(db: duckdb.DuckDBPyConnection, file: Path, columns: Sequence[str]) -> Scan:
    # Through Arrow: DuckDB's own reader stops at the first string that is not UTF-8 and does not
    # say in which row it is.
    schema = pq.read_schema(file)
    kinds = {name: _kind(file, name, schema.field(name).type) for name in columns}
    fields = [pa.field(name, _plain(schema.field(name).type)) for name in columns]
    ours = pa.schema([pa.field("#row", pa.int64()), pa.field("#broken", pa.string()), *fields])
    db.register("parquet", pa.RecordBatchReader.from_batches(ours, _batches(file, ours)))
    return Scan("FROM parquet", kinds, "text_not_utf8")


def _batches(file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    row = 1
    for batch in pq.ParquetFile(file).iter_batches(columns=schema.names[2:]):
        broken: list[str | None] = [None] * len(batch)
        arrays = [
            _plain_array(batch[name], schema.field(name).type, broken) for name in schema.names[2:]
        ]
        numbers = np.arange(row, row + len(batch), dtype=np.int64)
        ours = [pa.array(numbers), pa.array(broken, pa.string())]
        yield pa.RecordBatch.from_arrays([*ours, *arrays], schema=schema)
        row += len(batch)


def _plain_array(array: pa.Array, kind: pa.DataType, broken: list[str | None]) -> pa.Array:
    """Return `array` as `kind`; a string that is not UTF-8 becomes null and enters `broken`."""
    if not pa.types.is_large_string(kind):
        return array.cast(kind)
    raw = array.cast(array.type.value_type if pa.types.is_dictionary(array.type) else array.type)
    raw = raw.cast(pa.large_binary())
    try:
        return raw.cast(kind)  # looks at every byte, at 1 GB/s
    except pa.ArrowInvalid:
        texts: list[str | None] = [None] * len(raw)
        for row, text in enumerate(raw.to_pylist()):
            try:
                texts[row] = None if text is None else text.decode()
            except UnicodeDecodeError:
                broken[row] = str(text)
        return pa.array(texts, kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that DuckDB is to see: dictionaries unpacked, all strings alike."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    strings = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    if any(test(plain) for test in strings):
        return pa.large_string()
    return pa.float32() if types.is_float16(plain) else plain


def _kind(file: Path, name: str, kind: pa.DataType) -> str:
    plain, types = _plain(kind), pa.types
    if types.is_large_string(plain):
        return "text"
    if types.is_floating(plain):
        return "float"
    if types.is_timestamp(plain) or types.is_date(plain):
        return "time"
    if types.is_integer(plain) or types.is_decimal(plain) or types.is_boolean(plain):
        return "integer"
    raise ValueError(f"{file}: column {name!r} holds {kind}; expected text, numbers or times")


def _pointer(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")
