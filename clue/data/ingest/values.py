"""From a value of a log to text and to an id, in SQL: one rule for all formats and all tables.

An id is its text without white space around it. A whole number is the same id however it is
written: 123, 123.0, 1.23e+02, as pandas writes ids with gaps. From 2^53 on a float skips whole
numbers, so an id that was one is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "integer", "decimal", "float", "time", "nanoseconds"]
EXACT = 2**53  # the first whole number that a float64 does not tell from its neighbour
NULL_VALUES = ("NA", "N/A", "<NA>", "NULL", "null", "\\N", "None", "NaN", "nan", "NaT", "-")
# 123.0 and 1.2e+10. Without point or plus, as in 12e34, it may be the hexadecimal text of a hash.
WHOLE = r"[+-]?[0-9]+\.0+|[+-]?[0-9](\.[0-9]+)?[eE]\+?[0-9]+"


@dataclass(frozen=True)
class Column:
    """A column of a scan: its SQL name, what it holds, where floats become inexact."""

    sql: str
    kind: Kind
    exact: int = EXACT

    @property
    def text(self) -> str:
        """SQL of the value as it stands."""
        return f"{self.sql}::VARCHAR"


MISSING = Column("NULL", "text")


def quoted(text: str) -> str:
    """Return `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def named(column: str) -> str:
    """Return `column` as an SQL name."""
    return '"' + column.replace('"', '""') + '"'


def text_sql(column: Column) -> str:
    """Return SQL for a column as text; a float that is whole reads without a point."""
    if column.kind != "float":
        return column.text
    whole = f"{column.sql} = trunc({column.sql}) AND abs({column.sql}) < 9e15"
    return (
        f"CASE WHEN {whole} THEN {column.sql}::BIGINT::VARCHAR "
        f"WHEN isfinite({column.sql}) THEN {column.text} END"
    )


def id_sql(column: Column, null_values: Sequence[str]) -> str:
    """Return SQL for a column as an id, NULL where it is empty, one of `null_values` or lost."""
    if column is MISSING:
        return "NULL"
    if column.kind in ("text", "decimal"):
        text = f"trim({column.text})"
        rule = f"CASE WHEN {_may_be_whole(text)} THEN {_whole_sql(text)} ELSE {text} END"
        nulls = ["", *null_values]
    elif column.kind == "float":
        rule = f"CASE WHEN abs({column.sql}) < {column.exact} THEN {text_sql(column)} END"
        nulls = [value for value in null_values if value.lstrip("-").isdigit()]
    else:
        rule = column.text
        nulls = [value for value in null_values if value.lstrip("-").isdigit()]
    if not nulls:
        return rule
    # By length first: most ids are longer than any of them. No nullif: DuckDB repeats its argument.
    longest = max(len(value.encode()) for value in nulls)
    is_null = f"strlen({rule}) <= {longest} AND {rule} IN ({', '.join(map(quoted, nulls))})"
    return f"CASE WHEN {is_null} THEN NULL ELSE {rule} END"


def lost_sql(column: Column) -> str:
    """Return SQL for whether a column, NULL as an id, was a float too large to hold one exactly."""
    if column.kind == "float":
        return f"coalesce(abs({column.sql}) >= {column.exact} AND isfinite({column.sql}), false)"
    if column is MISSING or column.kind not in ("text", "decimal"):
        return "false"
    text = f"trim({column.text})"
    return f"coalesce({_may_be_whole(text)} AND {_whole_sql(text)} IS NULL, false)"


def _may_be_whole(text: str) -> str:
    # The cheap look first: a regular expression costs twice as much.
    dotted = f"(contains({text}, '.') OR contains({text}, '+'))"
    return f"{dotted} AND regexp_full_match({text}, {quoted(WHOLE)})"


def _whole_sql(text: str) -> str:
    """Return SQL of a number as a whole one, as it stands where it has a part, NULL if lost."""
    number = f"try_cast({text} AS DOUBLE)"
    return (
        f"CASE WHEN abs({number}) >= {EXACT} THEN NULL "
        f"WHEN {number} = trunc({number}) THEN {number}::BIGINT::VARCHAR ELSE {text} END"
    )
