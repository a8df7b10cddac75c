"""Logs in the shapes in which common tools write them: each becomes the events that it means."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data.corpus import Corpus
from clue.prepare import prepare
from tests.data.logs import Row, config, corpus_of, histories, write_log

PLAIN = "user_id,item_id,timestamp\nu1,a,1\nu2,b,2\n"
EVENTS_OF_PLAIN = {("u1", "shop"): [("a", 1.0)], ("u2", "shop"): [("b", 2.0)]}


def packed(file: Path, content: bytes) -> Path:
    """Write bytes, packed as the ending says."""
    if file.suffix.lower() == ".gz":
        file.write_bytes(gzip.compress(content))
    elif file.suffix.lower() == ".zst":
        with pa.output_stream(str(file), compression="zstd") as stream:
            stream.write(content)
    else:
        file.write_bytes(content)
    return file


def corpus_from(out: Path, files: Sequence[Path] | Path, *overrides: str) -> Corpus:
    names = [str(file) for file in ([files] if isinstance(files, Path) else files)]
    return corpus_of(out, f"events={json.dumps(names)}", *overrides)


def error_of(out: Path, file: Path, *overrides: str) -> str:
    with pytest.raises(ValueError) as caught:
        prepare(config(out, f"events=[{file}]", *overrides), progress=False)
    message = str(caught.value)
    assert not any(raw in message for raw in ("Binder", "Parser Error", "Arrow", "pydantic"))
    return message


def lines_of(out: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """Return what prepare prints."""
    prepare(config(out, *overrides), progress=True)
    return capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_columns_that_differ_in_case_only(tmp_path: Path, suffix: str) -> None:
    rows: list[Row] = [
        {"ID": "u1", "id": "pan", "timestamp": 1, "Title": "KITCHEN", "title": "iron pan"},
        {"ID": "u1", "id": "pot", "timestamp": 2, "Title": "KITCHEN", "title": "pot"},
        {"ID": "u2", "id": "pan", "timestamp": 3, "Title": "KITCHEN", "title": "iron pan"},
    ]
    log = write_log(tmp_path / f"log.{suffix}", rows)
    columns = "columns={user_id: ID, item_id: id}"
    template = 'services={shop: {template: "{title} for {Title}"}}'
    corpus = corpus_from(tmp_path / "c", log, "service=shop", columns, template)
    assert histories(corpus) == {
        ("u1", "shop"): [("pan", 1.0), ("pot", 2.0)],
        ("u2", "shop"): [("pan", 3.0)],
    }
    assert corpus.item_texts.to_pylist() == ["iron pan for KITCHEN", "pot for KITCHEN"]


@pytest.mark.parametrize(
    "text",
    [
        ",user_id,item_id,timestamp\n0,u1,a,1\n1,u2,b,2\n",  # pandas with its index
        "user_id,item_id,timestamp,,\nu1,a,1,,\nu2,b,2,,\n",  # a spreadsheet's empty columns
        "user_id, item_id, timestamp\nu1, a, 1\nu2, b, 2\n",  # white space after the commas
    ],
)
def test_nameless_columns_and_white_space_are_passed_over(tmp_path: Path, text: str) -> None:
    log = packed(tmp_path / "log.csv", text.encode())
    assert histories(corpus_from(tmp_path / "c", log, "service=shop")) == EVENTS_OF_PLAIN


def test_a_log_without_a_service_column_is_told_the_way_out(tmp_path: Path) -> None:
    log = packed(tmp_path / "log.csv", PLAIN.encode())
    assert "or service=NAME for a log of one service" in error_of(tmp_path / "c", log)
    assert "service=NAME" not in error_of(tmp_path / "c", log, "columns.user_id=who")


@pytest.mark.parametrize("key", ["text", "größe"])
def test_a_json_key_may_come_late(tmp_path: Path, key: str) -> None:
    rows: list[Row] = [
        {"user_id": f"u{n}", "item_id": f"i{n}", "timestamp": n, "note": "text"}
        | ({key: f"oak table {n}"} if n >= 1200 else {})
        for n in range(1210)
    ]
    log = write_log(tmp_path / "log.jsonl.gz", rows)
    settings = ["service=shop", f"columns.text={key}"]
    assert "empty_text (1,200)" in error_of(tmp_path / "c", log, *settings)
    corpus = corpus_from(tmp_path / "c", log, *settings, "on_bad_row=drop")
    texts = dict(zip(corpus.item_ids.to_pylist(), corpus.item_texts.to_pylist(), strict=True))
    assert len(texts) == 10 and texts["i1200"] == "oak table 1200"
    other = write_log(tmp_path / "other.jsonl", [{**rows[0], "item_id": "j", key: "pan"}])
    template = f'services={{shop: {{template: "{{item_id}} {{{key}}}"}}}}'
    both = corpus_from(tmp_path / "both", [log, other], "service=shop", template)
    texts = dict(zip(both.item_ids.to_pylist(), both.item_texts.to_pylist(), strict=True))
    assert (texts["i0"], texts["i1200"], texts["j"]) == ("i0 ", "i1200 oak table 1200", "j pan")


def test_partitions_are_columns_of_folders_and_globs(tmp_path: Path) -> None:
    for service, items in (("books", "ab"), ("sci%2Dfi", "cd")):
        folder = tmp_path / "log" / f"service={service}" / "day=1"
        folder.mkdir(parents=True)
        rows = [{"user_id": "u", "item_id": item, "timestamp": ord(item)} for item in items]
        write_log(folder / "part-0.parquet", rows)
        (folder / "_SUCCESS").touch()
        (folder / ".part-0.parquet.crc").touch()
    expected = {
        ("u", "books"): [("a", 97.0), ("b", 98.0)],
        ("u", "sci-fi"): [("c", 99.0), ("d", 100.0)],
    }
    for number, pattern in enumerate(("log", "log/**/*.parquet", "log/*", "log/**")):
        corpus = corpus_from(tmp_path / f"c{number}", tmp_path / pattern)
        assert histories(corpus) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", PLAIN.replace(",", "\t").encode()),
        ("a.csv", PLAIN.replace(",", ";").encode()),
        ("b.csv", PLAIN.replace(",", "|").encode()),
        ("c.csv", PLAIN.replace(",", "\t").encode()),
        ("LOG.CSV", PLAIN.encode()),
        ("d.csv.zst", PLAIN.encode()),
        ("e.csv.GZ", PLAIN.encode()),
        ("utf16.csv", PLAIN.encode("utf-16")),
        ("utf16be.csv.gz", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
    ],
)
def test_csv_in_every_dress(tmp_path: Path, name: str, content: bytes) -> None:
    log = packed(tmp_path / name, content)
    assert histories(corpus_from(tmp_path / "c", log, "service=shop")) == EVENTS_OF_PLAIN


@pytest.mark.parametrize("ending", ["ndjson", "json", "jsonl.zst", "JSON.GZ", "ndjson.gz"])
def test_json_lines_in_every_dress(tmp_path: Path, ending: str) -> None:
    rows = ({"user_id": f"u{n}", "item_id": "ab"[n - 1], "timestamp": n} for n in (1, 2))
    log = packed(tmp_path / f"log.{ending}", "\n\n".join(map(json.dumps, rows)).encode())
    assert histories(corpus_from(tmp_path / "c", log, "service=shop")) == EVENTS_OF_PLAIN


@pytest.mark.parametrize("whole", [True, False])
def test_parquet_called_zst(tmp_path: Path, whole: bool) -> None:
    table = pa.table({"user_id": ["u1", "u2"], "item_id": ["a", "b"], "timestamp": [1, 2]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    log, content = tmp_path / "log.parquet.zst", sink.getvalue().to_pybytes()
    packed(log, content) if whole else log.write_bytes(content)
    assert histories(corpus_from(tmp_path / "c", log, "service=shop")) == EVENTS_OF_PLAIN


def test_a_delimiter_is_found_and_printed_or_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quoted = 'user_id;item_id;timestamp;"a,b,c,d"\nu1;a;1;x\nu2;b;2;y\n'
    log = packed(tmp_path / "log.csv", quoted.encode())
    shown = lines_of(tmp_path / "c", capsys, f"events=[{log}]", "service=shop")
    assert f"{log}: values are parted by ';'" in shown
    other = packed(tmp_path / "other.csv", PLAIN.replace(",", "::").encode())
    corpus = corpus_from(tmp_path / "o", other, "service=shop", 'delimiter="::"')
    assert histories(corpus) == EVENTS_OF_PLAIN == histories(Corpus.open(tmp_path / "c"))
    assert "delimiter" in error_of(tmp_path / "x", log, 'delimiter=":::::"')


def test_an_empty_day_has_no_rows(tmp_path: Path) -> None:
    full = packed(tmp_path / "1.csv", PLAIN.encode())
    empty = [packed(tmp_path / name, b"") for name in ("2.csv", "3.jsonl", "4.csv.gz", "5.parquet")]
    corpus = corpus_from(tmp_path / "c", [full, *empty], "service=shop")
    assert histories(corpus) == EVENTS_OF_PLAIN
    assert "are empty" in error_of(tmp_path / "e", empty[0], "service=shop")


def test_what_is_not_read_is_refused_with_the_next_step(tmp_path: Path) -> None:
    array = packed(tmp_path / "array.json", b'[{"user_id": 1}]')
    assert "one JSON array" in error_of(tmp_path / "c", array, "service=shop")
    half = packed(
        tmp_path / "log.csv.gz",
        PLAIN.encode() + "".join(f"u{n},{n**7},{n}\n" for n in range(9999)).encode(),
    )
    half.write_bytes(half.read_bytes()[:20_000])
    assert "is the file whole?" in error_of(tmp_path / "c", half, "service=shop")
