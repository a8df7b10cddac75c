from datetime import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data.ingest.files import find_files, log_file
from clue.data.ingest.readers import columns_of, rejected_rows, scan
from clue.data.ingest.values import named, quoted
from tests.data.logs import write_log


def read(file: Path, columns: list[str]) -> list[tuple[object, ...]]:
    with duckdb.connect() as db:
        source = scan(db, log_file(file), columns)
        chosen = ", ".join(source.column(name).sql for name in columns)
        rows = db.execute(f'SELECT "#row", "#broken", {chosen} FROM ({source.sql})').fetchall()
        assert rejected_rows(db) == []
        return rows


def test_globs_are_sorted_and_paths_keep_their_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.parquet", "d[1].csv", "d1.csv"):
        (tmp_path / name).touch()
    found = find_files([f"{tmp_path}/c.parquet", f"{tmp_path}/[ab].csv"], "events")
    assert [file.path.name for file in found] == ["c.parquet", "a.csv", "b.csv"]
    assert [f.path.name for f in find_files([f"{tmp_path}/d[1].csv"], "events")] == ["d[1].csv"]


def test_files_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(FileNotFoundError, match=r"events: no file matches.*\*\.parquet"):
        find_files([f"{tmp_path}/*.parquet"], "events")
    with pytest.raises(ValueError, match=r"xlsx ends in none of \.parquet"):
        find_files([f"{tmp_path}/a.xlsx"], "events")
    with pytest.raises(ValueError, match="named twice"):
        find_files([f"{tmp_path}/a.csv", f"{tmp_path}/*.csv"], "events")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("twice.csv", b"a,b,a\n1,2,3\n", "'a' appears twice"),
        ("bad.parquet", b"PAR1", "cannot be read"),
        ("bad.csv.gz", b"a,b\n1,2\n", "cannot be read"),
    ],
)
def test_files_without_usable_columns(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=why):
        columns_of(log_file(tmp_path / name))


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_values_survive_whatever_they_hold(tmp_path: Path, suffix: str) -> None:
    texts = ['he said "x", twice', "two\nlines", "it's", "{a}~/b", "größe 🍳", "  padded ", "\\N"]
    columns = ["we ird/k~y", "it's", 'quo"te', "select"]
    rows = [dict.fromkeys(columns, text) for text in texts]
    file = write_log(tmp_path / f"odd.{suffix}", rows)
    assert columns_of(log_file(file)) == columns
    assert read(file, columns[::-1]) == [(n + 1, None, *[t] * 4) for n, t in enumerate(texts)]


def test_a_byte_order_mark_and_blank_lines_are_not_data(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("\ufeffuser,item\r\n1,a\r\n\r\n2,b\r\n".encode())
    assert columns_of(log_file(tmp_path / "log.csv")) == ["user", "item"]
    assert read(tmp_path / "log.csv", ["user"]) == [(1, None, "1"), (2, None, "2")]


def test_json_keys_may_be_missing_from_a_row(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"a": 1}\n\n{"b": [2, "x"]}\n')
    assert columns_of(log_file(tmp_path / "log.jsonl")) == ["a", "b"]
    assert read(tmp_path / "log.jsonl", ["a", "b"]) == [
        (1, None, "1", None),
        (2, None, None, '[2,"x"]'),
    ]


def test_every_parquet_string_is_a_string(tmp_path: Path) -> None:
    words = pa.array(["b", None, "a"])
    kinds = [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
    table = pa.table({f"c{n}": words.cast(kind) for n, kind in enumerate(kinds)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    rows = read(tmp_path / "x.parquet", table.column_names)
    assert rows == [(n + 1, None, *[word.as_py()] * 4) for n, word in enumerate(words)]


def test_nested_columns_are_refused_by_name(tmp_path: Path) -> None:
    table = pa.table({"tags": [["a"], ["b"]], "hour": [time(1), time(2)], "id": [1, 2]})
    pq.write_table(table, tmp_path / "x.parquet")
    for column in ("tags", "hour"):
        with pytest.raises(ValueError, match=f"column '{column}' holds"):
            read(tmp_path / "x.parquet", ["id", column])
    assert read(tmp_path / "x.parquet", ["id"]) == [(1, None, 1), (2, None, 2)]


def test_names_and_strings_are_quoted() -> None:
    with duckdb.connect() as db:
        odd = 'it\'s "odd"; --'
        rows = db.execute(f"SELECT {quoted(odd)} AS {named(odd)}").description
        assert rows is not None and rows[0][0] == odd
        assert db.execute(f"SELECT {quoted(odd)}").fetchall() == [(odd,)]
