"""Arrow files of one record batch, mapped into memory: the columns that a corpus is made of."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from clue.data.ragged import Ragged


def history_file(path: Path, service: str) -> Path:
    """Where the histories of a service lie in the corpus directory `path`."""
    return path / f"histories_{quote(service, safe='')}.arrow"


def write_columns(file: Path, columns: Mapping[str, pa.Array]) -> None:
    """Write the columns as one record batch into an Arrow IPC file."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


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
