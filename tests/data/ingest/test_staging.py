"""Every kind of bad row is named by file, row and value, or dropped and counted."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data.corpus import Corpus
from clue.prepare import prepare
from tests.data.logs import EVENTS, Row, config, corpus_of, histories, write_log

GOOD: list[Row] = [{**row, "text": f"about {row['service']} {row['item_id']}"} for row in EVENTS]


@dataclass(frozen=True)
class Bad:
    """A change to the fourth of the good rows, the reason it is bad for, and the value shown."""

    change: dict[str, Any]
    reason: str
    shown: str
    suffixes: tuple[str, ...] = ("parquet", "csv", "jsonl")


BAD = [
    Bad({"user_id": None}, "null_user_id", ""),
    Bad({"user_id": ""}, "null_user_id", "", ("csv", "jsonl")),
    Bad({"service": None}, "null_service", ""),
    Bad({"item_id": None}, "null_item_id", ""),
    Bad({"service": "shpo"}, "unknown_service", "'shpo'"),
    Bad({"timestamp": None}, "bad_timestamp", "None"),
    Bad({"timestamp": "soon"}, "bad_timestamp", "'soon'", ("csv", "jsonl")),
    Bad({"timestamp": "2024-02-30"}, "bad_timestamp", "'2024-02-30'", ("csv", "jsonl")),
    Bad({"timestamp": float("inf")}, "bad_timestamp", "'inf'", ("parquet", "csv")),
    Bad({"timestamp": float("nan")}, "bad_timestamp", "'nan'", ("parquet", "csv")),
    Bad({"text": None}, "empty_text", "'a'"),
    Bad({"text": " \t"}, "empty_text", "'a'"),
]


def refusal(log: Path, out: Path, *overrides: str) -> str:
    """Return the message with which prepare refuses a log; nothing may be left behind."""
    with pytest.raises(ValueError) as caught:
        prepare(config(out, f"events=[{log}]", *overrides), progress=False)
    assert not out.exists() and not (out.parent / f".{out.name}.partial").exists()
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_bad_rows_are_named_or_dropped(tmp_path: Path, suffix: str) -> None:
    services = "services={shop: {}, news: {}}"
    rest = write_log(tmp_path / f"rest.{suffix}", [*GOOD[:3], *GOOD[4:]])
    without = corpus_of(tmp_path / "rest", f"events=[{rest}]", services)
    checked = 0
    for number, bad in enumerate(BAD):
        if suffix not in bad.suffixes:
            continue
        rows: list[Row] = [*GOOD[:3], {**GOOD[3], **bad.change}, *GOOD[4:]]
        log = write_log(tmp_path / f"{number}.{suffix}", rows)
        message = refusal(log, tmp_path / f"{number}", services)
        assert f"bad rows: 1\n  {bad.reason} (1), first:\n    {log} row 4: {bad.shown}" in message
        assert "on_bad_row=drop" in message
        drop = [f"events=[{log}]", services, "on_bad_row=drop"]
        corpus = corpus_of(tmp_path / f"{number}", *drop)
        assert corpus.manifest.dropped_rows == {bad.reason: 1}
        assert corpus.fingerprint == without.fingerprint
        checked += 1
    assert checked >= 8


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    first = write_log(tmp_path / "1.csv", [{**GOOD[0], "user_id": None}] * 5 + GOOD)
    second = write_log(tmp_path / "2.jsonl", [*GOOD, {**GOOD[0], "timestamp": "never"}])
    message = refusal(first, tmp_path / "c", f"events=[{first}, {second}]")
    assert message.startswith("bad rows: 6") and "null_user_id (5)" in message
    assert re.findall(r"row \d+", message) == ["row 7", "row 1", "row 2", "row 3"]
    assert f"{second} row 7: 'never'" in message


def bytes_parquet(file: Path, rows: list[Row], column: str) -> None:
    """Write Parquet whose `column` of the fourth row is not UTF-8, as a string and unchecked."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    raw = [str(value).encode() for value in table[column].to_pylist()]
    raw[3] = b"caf\xe9"
    array = pa.array(raw, pa.binary())
    broken = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
    pq.write_table(table.set_column(table.column_names.index(column), column, broken), file)


def bytes_csv(file: Path, rows: list[Row], column: str) -> None:
    write_log(file, [*rows[:3], {**rows[3], column: "PLACE"}, *rows[4:]])
    file.write_bytes(file.read_bytes().replace(b"PLACE", b"caf\xe9"))


@pytest.mark.parametrize("column", ["user_id", "text"])
@pytest.mark.parametrize(
    ("suffix", "write", "reason"),
    [
        ("parquet", bytes_parquet, "text_not_utf8"),
        ("csv", bytes_csv, "text_not_utf8"),
        ("jsonl", bytes_csv, "not_a_json_object_in_utf8"),
    ],
)
def test_text_that_is_not_utf8(
    tmp_path: Path,
    suffix: str,
    write: Callable[[Path, list[Row], str], None],
    reason: str,
    column: str,
) -> None:
    log = tmp_path / f"log.{suffix}"
    write(log, GOOD, column)
    message = refusal(log, tmp_path / "c")
    assert f"{reason} (1), first:\n    {log} row 4: " in message
    assert suffix == "jsonl" or "caf" in message
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", "on_bad_row=drop")
    assert corpus.manifest.dropped_rows == {reason: 1}
    assert sum(corpus.manifest.num_events.values()) == len(GOOD) - 1


def test_csv_rows_that_cannot_be_split_count_as_rows(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        "user_id,service,item_id,timestamp\n"
        'u1,shop,"a\nb",1\n'  # row 1, over two lines
        "u2,shop,a\n"  # row 2: too few fields
        "u3,shop,a,3,3\n"  # row 3: too many
        "u4,shop,a,x\n"  # row 4: no time
        "u5,shop,a,5\n"
        "u6,shop,a\n"  # row 6
        ",shop,a,7\n"  # row 7: no user
    )
    message = refusal(log, tmp_path / "c")
    assert message.startswith("bad rows: 5")
    assert "malformed_row (3)" in message and f"{log} row 2: 'u2,shop,a'" in message
    assert f"{log} row 3: " in message and f"{log} row 6: " in message
    assert f"bad_timestamp (1), first:\n    {log} row 4: 'x'" in message
    assert f"null_user_id (1), first:\n    {log} row 7: None" in message
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", "on_bad_row=drop")
    dropped = {"malformed_row": 3, "bad_timestamp": 1, "null_user_id": 1}
    assert corpus.manifest.dropped_rows == dropped
    assert histories(corpus) == {("u1", "shop"): [("a\nb", 1.0)], ("u5", "shop"): [("a", 5.0)]}


def test_lines_that_are_no_json_objects(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    row = json.dumps(dict(GOOD[0]))
    log.write_text(f"{row}\n{row[:-5]}\n[1, 2]\n{row}\n7\n")
    message = refusal(log, tmp_path / "c")
    assert "not_a_json_object_in_utf8 (3)" in message
    assert [line in message for line in ("row 2:", "row 3: '[1, 2]'", "row 5: '7'")] == [True] * 3


def test_a_bad_row_far_down_is_found_at_its_number(tmp_path: Path) -> None:
    rows = [
        {"user_id": n, "service": "shop", "item_id": n % 9, "timestamp": n} for n in range(150_000)
    ]
    bad = {7: "null", 123_456: "null", 149_998: "null"}
    for row in bad:
        rows[row - 1]["timestamp"] = None  # pyright: ignore[reportArgumentType]
    for suffix in ("parquet", "csv.gz", "jsonl"):
        log = write_log(tmp_path / f"log.{suffix}", rows)
        found = re.findall(r"row (\d+)", refusal(log, tmp_path / "c"))
        assert [int(row) for row in found] == list(bad)


def test_an_item_has_one_text(tmp_path: Path) -> None:
    other = {**GOOD[1], "text": "another", "timestamp": 99}
    log = write_log(tmp_path / "log.csv", [*GOOD, other])
    message = refusal(log, tmp_path / "c")
    assert "item_with_another_text (1)" in message
    assert f"{log} row 7: item 'b' reads 'another', before it read 'about shop b'" in message
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", "on_bad_row=drop")
    # The behaviour is real and stays: only the second text is passed over, so no row is dropped.
    assert corpus.manifest.num_events["shop"] == 5
    assert "another" not in corpus.item_texts.to_pylist()
    assert corpus.manifest.dropped_rows == {}


def test_bad_rows_of_the_items_table(tmp_path: Path) -> None:
    items: list[Row] = [
        {"service": "shop", "item_id": "a", "text": "first"},
        {"service": "shop", "item_id": "a", "text": "second"},
        {"service": "shop", "item_id": "b", "text": ""},
        {"service": "shop", "item_id": None, "text": "x"},
        {"service": "news", "item_id": "a", "text": "fine"},
    ]
    log = write_log(tmp_path / "log.parquet", GOOD)
    table = write_log(tmp_path / "items.csv", items)
    message = refusal(log, tmp_path / "c", f"items=[{table}]")
    for line in (
        f"empty_text (1), first:\n    {table} row 3: 'b'",
        f"null_item_id (1), first:\n    {table} row 4: None",
        f"item_not_in_items (3), first:\n    {log} row 2: 'shop b'",
        f"{table} row 2: item 'a' reads 'second', before it read 'first'",
    ):
        assert line in message
    drop = [f"events=[{log}]", f"items=[{table}]", "on_bad_row=drop"]
    corpus = corpus_of(tmp_path / "c", *drop)
    assert corpus.item_texts.to_pylist() == ["fine", "first"]
    assert sum(corpus.manifest.num_events.values()) == 3
    assert sum(corpus.manifest.dropped_rows.values()) == 6


def test_users_in_two_splits(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {**row, "part": "a" if row["user_id"] < 10 else "b"} for row in GOOD
    ]
    rows[3]["part"] = "b"  # user 2 is in a as well
    rows[5]["part"] = "c"
    log = write_log(tmp_path / "log.parquet", rows)
    split = "split={column: part, train: [a], valid: [b]}"
    message = refusal(log, tmp_path / "c", split)
    assert f"user_in_two_splits (3), first:\n    {log} row 1: '2: a and b'" in message
    assert f"unknown_split_value (1), first:\n    {log} row 6: 'c'" in message
    drop = [f"events=[{log}]", split, "on_bad_row=drop"]
    corpus = corpus_of(tmp_path / "c", *drop)
    assert corpus.user_ids.to_pylist() == ["10"] and corpus.split.tolist() == [1]


def test_a_log_with_no_good_row_is_refused(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", [{**GOOD[0], "timestamp": "x"}])
    assert "no good event" in refusal(log, tmp_path / "c", "on_bad_row=drop")


def test_floats_that_are_whole_are_the_same_ids(tmp_path: Path) -> None:
    whole = write_log(tmp_path / "whole.parquet", EVENTS)
    floats = [{**row, "user_id": float(row["user_id"])} for row in EVENTS]
    corpora: list[Corpus] = []
    for log in (whole, write_log(tmp_path / "floats.parquet", floats)):
        corpora.append(corpus_of(tmp_path / log.stem, f"events=[{log}]"))
    assert corpora[0].fingerprint == corpora[1].fingerprint
