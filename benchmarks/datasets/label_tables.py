"""Tables of labels, impressions and sales, whose ids and times are those of a corpus."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from clue.data.corpus import Corpus
from clue.data.ingest.table import ColumnKind, read_columns
from clue.data.ingest.times import CLOCK


@dataclass(frozen=True)
class Labelled:
    """Users with a known label: corpus indices (n,), labels (n,) as indices into `classes`.

    Without classes the labels are numbers.
    """

    users: np.ndarray
    labels: np.ndarray
    classes: list[str]


def read_table(file: Path, columns: Mapping[str, ColumnKind]) -> pa.Table:
    """Return the columns, by what they hold; raises as `read_columns`, for an empty cell too."""
    table = read_columns(file, columns)
    for name in columns:
        if table[name].null_count:
            raise ValueError(f"{file}: {table[name].null_count} empty cells of {name!r}; fill them")
    return table


def read_labels(corpus: Corpus, file: Path, column: str) -> Labelled:
    """Return the labels of the corpus' users from a table with `user_id` and `column`.

    Users without a row or with a null label are left out, and so are labels that no training user
    has. Raises as `read_columns` does, and ValueError for a user with two rows or a label that
    fewer than two classes of training users carry.
    """
    table = read_columns(file, {"user_id": "id", column: "text"})
    table = table.filter(table["user_id"].is_valid())
    ids, values = (table[name].to_pylist() for name in ("user_id", column))
    label_of = dict(zip(ids, values, strict=True))
    if len(label_of) < len(ids):
        raise ValueError(f"{file}: a user_id has more than one row; give one label per user")
    by_user = [label_of.get(user) for user in corpus.user_ids.to_pylist()]
    rows_of(table["user_id"], corpus.user_ids.to_pylist(), f"{file}: user_id", corpus)
    trains = corpus.split == 0
    pairs = zip(by_user, trains, strict=True)
    classes = sorted({value for value, train in pairs if train and value is not None})
    if len(classes) < 2:
        raise ValueError(
            f"{file}: the training users carry {len(classes)} different values of {column!r}; "
            "a probe needs two, and the user_id of the table must be those of the event log"
        )
    number = {value: at for at, value in enumerate(classes)}
    users = np.array([user for user, value in enumerate(by_user) if value in number])
    return Labelled(users, np.array([number[by_user[user]] for user in users]), classes)


def read_amounts(corpus: Corpus, file: Path, column: str) -> Labelled:
    """Return the numbers of the corpus' users from a table with `user_id` and `column`.

    Users without a row are left out. Raises as `read_table` does.
    """
    table = read_table(file, {"user_id": "id", column: "number"})
    ids = pa.chunked_array([corpus.user_ids])
    rows = rows_of(ids, table["user_id"].to_pylist(), f"{file}: user_id", corpus)
    users = np.flatnonzero(rows >= 0)
    return Labelled(users, table[column].to_numpy()[rows[users]], [])


def rows_of(ids: pa.ChunkedArray, known: Sequence[str], what: str, corpus: Corpus) -> np.ndarray:
    """Return the row (n,) of each id among those `known`, -1 where it is not among them.

    A line says how many different ids of `what` are not in the corpus.
    """
    coded = ids.combine_chunks().dictionary_encode()
    row_of = {name: row for row, name in enumerate(known)}
    rows = np.array([row_of.get(name, -1) for name in coded.dictionary.to_pylist()], np.int64)
    unknown = int((rows < 0).sum())
    if unknown:
        sys.stderr.write(f"{what}: {unknown:,} of {len(rows):,} ids are not in {corpus.path}\n")
    return rows[coded.indices.to_numpy()]


def check_times(corpus: Corpus, service: str, times: np.ndarray, what: str) -> None:
    """Raise ValueError where `times` (n,) and the events of a service cannot be of one clock.

    A table of clock times beside a corpus of positions, or the reverse, would let every event pass
    for one before the moment, or none.
    """
    events = corpus.timestamps_of(service_of(corpus, service)).values
    if not len(events) or not len(times):
        return
    ours, theirs = float(np.median(np.abs(events))), float(np.median(np.abs(times)))
    if (ours >= CLOCK) != (theirs >= CLOCK):
        raise ValueError(
            f"{what}: times around {theirs:.0f}, but those of {service} in {corpus.path} are "
            f"around {ours:.0f}; both must be of one clock: bring one to the other"
        )


def service_of(corpus: Corpus, service: str) -> int:
    """Return the number of a service of the corpus. ValueError where it has none of that name."""
    if service not in corpus.services:
        raise ValueError(
            f"{corpus.path} has no service {service!r}; there are {', '.join(corpus.services)}"
        )
    return corpus.services.index(service)
