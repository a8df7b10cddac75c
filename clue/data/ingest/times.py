"""The one reader of times: format, unit and zone, for logs and for tables of labels alike.

Dates become epoch seconds, UTC where they name no zone. Numbers are epoch seconds, milliseconds,
microseconds, nanoseconds, dates like 20231114, or positions; their range says which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from clue.data.activity import CLOCK
from clue.data.ingest.validation import ROWS_PER_FILE, Log
from clue.data.ingest.values import Column, quoted, text_sql

Unit = Literal["s", "ms", "us", "ns", "position"]
SCALES: Mapping[str, float] = {"position": 1, "s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
NAMES = {
    "s": "epoch seconds",
    "ms": "epoch milliseconds",
    "us": "epoch microseconds",
    "ns": "epoch nanoseconds",
    "date": "dates like 20231114",
    "position": "positions (numbers as they are)",
    "clock": "dates and times",
}
# Each from 1973 to 2286, in its unit; between them lies nothing that a clock of this time shows.
RANGES = {unit: (CLOCK * SCALES[unit], 1e10 * SCALES[unit]) for unit in ("s", "ms", "us", "ns")}
# Years of four digits, for 12/1/10 is the year 12 to a lenient reader; no abbreviation of a zone
# but UTC, GMT and Z, for BST is Britain's and Bangladesh's.
ISO = (
    r"(?i)[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}([T ]+[0-9:.,]+)?"
    r"\s*(Z|UTC|GMT|[+-][0-9:]+|[A-Z_]+/[A-Z_/]+)?"
)


@dataclass(frozen=True)
class Time:
    """SQL of a time as a number, and of whether it stood as one, in a unit to be found."""

    seconds: str
    is_number: str


def time_sql(column: Column, time_format: str | None) -> Time:
    """Return SQL of a column as a time, NULL where it is none.

    `time_format` (strptime) is for text and numbers; without it text is a number or YYYY-MM-DD
    hh:mm:ss with a zone or none.
    """
    name = column.sql
    if column.kind == "time":
        return Time(f"epoch({name})", "false")
    if column.kind == "nanoseconds":  # whole and part apart: together they exceed a float
        return Time(f"{name} // 1000000000 + ({name} % 1000000000) / 1e9", "false")
    if time_format is not None:
        text = f"trim({text_sql(column)})"
        return Time(f"epoch(try_strptime({text}, {quoted(time_format)}))", "false")
    if column.kind != "text":
        return Time(f"{name}::DOUBLE", f"{name} IS NOT NULL")
    number, stripped = f"try_cast({name} AS DOUBLE)", f"trim({name})"
    date = f"epoch(try_cast({stripped} AS TIMESTAMPTZ))"
    date = f"CASE WHEN regexp_full_match({stripped}, {quoted(ISO)}) THEN {date} END"
    return Time(f"coalesce({number}, {date})", f"{number} IS NOT NULL")


def check_format(time_format: str) -> None:
    """Raise ValueError for a format that strptime does not know or that names a zone by letters."""
    if "%Z" in time_format:
        raise ValueError(
            f"time_format={time_format!r}: %Z reads abbreviations, and BST is Britain's and "
            "Bangladesh's; write the zone as +01:00 and read it by %z"
        )
    try:
        with duckdb.connect() as db:
            db.execute(f"SELECT try_strptime('', {quoted(time_format)})")
    except duckdb.Error:
        raise ValueError(
            f"time_format={time_format!r} is no strptime format; write it like '%d/%m/%Y %H:%M'"
        ) from None


def counts_sql(time: str) -> str:
    """Return SQL of the counts by which `unit_of` finds the unit of the numbers `time`."""
    sums = [
        f"count(*) FILTER (abs({time}) >= {low:.0f} AND abs({time}) < {high:.0f})"
        for low, high in RANGES.values()
    ]
    day = f"{time}::BIGINT::VARCHAR"
    is_date = (
        f"CASE WHEN {time} BETWEEN 19000101 AND 21001231 AND {time} = trunc({time}) "
        f"THEN try_strptime({day}, '%Y%m%d') IS NOT NULL ELSE false END"
    )
    beyond = f"count(*) FILTER (abs({time}) >= 1e10)"
    return f"count(*), {', '.join(sums)}, {beyond}, count(*) FILTER ({is_date}), max({time})"


def unit_of(counts: Sequence[float], where: str) -> str:
    """Return the unit of numbers by the `counts` that `counts_sql` asks for: a key of NAMES.

    Raises ValueError where most of them are too large for a position and in no unit's range.
    """
    total, *by_unit, beyond, dates, largest = counts
    if dates == total:
        return "date"
    clock = sum(by_unit)
    if 2 * clock > total:
        return max(zip(by_unit, RANGES, strict=True), key=lambda pair: pair[0])[1]
    if 2 * beyond > total:
        raise ValueError(
            f"{where}: times like {largest:.0f} are epoch seconds, milliseconds, microseconds or "
            "nanoseconds of no year from 1973 to 2286; say time_unit=position where they are "
            "positions, or time_format='%Y%m%d%H%M%S' where they are dates"
        )
    return "position"


def seconds_sql(time: str, unit: str) -> str:
    """Return SQL of numbers `time` of a unit as epoch seconds, or as the positions they are."""
    if unit == "date":
        return f"epoch(strptime({time}::BIGINT::VARCHAR, '%Y%m%d'))"
    return time if SCALES[unit] == 1 else f"{time} / {SCALES[unit]:.0f}"


@dataclass(frozen=True)
class Settled:
    """What the times of a log were, in words, and of each service whether they are a clock's.

    `unit` is the one that all numbers have, or None; then `groups` has the files and services, as
    SQL, of those units whose rows are looked at once more.
    """

    line: str
    clocks: dict[str, bool]
    unit: Unit | None
    groups: Mapping[str, Sequence[str]]


def groups_sql(unit: Unit | None) -> str:
    """Return SQL of what `settle` needs: (file, service, whether numbers, counts) of the events."""
    group = f"seq // {ROWS_PER_FILE}, service, is_number"
    counts = counts_sql("seconds") if unit is None else "count(*)"
    return (
        f"SELECT {group}, {counts} FROM events WHERE reason IS NULL "
        f"GROUP BY {group} ORDER BY {group}"
    )


def settle(rows: Sequence[Sequence[Any]], log: Log, unit: Unit | None) -> Settled:
    """Return what the times are by the `rows` of `groups_sql`, those of a clock in seconds.

    The unit of numbers is `unit`, or found for each file and service. Then a number in the range of
    another unit makes its row bad. Raises ValueError for a service whose times are positions in
    one file and clock times in another.
    """
    if unit is not None:
        clocks: dict[str, bool] = {}
        for _, service, is_number, _ in rows:
            # Dates are a clock's whatever the numbers are said to be.
            is_clock = unit != "position" or not is_number
            clocks[service] = clocks.get(service, True) and is_clock
        return Settled(
            f"times: numbers are {NAMES[unit]}, as time_unit says", clocks, unit, groups={}
        )
    units: dict[str, dict[str, int]] = {}
    groups: dict[str, list[str]] = {}
    for number, service, is_number, *counts in rows:
        where = f"{log.files[number]}, service {service!r}"
        unit_found = unit_of(counts, where) if is_number else "clock"
        units.setdefault(service, {}).setdefault(unit_found, number)
        if unit_found in ("date", "ms", "us", "ns") or _is_mixed(unit_found, counts):
            groups.setdefault(unit_found, []).append(f"({number}, {quoted(service)})")
    _refuse_mixtures(log, units)
    clocks = {service: "position" not in its_units for service, its_units in units.items()}
    return Settled(_in_words(units), clocks, None, groups)


def convert(db: duckdb.DuckDBPyConnection, settled: Settled) -> None:
    """Bring the times of table `events` to seconds, and mark the rows of another unit as bad."""
    if settled.unit is not None and SCALES[settled.unit] != 1:
        seconds = seconds_sql("seconds", settled.unit)
        db.execute(f"UPDATE events SET seconds = {seconds} WHERE is_number")
    for each, members in settled.groups.items():
        _convert(db, members, each)


def is_settled(settled: Settled) -> bool:
    """Return whether `convert` has nothing to do."""
    return not settled.groups and (settled.unit is None or SCALES[settled.unit] == 1)


def _is_mixed(unit: str, counts: Sequence[float]) -> bool:
    by_unit = dict(zip(RANGES, counts[1:], strict=False))
    return unit in RANGES and sum(by_unit.values()) > by_unit[unit]


def _convert(db: duckdb.DuckDBPyConnection, groups: Sequence[str], unit: str) -> None:
    """Mark the rows of another unit in `groups` of file and service, and convert the rest."""
    rows = (
        f"is_number AND reason IS NULL AND (seq // {ROWS_PER_FILE}, service) IN "
        f"(VALUES {', '.join(groups)})"
    )
    if unit != "date":
        db.execute(
            f"UPDATE events SET reason = 'time_of_another_unit', value = {_among_sql(unit)} "
            f"WHERE {rows} AND ({_other_sql(unit)})"
        )
    if unit != "s":
        db.execute(f"UPDATE events SET seconds = {seconds_sql('seconds', unit)} WHERE {rows}")


def converted_sql(settled: Settled, rows: str) -> str:
    """Return SQL of `rows` as `convert` would leave them.

    Where there are groups, `rows` has the unit of each row, or NULL, in a column more, `unit`.
    """
    if settled.unit is not None and SCALES[settled.unit] != 1:
        seconds = (
            f"CASE WHEN is_number THEN {seconds_sql('seconds', settled.unit)} ELSE seconds END"
        )
        return f"SELECT * REPLACE ({seconds} AS seconds) FROM {rows}"
    if not settled.groups:
        return f"SELECT * FROM {rows}"
    units = list(settled.groups)
    seconds = " ".join(f"WHEN {quoted(u)} THEN {seconds_sql('seconds', u)}" for u in units)
    is_other = " ".join(f"WHEN {quoted(u)} THEN {_other_sql(u)}" for u in units if u != "date")
    among = " ".join(f"WHEN {quoted(u)} THEN {_among_sql(u)}" for u in units if u != "date")
    bad = f"CASE unit {is_other} ELSE false END" if is_other else "false"
    value = f"CASE unit {among} END" if among else "NULL"
    return (
        f"SELECT * EXCLUDE (unit) REPLACE (CASE unit {seconds} ELSE seconds END AS seconds, "
        f"CASE WHEN {bad} THEN 'time_of_another_unit' ELSE reason END AS reason, "
        f"CASE WHEN {bad} THEN {value} ELSE value END AS value) FROM {rows}"
    )


def _other_sql(unit: str) -> str:
    """Return SQL of whether a number lies in the range of a unit that is not `unit`."""
    return " OR ".join(
        f"(abs(seconds) >= {low:.0f} AND abs(seconds) < {high:.0f})"
        for name, (low, high) in RANGES.items()
        if name != unit
    )


def _among_sql(unit: str) -> str:
    return f"printf('%.0f', seconds) || {quoted(f' among {NAMES[unit]}')}"


def _refuse_mixtures(log: Log, units: Mapping[str, Mapping[str, int]]) -> None:
    for service, file_of in units.items():
        clocks = [unit for unit in file_of if unit != "position"]
        if "position" in file_of and clocks:
            raise ValueError(
                f"the times of {service} are {NAMES['position']} in "
                f"{log.files[file_of['position']]}, {NAMES[clocks[0]]} in "
                f"{log.files[file_of[clocks[0]]]}: they have no common order; give both files the "
                "same, or say time_unit="
            )


def _in_words(units: Mapping[str, Mapping[str, int]]) -> str:
    services: dict[str, list[str]] = {}
    for service, file_of in units.items():
        for unit in file_of:
            services.setdefault(unit, []).append(service)
    parts = [f"{NAMES[unit]} in {', '.join(names)}" for unit, names in services.items()]
    line = f"times: {'; '.join(parts)}"
    if "position" in services and len(services) > 1:
        line += "; positions and clock times have no common order across services"
    return line
