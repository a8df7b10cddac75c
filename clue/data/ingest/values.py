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
WHITE = "' ' || chr(9) || chr(10) || chr(13)"
# 123.0 and 1.2e+10. Without point or plus, as in 12e34, it may be the hexadecimal text of a hash.
WHOLE = r"[+-]?[0-9]+\.0+|[+-]?[0-9](\.[0-9]+)?[eE]\+?[0-9]+"


@dataclass(frozen=True)
class Column:
    """A column of a scan: SQL that names it, what it holds, from where on its floats are inexact."""

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
    """Return SQL for a column as an id, NULL where it is empty or one of `null_values`."""
    if column is MISSING:
        return "NULL"
    if column.kind in ("text", "decimal"):
        stripped = f"trim({column.text}, {WHITE})"
        number = f"try_cast({stripped} AS DOUBLE)"
        whole = (
            f"{_may_be_whole(stripped)} AND {number} = trunc({number}) AND abs({number}) < {EXACT}"
        )
        rule = f"CASE WHEN {whole} THEN {number}::BIGINT::VARCHAR ELSE {stripped} END"
        nulls = ["", *null_values]
    else:
        rule = text_sql(column)
        nulls = [value for value in null_values if value.lstrip("-").isdigit()]
    if not nulls:
        return rule
    # No nullif: DuckDB repeats its argument, and eleven in each other repeat it 2,048 times.
    return f"CASE WHEN {rule} NOT IN ({', '.join(map(quoted, nulls))}) THEN {rule} END"


def lost_sql(column: Column) -> str:
    """Return SQL for whether a column holds an id that was a float of 2^53 or more."""
    if column.kind == "float":
        return f"abs({column.sql}) >= {column.exact} AND isfinite({column.sql})"
    if column is MISSING or column.kind not in ("text", "decimal"):
        return "false"
    stripped = f"trim({column.text}, {WHITE})"
    return f"{_may_be_whole(stripped)} AND abs(try_cast({stripped} AS DOUBLE)) >= {EXACT}"


def _may_be_whole(text: str) -> str:
    # The cheap look first: a regular expression costs ten times as much.
    dotted = f"(contains({text}, '.') OR contains({text}, '+'))"
    return f"{dotted} AND regexp_full_match({text}, {quoted(WHOLE)})"
