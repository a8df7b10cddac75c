"""From log files to staged rows: every row read by its layout and judged.

Works in a DuckDB database on disk. `seq` holds the file and row of every row, so that equal times
keep the order of the log and a bad row can be found. A bad row stays in its table with a `reason`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from clue.data.ingest.readers import (
    Scan,
    columns_of,
    find_files,
    named,
    quoted,
    rejected_rows,
    scan,
    seconds_sql,
    text_sql,
)
from clue.data.ingest.validation import ROWS_PER_FILE, Log
from clue.data.text import template_fields


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of the log are called."""

    user_id: str = "user_id"
    service: str = "service"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    text: str = "text"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How rows are read.

    `service` is the one service of a log without a service column. `templates` maps the services to
    read to the templates of their items' texts; None means every service, with `template`. Rows of
    `ignored` services are passed over. `split` is the column of a user's part, `parts` its values.
    """

    columns: Columns
    service: str | None
    templates: Mapping[str, str] | None
    template: str
    ignored: Sequence[str]
    split: str | None
    parts: Sequence[str]


def open_log(table: str, patterns: Sequence[str], needed: Sequence[str]) -> Log:
    """Return the files of a table; raises ValueError where one lacks a needed column."""
    files = find_files(patterns, table)
    columns = [columns_of(file) for file in files]
    for file, names in zip(files, columns, strict=True):
        missing = [name for name in needed if name not in names]
        if missing:
            raise ValueError(
                f"{file} has no column {missing[0]!r} but {', '.join(names)}; "
                "say under columns: what yours is called"
            )
    return Log(table, files, columns)


def check_template(where: str, template: str, columns: Columns, log: Log) -> None:
    """Raises ValueError for a template that is malformed or names a column no file of `log` has."""
    known = {name for names in log.columns for name in names}
    for name in _fields(template):
        if _source(name, columns) not in known:
            raise ValueError(
                f"{where}={template!r}: no column {name!r} in {', '.join(map(str, log.files))}; "
                f"there are {', '.join(sorted(known))}"
            )


def create_tables(db: duckdb.DuckDBPyConnection) -> None:
    """Makes the empty tables that `stage_events` and `stage_items` fill."""
    row = (
        "seq BIGINT, service VARCHAR, item_id VARCHAR, text VARCHAR, reason VARCHAR, value VARCHAR"
    )
    db.execute(f"CREATE TABLE items ({row})")
    db.execute(f"CREATE TABLE events ({row}, user_id VARCHAR, seconds DOUBLE, part VARCHAR)")


def stage_items(db: duckdb.DuckDBPyConnection, log: Log, number: int, layout: Layout) -> None:
    """Reads file `number` of an items log into table `items`, judging every row."""
    wanted = {layout.columns.service, layout.columns.item_id, *_text_columns(layout)}
    source = scan(db, log.files[number], sorted(wanted & set(log.columns[number])))
    reads = _item_reads(source, layout) | {"text": _rendered(source, layout)}
    checks = [*_item_checks(source, layout), ("empty_text", "text IS NULL", "item_id")]
    _insert(db, log, number, _select(source, reads, checks), layout)


def stage_events(
    db: duckdb.DuckDBPyConnection, log: Log, number: int, layout: Layout, *, with_text: bool
) -> None:
    """Reads file `number` of an event log into table `events`, judging every row.

    `with_text` renders the items' texts from the log's own columns.
    """
    columns = layout.columns
    wanted = {columns.service, columns.item_id, columns.user_id, columns.timestamp}
    wanted |= {layout.split} if layout.split else set()
    wanted |= set(_text_columns(layout)) if with_text else set()
    source = scan(db, log.files[number], sorted(wanted & set(log.columns[number])))
    reads = _item_reads(source, layout) | {
        "user_id": _text(source, columns.user_id),
        "seconds": seconds_sql(columns.timestamp, source.kinds[columns.timestamp]),
        "part": _text(source, layout.split) if layout.split else "NULL",
        "text": _rendered(source, layout) if with_text else "NULL",
        '"#time"': f"{named(columns.timestamp)}::VARCHAR",
    }
    checks = [
        *_item_checks(source, layout),
        ("null_user_id", "coalesce(user_id, '') = ''", "user_id"),
        ("bad_timestamp", "NOT coalesce(isfinite(seconds), false)", '"#time"'),
    ]
    if layout.split:
        parts = ", ".join(quoted(part) for part in layout.parts)
        checks += [("unknown_split_value", f"part IS NULL OR part NOT IN ({parts})", "part")]
    if with_text:
        checks += [("empty_text", "text IS NULL", "item_id")]
    _insert(db, log, number, _select(source, reads, checks), layout)


def _item_reads(source: Scan, layout: Layout) -> dict[str, str]:
    service = quoted(layout.service) if layout.service else _text(source, layout.columns.service)
    return {"service": service, "item_id": _text(source, layout.columns.item_id)}


def _item_checks(source: Scan, layout: Layout) -> list[tuple[str, str, str]]:
    checks = [
        (source.reason, '"#broken" IS NOT NULL', '"#broken"'),
        ("null_service", "coalesce(service, '') = ''", "service"),
        ("null_item_id", "coalesce(item_id, '') = ''", "item_id"),
    ]
    if layout.templates is not None:
        known = ", ".join(quoted(service) for service in layout.templates)
        checks += [("unknown_service", f"service NOT IN ({known})", "service")]
    return checks


def _select(source: Scan, reads: Mapping[str, str], checks: Sequence[tuple[str, str, str]]) -> str:
    """Return SQL of rows with `reads`, and the first check that each fails as reason and value."""
    read = ", ".join(f"{sql} AS {name}" for name, sql in reads.items())
    reason = " ".join(f"WHEN {condition} THEN {quoted(why)}" for why, condition, _ in checks)
    value = " ".join(f"WHEN {condition} THEN {value}" for _, condition, value in checks)
    return (
        f"SELECT *, CASE {reason} END AS reason, CASE {value} END AS value FROM "
        f'(SELECT "#row", "#broken", {read} FROM ({source.sql}))'
    )


def _insert(
    db: duckdb.DuckDBPyConnection, log: Log, number: int, select: str, layout: Layout
) -> None:
    names = "service, item_id, text, reason, value"
    names += ", user_id, seconds, part" if log.table == "events" else ""
    ignored = ", ".join(quoted(service) for service in layout.ignored)
    keep = f" WHERE service IS NULL OR service NOT IN ({ignored})" if ignored else ""
    try:
        db.execute(
            f"INSERT INTO {log.table} (seq, {names}) "
            f'SELECT {number * ROWS_PER_FILE} + "#row", {names} FROM ({select}){keep}'
        )
    except duckdb.Error as error:
        raise ValueError(f"{log.files[number]} cannot be read: {error}") from error
    log.rejected[number] = rejected_rows(db)


def _text(source: Scan, column: str) -> str:
    return text_sql(column, source.kinds[column]) if column in source.kinds else "NULL"


def _rendered(source: Scan, layout: Layout) -> str:
    """Return SQL of an item's text by its service's template; NULL where all fields are blank."""
    default = _render(source, layout.template, layout.columns)
    if layout.templates is None:
        return default
    service = _item_reads(source, layout)["service"]
    cases = [
        f"WHEN {quoted(name)} THEN {_render(source, template, layout.columns)}"
        for name, template in layout.templates.items()
    ]
    return f"CASE {service} {' '.join(cases)} END"


def _render(source: Scan, template: str, columns: Columns) -> str:
    pieces: list[str] = []
    values: list[str] = []
    for before, name in template_fields(template):
        pieces.append(quoted(before))
        if name is not None:
            values.append(f"coalesce({_text(source, _source(name, columns))}, '')")
            pieces.append(values[-1])
    filled = f"regexp_matches(concat({', '.join(values)}), '\\S')"  # anything but white space
    return f"CASE WHEN {filled} THEN concat({', '.join(pieces)}) END"


def _text_columns(layout: Layout) -> set[str]:
    templates = [layout.template] if layout.templates is None else layout.templates.values()
    return {_source(name, layout.columns) for each in templates for name in _fields(each)}


def _fields(template: str) -> list[str]:
    return [name for _, name in template_fields(template) if name is not None]


def _source(name: str, columns: Columns) -> str:
    """Return column a template's field stands for: `{text}` and `{item_id}` follow `columns`."""
    return {"text": columns.text, "item_id": columns.item_id}.get(name, name)
