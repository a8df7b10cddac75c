"""Bad rows: what makes rows bad beyond their own columns, and how they are named to the user.

A reason is a short name that the manifest counts by; the examples say file, row and value.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from clue.data.ingest.files import LogFile
from clue.data.ingest.progress import Progress

ROWS_PER_FILE = 1 << 40  # seq = file * ROWS_PER_FILE + row
MOST_SERVICES = 256  # a service is one byte in items.arrow
EXAMPLES = 3  # bad rows shown per reason
HINTS = {
    "bad_timestamp": "a time is a number, or YYYY-MM-DD hh:mm:ss with +hh:mm, Z or no zone; for "
    "another form say time_format='%d/%m/%Y %H:%M'",
    "id_beyond_2_53": "a float does not hold whole numbers of that size; write ids as integers or "
    "text where the log is made",
    "not_a_plain_value": "an id or a text is no list and no object; write one row for each value",
    "time_of_another_unit": "one file has one unit a service; say time_unit= where it has",
    "not_a_number": "a field's number is finite, at most 3.4e38, and has a point, 1234.5; convert "
    "it where the log is made, or declare the field categorical",
    "not_a_boolean": "a boolean is true, t, yes, 1, false, f, no or 0; name under null_values "
    "what stands for none, or declare the field categorical",
    "item_with_another_text": "with on_bad_row=drop an item keeps its first text, and the events "
    "stay",
}


Rejected = tuple[int, str, str]  # row, reason, text


@dataclass
class Log:
    """The files of one table ("events" or "items") and the columns of each (`columns_of`).

    `rejected` holds the CSV rows that could not be split, by file number; `skipped` are the numbers
    of files that are not read, for their rows are staged.
    """

    table: str
    files: list[LogFile]
    columns: list[list[str]]
    rejected: dict[int, list[Rejected]] = field(default_factory=dict[int, list[Rejected]])
    skipped: frozenset[int] = frozenset()

    def place(self, seq: int) -> str:
        """Return "FILE row N" of a row read."""
        number, row = divmod(seq, ROWS_PER_FILE)
        # DuckDB numbers the rows it could split; the others before this one count too.
        rejected = [bad for bad, _, _ in self.rejected.get(number, [])]
        readable = [bad - before for before, bad in enumerate(rejected)]
        return f"{self.files[number]} row {row + bisect.bisect_right(readable, row)}"


@dataclass(frozen=True)
class BadRows:
    """All rows that are bad for one reason: how many, and the first few in words."""

    reason: str
    count: int
    examples: list[str]


def find_conflicting_users(db: duckdb.DuckDBPyConnection, *, split: bool) -> None:
    """Make `bad_users` (user, value), those with two values in the split column, and view `clean`.

    `clean` has the events that are good as far as that: in `judged`, without a reason.
    """
    db.execute("CREATE OR REPLACE TEMP TABLE bad_users (user INTEGER, value VARCHAR)")
    if split:
        db.execute(
            "INSERT INTO bad_users SELECT number, user_id || ': ' || first || ' and ' || last FROM "
            "(SELECT j.user AS number, min(p.part) AS first, max(p.part) AS last FROM judged j "
            "JOIN known_part p ON p.number = j.part WHERE reason IS NULL GROUP BY j.user) "
            "JOIN known_user USING (number) WHERE first <> last"
        )
    without = " AND user NOT IN (SELECT user FROM bad_users)" * (_count(db, "FROM bad_users") > 0)
    db.execute(
        f"CREATE OR REPLACE TEMP VIEW clean AS SELECT * FROM judged WHERE reason IS NULL{without}"
    )


def build_catalogue(db: duckdb.DuckDBPyConnection, *, from_items: bool) -> None:
    """Make `catalogue` (known, service, item_id, text, differs): items with their first texts.

    The claims of the items log say what a text is, or else the events themselves. `known` is the
    item's number among those of events, or NULL. Then `bad_items` (item, value), those that the
    catalogue lacks, and view `good`, the events that the corpus will have.
    """
    if from_items:
        db.execute(
            "CREATE OR REPLACE TEMP TABLE catalogue AS SELECT number AS known, c.* FROM "
            "(SELECT service, item_id, arg_min(text, seq) AS text, "
            "min(text) <> max(text) AS differs FROM claims WHERE reason IS NULL "
            "GROUP BY service, item_id) c LEFT JOIN known_item USING (service, item_id)"
        )
    else:
        db.execute(
            "CREATE OR REPLACE TEMP TABLE catalogue AS "
            "SELECT c.known, i.service, i.item_id, t.text, c.differs FROM (SELECT item AS known, "
            "arg_min(text, seq) AS text, min(text) <> max(text) AS differs FROM clean "
            "GROUP BY item) c JOIN known_item i ON i.number = known "
            "JOIN known_text t ON t.number = c.text"
        )
    db.execute(
        "CREATE OR REPLACE TEMP TABLE bad_items AS "
        "SELECT number AS item, service || ' ' || item_id AS value "
        "FROM known_item i ANTI JOIN catalogue ON known = number"
    )
    without = " WHERE item NOT IN (SELECT item FROM bad_items)" * (_count(db, "FROM bad_items") > 0)
    db.execute(f"CREATE OR REPLACE TEMP VIEW good AS SELECT * FROM clean{without}")


def bad_rows(db: duckdb.DuckDBPyConnection, logs: Sequence[Log]) -> list[BadRows]:
    """Return all bad rows of all logs, by reason."""
    return [bad for log in logs for bad in (*rejected(log), *_flagged(db, log))]


def conflicting_texts(db: duckdb.DuckDBPyConnection, log: Log) -> list[BadRows]:
    """Return the rows of `log` whose text is not the first one of their item.

    Where bad rows are dropped, the item keeps its first text. An event with another one stays, for
    it did happen; it is no dropped row.
    """
    if not _count(db, "FROM catalogue WHERE differs"):
        return []
    rows = "claims r JOIN catalogue c USING (service, item_id)"
    if log.table == "events":
        rows = "clean e JOIN known_text r ON r.number = e.text JOIN catalogue c ON c.known = e.item"
    reason = "r.reason IS NULL AND " * (log.table == "items")
    other = f"FROM {rows} WHERE c.differs AND {reason}r.text <> c.text"
    count = _count(db, other)
    conflicts = db.execute(
        f"SELECT seq, item_id, r.text, c.text {other} ORDER BY seq LIMIT {EXAMPLES}"
    ).fetchall()
    examples = [conflict(log, *row) for row in conflicts]
    return [BadRows("item_with_another_text", count, examples)] if count else []


def refuse_or_drop(
    bad: Sequence[BadRows],
    conflicts: Sequence[BadRows],
    *,
    of_items: bool,
    on_bad_row: str,
    show: Progress,
) -> dict[str, int]:
    """Return the numbers of dropped rows by reason; ValueError where they are not to be dropped.

    `conflicts` (`conflicting_texts`) are rows of an items log, or of events, which stay.
    """
    if (bad or conflicts) and on_bad_row == "error":
        raise ValueError(explain([*bad, *conflicts]))
    dropped: dict[str, int] = {}
    for each in [*bad, *(conflicts if of_items else [])]:
        dropped[each.reason] = dropped.get(each.reason, 0) + each.count
        show.line(f"on_bad_row=drop: {each.reason} ({each.count:,}), first: {each.examples[0]}")
    for each in [] if of_items else conflicts:
        show.line(f"{each.reason} ({each.count:,}), events kept, first: {each.examples[0]}")
    return dropped


def services_of(named: Sequence[str], templates: Mapping[str, str] | None) -> list[str]:
    """Return the services in order, those with `templates` or all `named` by good events, sorted.

    Raises ValueError for one without a good event, and for too many.
    """
    services = list(templates or named)
    empty = [service for service in services if service not in named]
    if empty or not named:
        raise ValueError(f"no good event of {empty or 'any service'}; the log has {list(named)}")
    if len(services) > MOST_SERVICES:
        raise ValueError(
            f"{len(services)} services, at most {MOST_SERVICES}; check columns.service"
        )
    return services


def conflict(log: Log, seq: int, item: str, text: str, first: str) -> str:
    """Return a row whose text is not the first one of its item, in words."""
    return f"{log.place(seq)}: item {item!r} reads {text!r}, before it read {first!r}"


def explain(bad: Sequence[BadRows]) -> str:
    """Return the message of the error that bad rows are."""
    lines = [f"bad rows: {sum(each.count for each in bad):,}"]
    for each in bad:
        lines.append(f"  {each.reason} ({each.count:,}), first:")
        lines += [f"    {example}" for example in each.examples]
        lines += [f"    {HINTS[each.reason]}"] if each.reason in HINTS else []
    lines.append("repair them, or set on_bad_row=drop to leave them out and count them")
    return "\n".join(lines)


def rejected(log: Log) -> list[BadRows]:
    """Return the rows of CSV files that could not be split."""
    by_reason: dict[str, list[str]] = {}
    for number, rows in log.rejected.items():
        for row, reason, text in rows:
            by_reason.setdefault(reason, []).append(f"{log.files[number]} row {row}: {text!r}")
    return [BadRows(reason, len(all_), all_[:EXAMPLES]) for reason, all_ in by_reason.items()]


def _flagged(db: duckdb.DuckDBPyConnection, log: Log) -> list[BadRows]:
    rows = "SELECT seq, reason, value FROM claims WHERE reason IS NOT NULL"
    if log.table == "events":
        rows = (
            "SELECT seq, reason, value FROM judged WHERE reason IS NOT NULL "
            "UNION ALL SELECT seq, 'user_in_two_splits', b.value FROM judged e "
            "JOIN bad_users b USING (user) WHERE e.reason IS NULL "
            "UNION ALL SELECT seq, 'item_not_in_items', b.value FROM clean JOIN bad_items b "
            "USING (item)"
        )
    counts = db.execute(
        f"SELECT reason, count(*) FROM ({rows}) GROUP BY reason ORDER BY reason"
    ).fetchall()
    bad: list[BadRows] = []
    for reason, count in counts:
        first = db.execute(
            f"SELECT seq, value FROM ({rows}) WHERE reason = ? ORDER BY seq LIMIT {EXAMPLES}",
            [reason],
        ).fetchall()
        bad.append(BadRows(reason, count, [f"{log.place(seq)}: {v!r}" for seq, v in first]))
    return bad


def _count(db: duckdb.DuckDBPyConnection, source: str) -> int:
    (count,) = db.execute(f"SELECT count(*) {source}").fetchall()[0]
    return int(count)
