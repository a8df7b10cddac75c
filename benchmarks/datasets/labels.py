"""Tables of labels, in Parquet, whose ids are those of a corpus."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue.data.corpus import Corpus


def read_table(file: Path, columns: Sequence[str]) -> pa.Table:
    """Return columns; FileNotFoundError or ValueError for what is missing, an empty cell too."""
    if not file.is_file():
        raise FileNotFoundError(f"no table {file}; it needs the columns {', '.join(columns)}")
    there = pq.read_schema(file).names
    for name in columns:
        if name not in there:
            raise ValueError(f"{file}: no column {name!r}; there are {', '.join(there)}")
    table = pq.read_table(file, columns=list(columns)).combine_chunks()
    for name in columns:
        if table[name].null_count:
            raise ValueError(f"{file}: {table[name].null_count} empty cells of {name!r}; fill them")
    return table


def rows_of(ids: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    """Return the place (n,) of each id among those `known`, -1 where it is not."""
    coded = ids.cast(pa.string()).combine_chunks().dictionary_encode()
    place = {name: row for row, name in enumerate(known)}
    each = np.array([place.get(name, -1) for name in coded.dictionary.to_pylist()], np.int64)
    return each[coded.indices.to_numpy()]


def service_of(corpus: Corpus, service: str) -> int:
    """Return the number of a service of the corpus. ValueError where it has none of that name."""
    if service not in corpus.services:
        raise ValueError(
            f"{corpus.path} has no service {service!r}; there are {', '.join(corpus.services)}"
        )
    return corpus.services.index(service)
