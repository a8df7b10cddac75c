"""Arrow files of one record batch, mapped into memory: the columns that a corpus is made of."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from clue.data.ragged import Ragged

PIECE = 1 << 26  # bytes that are written at a time


def history_file(path: Path, service: str) -> Path:
    """Where the histories of a service lie in the corpus directory `path`."""
    return path / f"histories_{quote(service, safe='')}.arrow"


def write_columns(
    file: Path, columns: Mapping[str, pa.Array], written: Callable[[], object] | None = None
) -> None:
    """Write the columns as one record batch into an Arrow IPC file.

    `written` is called after every PIECE bytes; columns of mapped files let go of them then.
    """
    with file.open("wb") as out:
        write_batch(_Pieces(out, written), columns)


def write_batch(sink: io.RawIOBase, columns: Mapping[str, pa.Array]) -> None:
    """Write into `sink` what the file of these columns is; columns come as Arrow's own buffers."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    with pa.PythonFile(sink, "w") as out, pa.ipc.new_file(out, batch.schema) as writer:
        writer.write_batch(batch)


class _Pieces(io.RawIOBase):
    """A file that is written in pieces, whatever the size of a column."""

    def __init__(self, out: BinaryIO, written: Callable[[], object] | None) -> None:
        self._out, self._written = out, written

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._out.tell()

    def flush(self) -> None:
        self._out.flush()

    def write(self, data: Any) -> int:
        whole = memoryview(data)
        for start in range(0, len(whole), PIECE):
            self._out.write(whole[start : start + PIECE])
            if self._written is not None:
                self._written()
        return len(whole)


def map_columns(file: Path) -> pa.RecordBatch:
    """Return the columns of a file, mapped; ValueError where it is missing."""
    if not file.is_file():
        raise ValueError(f"{file} is missing; prepare the corpus again with overwrite=true")
    return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)


def ragged_column(rows: Ragged) -> pa.Array:
    """Return `rows` as an Arrow large_list column over the same memory."""
    return pa.LargeListArray.from_arrays(pa.array(rows.offsets), pa.array(rows.values))


def as_ragged(column: pa.Array) -> Ragged:
    """Return an Arrow large_list column as rows over the same memory."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[: len(column) + 1]
    return Ragged(np.from_dlpack(column.values), offsets)
