"""Parquet as batches of few plain types: text, numbers, times. Other types are refused by name.

Through Arrow: DuckDB's own reader stops at the first string that is not UTF-8 and does not say in
which row it is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue.data.ingest.values import EXACT, Column, Kind

# The first whole number that a float of so many bits does not tell from its neighbour.
EXACT_BY_WIDTH = {16: 2**11, 32: 2**24, 64: EXACT}
UUID_BYTES = 16


def column_names(file: Path) -> list[str]:
    """Return the names of the columns; ValueError for what is no Parquet file."""
    return pq.read_schema(file).names


def parquet_columns(file: Path, names: Sequence[str]) -> dict[str, Column]:
    """Return the columns of these names, c0, c1, ...; ValueError for a type that is not read."""
    schema = pq.read_schema(file)
    return {
        name: _column(f"c{number}", file, name, schema.field(name).type)
        for number, name in enumerate(names)
    }


def parquet_batches(
    file: Path, names: Sequence[str], row_groups: Sequence[int] | None = None
) -> pa.RecordBatchReader:
    """Return "#row" (from 1), "#broken" (text that is not UTF-8, or null) and c0, c1, ....

    Of `row_groups`, or of all of them.
    """
    schema = pq.read_schema(file)
    fields = [pa.field(f"c{i}", _plain(schema.field(name).type)) for i, name in enumerate(names)]
    ours = pa.schema([pa.field("#row", pa.int64()), pa.field("#broken", pa.string()), *fields])
    return pa.RecordBatchReader.from_batches(ours, _batches(file, names, ours, row_groups))


def _batches(
    file: Path, names: Sequence[str], schema: pa.Schema, row_groups: Sequence[int] | None
) -> Iterator[pa.RecordBatch]:
    row = 1
    for batch in pq.ParquetFile(file).iter_batches(columns=list(names), row_groups=row_groups):
        broken: list[str | None] = [None] * len(batch)
        arrays = [
            _plain_array(batch[name], schema.field(f"c{i}").type, broken)
            for i, name in enumerate(names)
        ]
        numbers = np.arange(row, row + len(batch), dtype=np.int64)
        ours = [pa.array(numbers), pa.array(broken, pa.string())]
        yield pa.RecordBatch.from_arrays([*ours, *arrays], schema=schema)
        row += len(batch)


def _plain_array(array: pa.Array, kind: pa.DataType, broken: list[str | None]) -> pa.Array:
    """Return `array` as `kind`; a string that is not UTF-8 becomes null and enters `broken`."""
    array = array.cast(_unpacked(array.type)) if pa.types.is_dictionary(array.type) else array
    if kind == pa.uuid():
        storage = array.storage if isinstance(array, pa.ExtensionArray) else array
        return pa.ExtensionArray.from_storage(kind, storage)
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if pa.types.is_timestamp(array.type) and pa.types.is_int64(kind):
        return array.cast(pa.timestamp("ns")).view(pa.int64())
    if not pa.types.is_large_string(kind) or not _is_string(array.type):
        return array.cast(kind)
    raw = array.cast(pa.large_binary())
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


def _is_string(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_string_view)
    return any(test(kind) for test in (*tests, *_BINARY))


_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


def _unpacked(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values: dictionaries unpacked, extensions as they are stored."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if isinstance(kind, pa.BaseExtensionType) and kind != pa.uuid():
        return kind.storage_type
    return kind


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that DuckDB is to see; all strings and null columns are alike."""
    kind, types = _unpacked(kind), pa.types
    if _is_string(kind) or types.is_null(kind) or types.is_decimal256(kind):
        return pa.large_string()
    if types.is_fixed_size_binary(kind) and kind.byte_width == UUID_BYTES:
        return pa.uuid()
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.int64()
    return pa.float32() if types.is_float16(kind) else kind


def _column(sql: str, file: Path, name: str, kind: pa.DataType) -> Column:
    inner, plain, types = _unpacked(kind), _plain(kind), pa.types
    exact = EXACT_BY_WIDTH[inner.bit_width] if types.is_floating(inner) else EXACT
    tests: dict[Kind, bool] = {
        "decimal": types.is_decimal(inner),
        "text": types.is_large_string(plain),
        "float": types.is_floating(plain),
        "nanoseconds": types.is_timestamp(inner) and inner.unit == "ns",
        "time": types.is_timestamp(plain) or types.is_date(plain),
        "integer": plain == pa.uuid() or types.is_integer(plain) or types.is_boolean(plain),
    }
    for each, holds in tests.items():
        if holds:
            return Column(sql, each, exact)
    raise ValueError(
        f"{file}: column {name!r} holds {kind}; expected text, numbers or times: write it as text "
        "or, where it is a list, one row for each value"
    )
