"""Staged events as they stay: numbers in a database on disk, added part by part, whole or not.

What `staging` has read as text is numbered in the order of arrival, so that events are joined and
sorted by integers: a fifth of the bytes, and no text is compared for each event. The numbers of the
corpus, which follow the sorted ids, are given at the end and depend on no arrival.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from clue.data.ingest.fields import column_name
from clue.data.ingest.parts import Part, parts_of
from clue.data.ingest.progress import Progress
from clue.data.ingest.staging import Layout, create_tables, stage_events, stage_items
from clue.data.ingest.times import RANGES, Settled, Unit, converted_sql, groups_sql
from clue.data.ingest.validation import ROWS_PER_FILE, Log
from clue.data.ingest.values import quoted

# Rows that are numbered at a time, 400 MB as text; for each part the known ids are gone through.
PART = 1 << 22
TIMES = len(RANGES) + 4  # the counts of `times.counts_sql`


@dataclass(frozen=True)
class Numbering:
    """A column of table `staged` that is the number of a text, or of two, in table `known_*`."""

    column: str
    key: tuple[str, ...]

    @property
    def table(self) -> str:
        """The table of the texts, numbered from 0 as they arrived."""
        return f"known_{self.column}"


@dataclass(frozen=True)
class Reading:
    """How an event log is read; `with_text` renders the items' texts from its own columns."""

    layout: Layout
    with_text: bool
    unit: Unit | None  # of its times, where it is said


TEXT = Numbering("text", ("text",))


def numberings(reading: Reading) -> list[Numbering]:
    """Return which columns of the events are staged by number."""
    named = enumerate(reading.layout.fields)
    fields = [column_name(number) for number, each in named if each.kind != "numeric"]
    alone = ["service", *(["text"] * reading.with_text), *(["part"] * bool(reading.layout.split))]
    alone += fields
    whose = [Numbering("user", ("user_id",)), Numbering("item", ("service", "item_id"))]
    return [*(Numbering(name, (name,)) for name in alone), *whose]


def create_staged(db: duckdb.DuckDBPyConnection, reading: Reading) -> None:
    """Make the tables that stay, those that are missing."""
    layout = reading.layout
    numeric = [
        f"{column_name(n)} FLOAT" for n, each in enumerate(layout.fields) if each.kind == "numeric"
    ]
    columns = ["seq BIGINT", "seconds DOUBLE", "is_number BOOLEAN", *numeric]
    columns += [f"{each.column} INTEGER" for each in numberings(reading)]
    columns += ["reason VARCHAR", "value VARCHAR"]
    tables = {
        "staged": ", ".join(columns),
        "claims": "seq BIGINT, service VARCHAR, item_id VARCHAR, text VARCHAR, reason VARCHAR, "
        "value VARCHAR",
        "times": "file BIGINT, service VARCHAR, is_number BOOLEAN, counts DOUBLE[]",
        "rejected": "log VARCHAR, file BIGINT, row BIGINT, reason VARCHAR, text VARCHAR",
        "finished": "log VARCHAR, file BIGINT, skipped BIGINT",
    }
    for each in numberings(reading):
        keys = ", ".join(f"{key} VARCHAR" for key in each.key)
        tables[each.table] = f"number INTEGER, {keys}"
    for name, columns_sql in tables.items():
        db.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns_sql})")


def stage_log(db: duckdb.DuckDBPyConnection, log: Log, reading: Reading, show: Progress) -> None:
    """Read the parts of a log that are not staged yet, and stage them; then all are known to it.

    Small files are numbered together. Raises ValueError for a file that cannot be read to its end.
    """
    create_tables(db, reading.layout)
    finished = set(
        db.execute("SELECT file, skipped FROM finished WHERE log = ?", [log.table]).fetchall()
    )
    waiting: list[Part] = []
    for part in parts_of(log, rows=PART):
        if (part.number, part.skipped) in finished:
            continue
        with show.stage(f"reading {part}"):
            if log.table == "items":
                stage_items(db, log, part, reading.layout)
            else:
                stage_events(db, log, part, reading.layout, with_text=reading.with_text)
        waiting.append(part)
        ((rows,),) = db.execute(f"SELECT count(*) FROM {log.table}").fetchall()
        if rows >= PART:
            _keep(db, log, waiting, reading, show)
            waiting = []
    if waiting:
        _keep(db, log, waiting, reading, show)
    _recall(db, log)


def _keep(
    db: duckdb.DuckDBPyConnection,
    log: Log,
    parts: Sequence[Part],
    reading: Reading,
    show: Progress,
) -> None:
    """Move the rows that have arrived to the tables that stay, all of them or none."""
    db.execute("BEGIN")
    if log.table == "items":
        into = "seq, service, item_id, text, reason, value"
        db.execute(f"INSERT INTO claims SELECT {into} FROM items")
    else:
        with show.stage("numbering what was read"):
            _keep_events(db, reading)
    for part in parts:
        rejected = [[log.table, part.number, *row] for row in log.rejected.pop(part.number, [])]
        if rejected:
            db.executemany("INSERT INTO rejected VALUES (?, ?, ?, ?, ?)", rejected)
        db.execute("INSERT INTO finished VALUES (?, ?, ?)", [log.table, part.number, part.skipped])
    db.execute("COMMIT")
    create_tables(db, reading.layout)


def _keep_events(db: duckdb.DuckDBPyConnection, reading: Reading) -> None:
    """Move the events that have arrived to `staged`, and count their times."""
    layout = reading.layout
    numbered, rows = numberings(reading), "events"
    plain = ["seq", "seconds", "is_number", "reason", "value"]
    plain += [column_name(n) for n, each in enumerate(layout.fields) if each.kind == "numeric"]
    if (
        reading.with_text
    ):  # alone and first: texts may be long, and the joins below share the memory
        numbered = [each for each in numbered if each.column != "text"]
        _number(db, TEXT)
        db.execute(
            "CREATE OR REPLACE TEMP TABLE events_by_text AS "
            "SELECT e.* REPLACE (text_seen.number AS text) FROM events e "
            "LEFT JOIN text_seen USING (text)"
        )
        rows, plain = "events_by_text", [*plain, "text"]
    joins = ""
    for each in numbered:
        _number(db, each)
        same = " AND ".join(f"{each.column}_seen.{key} = e.{key}" for key in each.key)
        joins += f" LEFT JOIN {each.column}_seen ON {same}"
    into = ", ".join([*plain, *(each.column for each in numbered)])
    chosen = [f"e.{name}" for name in plain] + [f"{each.column}_seen.number" for each in numbered]
    db.execute("SET preserve_insertion_order = false")  # `seq` has the order
    db.execute(f"INSERT INTO staged ({into}) SELECT {', '.join(chosen)} FROM {rows} e{joins}")
    db.execute("SET preserve_insertion_order = true")
    groups = db.execute(groups_sql(reading.unit)).fetchall()
    if groups:
        counts = [[*row[:3], list(row[3:])] for row in groups]
        db.executemany("INSERT INTO times VALUES (?, ?, ?, ?)", counts)


def _number(db: duckdb.DuckDBPyConnection, each: Numbering) -> None:
    """Make `<column>_seen`, the numbers of the texts in `events`, new ones added to those known.

    The known ones are gone through once, and only those that are seen are held in memory.
    """
    key, seen, table = ", ".join(each.key), f"{each.column}_seen", each.table
    present = " AND ".join(f"{name} IS NOT NULL" for name in each.key)
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE distinct_keys AS "
        f"SELECT DISTINCT {key} FROM events WHERE {present}"
    )
    ((known,),) = db.execute(f"SELECT count(*) FROM {table}").fetchall()
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE {seen} AS FROM {table} SEMI JOIN distinct_keys USING ({key})"
    )
    db.execute(
        f"INSERT INTO {seen} SELECT {known} + row_number() OVER () - 1, {key} "
        f"FROM distinct_keys ANTI JOIN {seen} USING ({key})"
    )
    db.execute(f"INSERT INTO {table} FROM {seen} WHERE number >= {known}")


def _recall(db: duckdb.DuckDBPyConnection, log: Log) -> None:
    """Fill the rejected rows of a log, as they were noted when its parts were staged."""
    rows = db.execute(
        "SELECT file, row, reason, text FROM rejected WHERE log = ? ORDER BY file, row", [log.table]
    ).fetchall()
    for number, row, reason, text in rows:
        log.rejected.setdefault(number, []).append((row, reason, text))


def counted_times(db: duckdb.DuckDBPyConnection, unit: Unit | None) -> list[tuple[Any, ...]]:
    """Return the counts of all parts as `times.settle` reads them."""
    if unit is not None:
        return db.execute(
            "SELECT file, service, is_number, sum(counts[1]) FROM times GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    sums = ", ".join(f"sum(counts[{n}])" for n in range(1, TIMES))
    sums += f", max(counts[{TIMES}])"
    return db.execute(
        f"SELECT file, service, is_number, {sums} FROM times GROUP BY ALL ORDER BY ALL"
    ).fetchall()


def judge_times(db: duckdb.DuckDBPyConnection, settled: Settled) -> None:
    """Make view `judged`: table `staged` with times in seconds, those of another unit bad.

    A view, for an UPDATE of all rows would hold as many in memory.
    """
    groups = [f"{group[:-1]}, {quoted(u)})" for u, all_ in settled.groups.items() for group in all_]
    rows = "staged"
    if groups:
        db.execute(
            "CREATE OR REPLACE TEMP TABLE units AS SELECT file, number AS service, unit FROM "
            f"(VALUES {', '.join(groups)}) g(file, service, unit) "
            "JOIN known_service USING (service)"
        )
        rows = (
            "(SELECT s.*, CASE WHEN is_number AND reason IS NULL THEN unit END AS unit FROM staged "
            f"s LEFT JOIN units u ON u.file = seq // {ROWS_PER_FILE} AND u.service = s.service)"
        )
    db.execute(f"CREATE OR REPLACE TEMP VIEW judged AS {converted_sql(settled, rows)}")


def good_services(db: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the services that have events in view `good`, sorted."""
    rows = db.execute(
        "SELECT s.service FROM known_service s SEMI JOIN good g ON g.service = s.number ORDER BY 1"
    ).fetchall()
    return [service for (service,) in rows]


def counted_sql(layout: Layout) -> str:
    """Return SQL of the users of view `good`: user_id, part, events, and the number staged."""
    part = "(SELECT part FROM known_part p WHERE p.number = u.part)" if layout.split else "NULL"
    of_user = ", any_value(part) AS part" if layout.split else ""
    return (
        f"(SELECT known, user_id, {part} AS part, events FROM (SELECT user AS known, "
        f"count(*) AS events{of_user} FROM good GROUP BY user) u JOIN known_user ON number = known)"
    )
