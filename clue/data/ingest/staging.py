"""From log files to staged rows: every row read by its layout and judged.

Works in a DuckDB database on disk. `seq` holds the file and row of every row, so that equal times
keep the order of the log and a bad row can be found. A bad row stays in its table with a `reason`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from clue.data.cache import CacheConfig
from clue.data.ingest.fields import StagedField, check_sql, column_name, sql_type, value_sql
from clue.data.ingest.files import find_files
from clue.data.ingest.parts import Part
from clue.data.ingest.readers import (
    Scan,
    columns_of,
    has_column,
    is_empty,
    rejected_rows,
    scan,
)
from clue.data.ingest.times import time_sql
from clue.data.ingest.validation import ROWS_PER_FILE, Log
from clue.data.ingest.values import id_sql, lost_sql, quoted, text_sql
from clue.data.text import template_fields


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of the log are called."""

    user_id: str = "user_id"  # The column of the user's id.
    service: str = "service"  # The column of the service.
    item_id: str = "item_id"  # The column of the item's id.
    timestamp: str = "timestamp"  # The column of the time.
    text: str = "text"  # The column of the event's or the item's text.


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How rows are read.

    `service` is the one service of a log without a service column. `templates` maps the services to
    read to the templates of their items' texts; None means every service, with `template`. Rows of
    `ignored` services are passed over. `split` is the column of a user's part, `parts` its values.
    `fields` are columns of events beside these, number n being `field<n>` in table `events`.
    `null_values` are ids that stand for none, `time_format` is strptime's.
    """

    columns: Columns
    service: str | None
    templates: Mapping[str, str] | None
    template: str
    ignored: Sequence[str]
    split: str | None
    parts: Sequence[str]
    fields: Sequence[StagedField]
    null_values: Sequence[str]
    time_format: str | None


def open_log(
    table: str,
    patterns: Sequence[str],
    needed: Mapping[str, str],
    delimiter: str | None,
    cache: CacheConfig,
) -> Log:
    """Return the files of a table that hold anything; ValueError where one lacks a needed column.

    `needed` are the names of columns by the keys that say what they are called.
    """
    named = find_files(patterns, table, delimiter, cache)
    files = [file for file in named if not is_empty(file)]
    if not files:
        raise ValueError(f"{table}: {', '.join(map(str, named))} are empty; give a log with rows")
    columns = [columns_of(file) for file in files]
    for file, names in zip(files, columns, strict=True):
        for key, name in needed.items():
            if not has_column(file, names, name):
                hint = ", or service=NAME for a log of one service" if key == "service" else ""
                raise ValueError(
                    f"{file} has no column {name!r} but {', '.join(names) or 'none'}; "
                    f"say under columns: what yours is called{hint}"
                )
    return Log(table, files, columns)


def any_has(log: Log, name: str) -> bool:
    """Return whether any file of a log has a column."""
    pairs = zip(log.files, log.columns, strict=True)
    return any(has_column(file, names, name) for file, names in pairs)


def check_template(where: str, template: str, columns: Columns, log: Log) -> None:
    """Raise ValueError for a template that is malformed or names a column no file of `log` has."""
    for name in _fields(template):
        if not any_has(log, _source(name, columns)):
            known = sorted({name for names in log.columns for name in names})
            raise ValueError(
                f"{where}={template!r}: no column {name!r} in {', '.join(map(str, log.files))}; "
                f"there are {', '.join(known)}"
            )


def create_tables(db: duckdb.DuckDBPyConnection, layout: Layout) -> None:
    """Make the empty tables that `stage_events` and `stage_items` fill."""
    row = (
        "seq BIGINT, service VARCHAR, item_id VARCHAR, text VARCHAR, reason VARCHAR, value VARCHAR"
    )
    named_fields = enumerate(layout.fields)
    fields = "".join(f", {column_name(n)} {sql_type(each.kind)}" for n, each in named_fields)
    # Temporary ones are not compressed, which took half of the time, and are written to disk only
    # where memory is short.
    db.execute(f"CREATE OR REPLACE TEMP TABLE items ({row})")
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE events ({row}, user_id VARCHAR, seconds DOUBLE, "
        f"is_number BOOLEAN, part VARCHAR{fields})"
    )


def stage_items(db: duckdb.DuckDBPyConnection, log: Log, part: Part, layout: Layout) -> None:
    """Read a part of an items log into table `items`, every row judged."""
    wanted = {layout.columns.service, layout.columns.item_id, *_text_columns(layout)}
    source = scan(db, part.file, sorted(wanted))
    reads = _item_reads(source, layout) | {"text": _rendered(source, layout)}
    checks = [*_item_checks(source, layout), ("empty_text", "text IS NULL", "item_id")]
    _insert(db, log, part, _select(source, reads, checks), layout)


def stage_events(
    db: duckdb.DuckDBPyConnection, log: Log, part: Part, layout: Layout, *, with_text: bool
) -> None:
    """Read a part of an event log into table `events`, every row judged.

    `with_text` renders the items' texts from the log's own columns.
    """
    columns = layout.columns
    wanted = {columns.service, columns.item_id, columns.user_id, columns.timestamp}
    wanted |= {layout.split} if layout.split else set()
    wanted |= set(_text_columns(layout)) if with_text else set()
    wanted |= {each.column for each in layout.fields}
    source = scan(db, part.file, sorted(wanted))
    user, moment = source.column(columns.user_id), source.column(columns.timestamp)
    time = time_sql(moment, layout.time_format)
    reads = _item_reads(source, layout) | {
        "user_id": id_sql(user, layout.null_values),
        "seconds": time.seconds,
        "is_number": time.is_number,
        "part": id_sql(source.column(layout.split), ()) if layout.split else "NULL",
        "text": _rendered(source, layout) if with_text else "NULL",
    }
    checks = [
        *_item_checks(source, layout),
        ("id_beyond_2_53", _where_null("user_id", lost_sql(user)), user.text),
        ("null_user_id", "user_id IS NULL", user.text),
        ("bad_timestamp", "NOT coalesce(isfinite(seconds), false)", moment.text),
    ]
    if layout.split:
        parts = ", ".join(quoted(part) for part in layout.parts)
        checks += [("unknown_split_value", f"part IS NULL OR part NOT IN ({parts})", "part")]
    if with_text:
        checks += [("empty_text", "text IS NULL", "item_id")]
    for index, each in enumerate(layout.fields):
        column, name = source.column(each.column), column_name(index)
        reads[name] = value_sql(column, each.kind, layout.null_values)
        checks.append(check_sql(each, name, column, layout.null_values))
    _insert(db, log, part, _select(source, reads, checks), layout)


def _item_reads(source: Scan, layout: Layout) -> dict[str, str]:
    service = id_sql(source.column(layout.columns.service), layout.null_values)
    return {
        "service": quoted(layout.service) if layout.service else service,
        "item_id": id_sql(source.column(layout.columns.item_id), layout.null_values),
    }


def _item_checks(source: Scan, layout: Layout) -> list[tuple[str, str, str]]:
    item, service = (source.column(n) for n in (layout.columns.item_id, layout.columns.service))
    checks = [
        (source.reason, '"#broken" IS NOT NULL', '"#broken"'),
        ("not_a_plain_value", '"#nested" IS NOT NULL', '"#nested"'),
        ("null_service", "service IS NULL", service.text),
        ("id_beyond_2_53", _where_null("item_id", lost_sql(item)), item.text),
        ("null_item_id", "item_id IS NULL", item.text),
    ]
    if layout.templates is not None:
        known = ", ".join(quoted(service) for service in layout.templates)
        checks += [("unknown_service", f"service NOT IN ({known})", "service")]
    return checks


def _where_null(name: str, condition: str) -> str:
    # A CASE, for DuckDB would work out both sides of an AND for every row.
    return f"CASE WHEN {name} IS NULL THEN {condition} ELSE false END"


def _select(source: Scan, reads: Mapping[str, str], checks: Sequence[tuple[str, str, str]]) -> str:
    """Return SQL of rows with `reads`, and the first check that each fails as reason and value."""
    read = ", ".join(f"{sql} AS {name}" for name, sql in reads.items())
    reason = " ".join(f"WHEN {condition} THEN {quoted(why)}" for why, condition, _ in checks)
    value = " ".join(f"WHEN {condition} THEN {value}" for _, condition, value in checks)
    return (
        f"SELECT *, CASE {reason} END AS reason, CASE {value} END AS value FROM "
        f"(SELECT *, {read} FROM ({source.sql}))"
    )


def _insert(
    db: duckdb.DuckDBPyConnection, log: Log, part: Part, select: str, layout: Layout
) -> None:
    names = "service, item_id, text, reason, value"
    if log.table == "events":
        fields = [column_name(number) for number in range(len(layout.fields))]
        names = ", ".join([names, "user_id, seconds, is_number, part", *fields])
    ignored = ", ".join(quoted(service) for service in layout.ignored)
    keep = f" WHERE service IS NULL OR service NOT IN ({ignored})" if ignored else ""
    before = part.number * ROWS_PER_FILE + part.skipped
    try:
        db.execute(
            f"INSERT INTO {log.table} (seq, {names}) "
            f'SELECT {before} + "#row", {names} FROM ({select}){keep}'
        )
    except duckdb.OutOfMemoryException:
        raise  # no fault of the file
    except duckdb.Error:
        raise ValueError(f"{part.file} cannot be read to its end; is the file whole?") from None
    log.rejected[part.number] = rejected_rows(db)


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
            column = source.column(_source(name, columns))
            is_id = column == source.column(columns.item_id)
            value = id_sql(column, ()) if is_id else text_sql(column)
            values.append(f"coalesce({value}, '')")
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
