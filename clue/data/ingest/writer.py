"""From clean rows to the Arrow files of a corpus: numbered users and items, sorted histories.

DuckDB sorts and joins, on disk where memory is short; rows leave it in batches and lie in mapped
scratch files, so no table is held in memory but one column of the users or of the catalogue.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from clue.data.columns import ragged_column, write_columns
from clue.data.fields import Field
from clue.data.history_shards import Sharded
from clue.data.ingest.fields import Stored, settle, stored
from clue.data.ingest.spool import Spool
from clue.data.ingest.values import quoted
from clue.data.ragged import Ragged
from clue.data.text import content_of, encode

MEMORY_PER_THREAD = 125e6  # the least that DuckDB's guide to tuning asks for; below, it may fail
OUTSIZED_SHARE, OUTSIZED_TIMES = 0.05, 20
BATCH = 100_000  # rows that leave DuckDB at a time
# 60 bits of sha256: portable over machines and versions, which DuckDB's own hash() is not.
HASH = "('0x' || substr(sha256({}), 1, 15))::BIGINT"


@dataclass(frozen=True)
class History:
    """The events of a service in the order of its histories: by user, time, then as in the log.

    `batches` have `user`, `item`, `seconds` and the columns of `fields`.
    """

    fields: Mapping[str, Stored]
    batches: Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class Rows:
    """Good rows, as an engine leaves them, beside table `catalogue` of the items.

    `clocks` has the services, in order, and whether their times are a clock's; `counted` is SQL of
    users (user_id, part, events). `histories` returns the events of a service with the fields
    given, once users and items are numbered; or they are written already.
    """

    dropped: dict[str, int]
    clocks: dict[str, bool]
    counted: str
    histories: Callable[[str, Mapping[Field, str]], History] | Sharded


def connect(work: Path, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """Return a database on disk in the directory `work`, which is made where it is missing."""
    work.mkdir(exist_ok=True)
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
    # Since DuckDB 2.0 it makes a join of `x IN (...)` for each of the columns: half of the reading.
    db.execute("SET disabled_optimizers = 'in_clause'")
    # Dates without a zone are UTC on every machine, and nothing is fetched from the network.
    db.execute("SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false")
    return db


def number_users(db: duckdb.DuckDBPyConnection, split: str, counted: str) -> None:
    """Make `users` (user, user_id, split, events): users sorted by the bytes of their id.

    `split` is SQL for 0, 1 or 2 over a user's `user_id` and `part`, which `counted` has; what else
    it has stays.
    """
    db.execute(
        "CREATE TEMP TABLE users AS SELECT "
        "(row_number() OVER (ORDER BY user_id) - 1)::INTEGER AS user, "
        f"({split})::UTINYINT AS split, * EXCLUDE (part) FROM {counted}"
    )


def outsized_user(db: duckdb.DuckDBPyConnection) -> str | None:
    """Return a line on a user with OUTSIZED_SHARE of all events and OUTSIZED_TIMES the mean.

    That is mostly what a log writes for nobody: in an export of Online Retail `NA` has a quarter.
    """
    ((user, most, total, users),) = db.execute(
        "SELECT arg_max(user_id, events), max(events), sum(events), count(*) FROM users"
    ).fetchall()
    if most < max(OUTSIZED_SHARE * total, OUTSIZED_TIMES * total / users):
        return None
    return (
        f"user {user!r} has {most:,} of {total:,} events ({most / total:.0%}); where that "
        "stands for no user, add it to null_values"
    )


def number_items(db: duckdb.DuckDBPyConnection, services: Sequence[str]) -> None:
    """Make `numbered` (item, service, item_id, text): the catalogue by service, then item id."""
    cases = " ".join(f"WHEN {quoted(name)} THEN {i}" for i, name in enumerate(services))
    db.execute(
        "CREATE TEMP TABLE numbered AS SELECT "
        "(row_number() OVER (ORDER BY number, item_id) - 1)::INTEGER AS item, * FROM "
        f"(SELECT (CASE service {cases} END)::UTINYINT AS number, * FROM catalogue) "
        "WHERE number IS NOT NULL"
    )


def distinct_texts(db: duckdb.DuckDBPyConnection) -> Iterator[list[str]]:
    """Return every distinct text of the catalogue once, in batches, sorted."""
    for batch in _batches(db, "SELECT DISTINCT text FROM numbered ORDER BY text"):
        yield batch["text"].to_pylist()


def write_users(db: duckdb.DuckDBPyConnection, file: Path) -> np.ndarray:
    """Write users.arrow; return the number of users in each split."""
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
    """Write items.arrow, tokens cut to `limit`; return the numbers of items and of tokens.

    Raises ValueError for a text of which the tokenizer makes no token at all.
    """
    _encode(db, tokenizer, limit, seen)
    query = (
        "SELECT item_id, n.number, text, tokens FROM numbered n "
        "JOIN encoded ON hash = sha256(text) ORDER BY item"
    )
    parts: list[pa.RecordBatch] = []
    tokens: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for batch in _batches(db, query):
        parts.append(batch.drop_columns(["tokens"]))
        tokens.append(batch["tokens"].flatten().to_numpy())
        counts.append(np.diff(batch["tokens"].offsets.to_numpy()))
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
        "content": pa.array(content_of(rows.values, lengths)),
    }
    write_columns(file, columns)
    return len(lengths), len(rows.values)


def _encode(
    db: duckdb.DuckDBPyConnection, tokenizer: Tokenizer, limit: int, seen: Callable[[int], object]
) -> None:
    """Add to `encoded` (hash, tokens) the texts of `numbered` that it lacks, each text once."""
    db.execute("CREATE TABLE IF NOT EXISTS encoded (hash VARCHAR, tokens INTEGER[])")
    db.execute(
        "CREATE OR REPLACE TEMP TABLE texts AS SELECT text FROM "
        "(SELECT DISTINCT text FROM numbered) ANTI JOIN encoded ON hash = sha256(text)"
    )
    ((total,),) = db.sql("SELECT count(*) FROM texts").fetchall()
    for start in range(0, total, BATCH):
        rows = f"rowid >= {start} AND rowid < {start + BATCH}"
        texts = db.sql(f"SELECT text FROM texts WHERE {rows}").to_arrow_table()["text"]
        flat, lengths = encode(tokenizer, texts.to_pylist(), limit)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
        db.register("new_texts", pa.table({"text": texts, "tokens": lists}))
        db.execute("INSERT INTO encoded SELECT sha256(text), tokens FROM new_texts")
        seen(len(texts))


def read_histories(
    db: duckdb.DuckDBPyConnection, service: str, fields: Mapping[Field, str]
) -> History:
    """Return the events of a service; `fields` have the columns of `events` that hold them."""
    events = (
        f"good WHERE service = (SELECT number FROM known_service WHERE service = {quoted(service)})"
    )
    own = {name: stored(db, field, name, events) for field, name in fields.items()}
    chosen = ", ".join(["u.user", "n.item", "seconds", *(each.select for each in own.values())])
    query = (
        f"SELECT {chosen} FROM (FROM {events}) e JOIN users u ON u.known = e.user "
        "JOIN numbered n ON n.known = e.item "
        f"{' '.join(each.join for each in own.values())} ORDER BY u.user, seconds, seq"
    )
    return History(own, _batches(db, query))


def write_histories(
    db: duckdb.DuckDBPyConnection,
    history: History,
    file: Path,
    scratch: Path,
    seen: Callable[[int], object],
) -> tuple[int, list[Field]]:
    """Write the histories of one service; `scratch` is a directory for columns on their way.

    Return the number of events and the fields as learnt from training users.
    """
    own = history.fields
    split = db.sql("SELECT split FROM users ORDER BY user").to_arrow_table()["split"].to_numpy()
    kinds = {"item": np.int32, "seconds": np.float64} | {n: each.dtype for n, each in own.items()}
    flat = {name: Spool(scratch / name, kind) for name, kind in kinds.items()}
    is_train = Spool(scratch / "is_train", np.bool_)
    counts = np.zeros(len(split), dtype=np.int64)
    for batch in history.batches:
        for name, column in flat.items():
            column.add(batch[name].to_numpy())
        user = batch["user"].to_numpy()
        is_train.add(split[user] == 0)
        firsts = np.flatnonzero(np.diff(user, prepend=-1))
        counts[user[firsts]] += np.diff(firsts, append=len(user))
        seen(len(batch))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    columns = {"items": flat["item"], "timestamps": flat["seconds"]}
    learnt: list[Field] = []
    for name, each in own.items():
        codes = Spool(scratch / f"{name}.codes", np.uint16)
        field, columns[each.field.name] = settle(each, flat[name], is_train, codes)
        learnt.append(field)

    def let_go() -> None:
        for column in columns.values():
            column.release()

    rows = {name: ragged_column(Ragged(each.read(), offsets)) for name, each in columns.items()}
    write_columns(file, rows, let_go)
    return int(offsets[-1]), learnt


def _batches(db: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query, which begins with the first of them."""
    yield from db.sql(query).to_arrow_reader(BATCH)


def _whole(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(column.cast(kind).chunks)
