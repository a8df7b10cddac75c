"""From clean rows to the Arrow files of a corpus: numbered users and items, sorted histories.

DuckDB sorts and joins, on disk where memory is short; rows leave it in batches and lie in mapped
scratch files, so no table is held in memory but one column of the users or of the catalogue.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from clue.data.corpus import ragged_column, write_columns
from clue.data.ingest.readers import quoted
from clue.data.ragged import Ragged
from clue.data.text import encode

MEMORY_PER_THREAD = 125e6  # the least that DuckDB's guide to tuning asks for; below, it may fail
BATCH = 100_000  # rows that leave DuckDB at a time
# 60 bits of sha256: portable over machines and versions, which DuckDB's own hash() is not.
HASH = "('0x' || substr(sha256({}), 1, 15))::BIGINT"


def connect(work: Path, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """Return a database on disk in the directory `work`, which is made."""
    work.mkdir()
    db = duckdb.connect(str(work / "rows.duckdb"))
    try:
        db.execute(f"SET memory_limit = {quoted(memory_limit)}")
    except duckdb.Error as error:
        raise ValueError(f"memory_limit={memory_limit!r}: {error}; write it like 2GB") from None
    amount, unit = db.execute("SELECT current_setting('memory_limit')").fetchall()[0][0].split()
    memory = float(amount) * 1024.0 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit)
    (cores,) = db.execute("SELECT current_setting('threads')").fetchall()[0]
    db.execute(f"SET threads = {max(1, min(cores, int(memory / MEMORY_PER_THREAD)))}")
    db.execute(f"SET temp_directory = {quoted(str(work / 'spill'))}")
    # Dates without a zone are UTC on every machine, and nothing is fetched from the network.
    db.execute("SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false")
    return db


def number_users(db: duckdb.DuckDBPyConnection, split: str) -> None:
    """Makes `users` (user, user_id, split): users sorted by the bytes of their id.

    `split` is SQL for 0, 1 or 2 over a user's `user_id` and `part`.
    """
    db.execute(
        "CREATE TABLE users AS SELECT (row_number() OVER (ORDER BY user_id) - 1)::INTEGER AS user, "
        f"user_id, ({split})::UTINYINT AS split FROM (SELECT user_id, any_value(part) AS part "
        "FROM events WHERE reason IS NULL GROUP BY user_id)"
    )


def number_items(db: duckdb.DuckDBPyConnection, services: Sequence[str]) -> None:
    """Makes `numbered` (item, service, item_id, text): the catalogue by service, then item id."""
    cases = " ".join(f"WHEN {quoted(name)} THEN {i}" for i, name in enumerate(services))
    db.execute(
        "CREATE TABLE numbered AS SELECT "
        "(row_number() OVER (ORDER BY number, item_id) - 1)::INTEGER AS item, * FROM "
        f"(SELECT (CASE service {cases} END)::UTINYINT AS number, * FROM catalogue) "
        "WHERE number IS NOT NULL"
    )


def distinct_texts(db: duckdb.DuckDBPyConnection) -> Iterator[list[str]]:
    """Return every distinct text of the catalogue once, in batches, sorted."""
    for batch in _batches(db, "SELECT DISTINCT text FROM numbered ORDER BY text"):
        yield batch["text"].to_pylist()


def write_users(db: duckdb.DuckDBPyConnection, file: Path) -> np.ndarray:
    """Writes users.arrow; gives the number of users in each split."""
    users = db.sql("SELECT user_id, split FROM users ORDER BY user").to_arrow_table()
    columns = {
        "user_id": _whole(users["user_id"], pa.large_string()),
        "split": _whole(users["split"], pa.uint8()),
    }
    write_columns(file, columns)
    return np.bincount(columns["split"].to_numpy(), minlength=3)


def write_items(
    db: duckdb.DuckDBPyConnection,
    file: Path,
    tokenizer: Tokenizer,
    limit: int,
    seen: Callable[[int], object],
) -> tuple[int, int]:
    """Writes items.arrow, tokens cut to `limit`; gives the numbers of items and of tokens.

    Raises ValueError for a text of which the tokenizer makes no token at all.
    """
    content = HASH.format("text")
    query = f"SELECT item_id, number, text, {content} AS content FROM numbered ORDER BY item"
    parts: list[pa.RecordBatch] = []
    tokens: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for batch in _batches(db, query):
        parts.append(batch)
        flat, lengths = encode(tokenizer, batch["text"].to_pylist(), limit)
        tokens.append(flat)
        counts.append(lengths)
        seen(len(batch))
    items = pa.Table.from_batches(parts)
    lengths = np.concatenate(counts)
    if not lengths.all():
        item = int(np.flatnonzero(lengths == 0)[0])
        raise ValueError(f"the tokenizer makes no token of {items['text'][item].as_py()!r}")
    rows = Ragged(np.concatenate(tokens), np.concatenate([[0], np.cumsum(lengths)]))
    columns = {
        "item_id": _whole(items["item_id"], pa.large_string()),
        "service": _whole(items["number"], pa.uint8()),
        "text": _whole(items["text"], pa.large_string()),
        "tokens": ragged_column(rows),
        "content": _whole(items["content"], pa.int64()),
    }
    write_columns(file, columns)
    return len(lengths), len(rows.values)


def write_histories(
    db: duckdb.DuckDBPyConnection,
    service: str,
    file: Path,
    scratch: Path,
    seen: Callable[[int], object],
) -> int:
    """Writes the histories of one service, by time, then order of the log; gives their events.

    `scratch` is a directory for the columns on their way.
    """
    events = f"events WHERE reason IS NULL AND service = {quoted(service)}"
    ((total,),) = db.execute(f"SELECT count(*) FROM {events}").fetchall()
    ((users,),) = db.execute("SELECT count(*) FROM users").fetchall()
    items, times = (
        _mapped(scratch / "items", np.int32, total),
        _mapped(scratch / "times", float, total),
    )
    counts = np.zeros(users, dtype=np.int64)
    query = (
        f"SELECT user, item, seconds FROM (FROM {events}) e JOIN users USING (user_id) "
        "JOIN numbered n ON n.service = e.service AND n.item_id = e.item_id "
        "ORDER BY user, seconds, seq"
    )
    start = 0
    for batch in _batches(db, query):
        end = start + len(batch)
        items[start:end], times[start:end] = batch["item"].to_numpy(), batch["seconds"].to_numpy()
        who, how_many = np.unique(batch["user"].to_numpy(), return_counts=True)
        counts[who] += how_many
        start = end
        seen(len(batch))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    columns = {
        "items": ragged_column(Ragged(items, offsets)),
        "timestamps": ragged_column(Ragged(times, offsets)),
    }
    write_columns(file, columns)
    return start


def _batches(db: duckdb.DuckDBPyConnection, query: str) -> Iterable[pa.RecordBatch]:
    return db.sql(query).to_arrow_reader(BATCH)


def _whole(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(column.cast(kind).chunks)


def _mapped(file: Path, kind: type, length: int) -> np.ndarray:
    # An empty file cannot be mapped, and a service without events needs no file.
    return np.memmap(file, kind, "w+", shape=length) if length else np.empty(0, kind)
