"""One rule from a value to an id; values of rare types; ids that stand for nobody."""

import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data.corpus import Corpus
from clue.prepare import prepare
from tests.data.ingest.test_field_logs import corpus_from, error_of, lines_of, packed
from tests.data.logs import Row, config, histories, write_log


def test_one_number_is_one_id_however_it_is_written(tmp_path: Path) -> None:
    logs = [
        packed(tmp_path / "a.jsonl", b'{"user_id":123.0,"item_id":7,"timestamp":1}\n'),
        packed(tmp_path / "b.jsonl", b'{"user_id":"123","item_id":7.0,"timestamp":2}\n'),
        packed(tmp_path / "c.csv", b"user_id,item_id,timestamp\n123.0,7.00,3\n1.23e+02,7,4\n"),
    ]
    columns = {
        "int": pa.array([123]),
        "float": pa.array([123.0]),
        "half": pa.array([123.0], pa.float16()),
        "dec": pa.array([decimal.Decimal("123.00")]),
        "dec256": pa.array([decimal.Decimal("123.00")], pa.decimal256(50, 2)),
        "text": pa.array(["123.0"]),
    }
    for number, (name, ids) in enumerate(columns.items()):
        log = tmp_path / f"{name}.parquet"
        table = {"user_id": ids, "item_id": pa.array([7]), "timestamp": pa.array([5 + number])}
        pq.write_table(pa.table(table), log)
        logs.append(log)
    corpus = corpus_from(tmp_path / "c", logs, "service=shop")
    assert histories(corpus) == {("123", "shop"): [("7", float(t)) for t in range(1, 11)]}


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("a.csv", b"1234567890123456789.0", "1234567890123456789.0"),
        ("a.csv", b"1.2345678901234568e+18", "1.2345678901234568e+18"),
        ("a.jsonl", b"9007199254740992.0", "9007199254740992.0"),
        ("a.parquet", pa.array([2.0**53]), "9007199254740992.0"),
        ("a.parquet", pa.array([2.0**24], pa.float32()), "16777216.0"),
    ],
)
def test_an_id_that_a_float_has_lost_is_a_bad_row(
    tmp_path: Path, name: str, content: Any, shown: str
) -> None:
    log = tmp_path / name
    if log.suffix == ".csv":
        log.write_bytes(b"user_id,item_id,timestamp\n" + content + b",a,1\n")
    elif log.suffix == ".jsonl":
        log.write_bytes(b'{"user_id":' + content + b',"item_id":"a","timestamp":1}\n')
    else:
        pq.write_table(pa.table({"user_id": content, "item_id": ["a"], "timestamp": [1]}), log)
    message = error_of(tmp_path / "c", log, "service=shop")
    assert f"id_beyond_2_53 (1), first:\n    {log} row 1: '{shown}'" in message


def test_whole_numbers_of_64_bits_and_texts_like_numbers_keep_their_digits(tmp_path: Path) -> None:
    ids = ["1234567890123456789", "1234567890123456790", "12e34", "1.5", "007", "v1.0", "+1-2.0"]
    rows: list[Row] = [{"user_id": u, "item_id": "a", "timestamp": 1} for u in ids]
    corpus = corpus_from(tmp_path / "c", write_log(tmp_path / "x.csv", rows), "service=shop")
    assert corpus.user_ids.to_pylist() == sorted(ids)


def test_lists_and_objects_are_no_values(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"user_id":"u1","item_id":["a","b"],"timestamp":1}\n'
        '{"user_id":{"id":5},"item_id":"c","timestamp":2}\n'
        '{"user_id":"[5]","item_id":"{c}","timestamp":3}\n'  # odd, but texts
    )
    message = error_of(tmp_path / "c", log, "service=shop")
    assert "not_a_plain_value (2)" in message
    assert f'{log} row 1: \'item_id=["a","b"]\'' in message and "row 2: 'user_id={" in message
    corpus = corpus_from(tmp_path / "c", log, "service=shop", "on_bad_row=drop")
    assert histories(corpus) == {("[5]", "shop"): [("{c}", 3.0)]}


@pytest.mark.parametrize("marker", ["NA", "NULL", "null", "\\N", "None", "NaN", "-", "", " "])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_marker_of_nobody_is_nobody(tmp_path: Path, marker: str, suffix: str) -> None:
    rows: list[Row] = [
        {"user_id": user, "item_id": "a", "timestamp": 1} for user in (marker, "u1", marker)
    ]
    log = write_log(tmp_path / f"log.{suffix}", rows)
    corpus = corpus_from(tmp_path / "c", log, "service=shop", "on_bad_row=drop")
    assert corpus.user_ids.to_pylist() == ["u1"]
    assert corpus.manifest.dropped_rows == {"null_user_id": 2}


def test_null_values_are_configurable_and_a_crowd_in_one_user_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Row] = [
        {"user_id": 0 if n % 4 == 0 else n, "item_id": "NA", "timestamp": n} for n in range(400)
    ]
    log = write_log(tmp_path / "log.parquet", rows)
    with pytest.raises(ValueError, match=r"null_item_id \(400\)"):
        prepare(config(tmp_path / "x", f"events=[{log}]", "service=shop"), progress=False)
    settings = [f"events=[{log}]", "service=shop", "on_bad_row=drop"]
    shown = lines_of(tmp_path / "c", capsys, *settings, "null_values=[]")
    assert "user '0' has 100 of 400 events (25%)" in shown
    shown = lines_of(tmp_path / "d", capsys, *settings, 'null_values=["0"]')
    assert "has 100 of" not in shown
    assert Corpus.open(tmp_path / "d").manifest.dropped_rows == {"null_user_id": 100}


def test_columns_of_newer_and_rarer_types(tmp_path: Path) -> None:
    whole = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    raw = pa.array([whole.bytes, None], pa.binary(16))
    columns = {
        "user": raw,
        "ext": pa.ExtensionArray.from_storage(pa.uuid(), raw),
        "view": pa.array(["x", None], pa.string_view()),
        "bytes": pa.array([b"y", None], pa.binary_view()),
        "coded": pa.array(["z", None]).dictionary_encode(),
        "nothing": pa.nulls(2),
    }
    table = pa.table({**columns, "item_id": ["a", "b"], "timestamp": [1, 2], "user_id": ["u", "v"]})
    pq.write_table(table, tmp_path / "log.parquet")
    template = ":".join(f"{{{name}}}" for name in [*columns, "item_id"])
    corpus = corpus_from(
        tmp_path / "c",
        tmp_path / "log.parquet",
        "service=shop",
        f'services={{shop: {{template: "{template}"}}}}',
    )
    assert corpus.item_texts.to_pylist() == [f"{whole}:{whole}:x:y:z::a", "::::::b"]


@pytest.mark.parametrize("kind", [pa.binary(7), pa.duration("s"), pa.list_(pa.int32())])
def test_other_types_are_refused_by_column_and_type(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"user_id": pa.nulls(1).cast(kind), "item_id": ["a"], "timestamp": [1]})
    pq.write_table(table, tmp_path / "log.parquet")
    message = error_of(tmp_path / "c", tmp_path / "log.parquet", "service=shop")
    written = pq.read_schema(tmp_path / "log.parquet").field("user_id").type  # lists are renamed
    assert f"column 'user_id' holds {written}" in message and "write it as text" in message


def test_an_event_with_another_text_is_kept_and_not_counted_as_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Row] = [
        {"user_id": f"u{n}", "item_id": "Heroes", "timestamp": n, "text": f"by {n % 2}"}
        for n in range(6)
    ]
    log = write_log(tmp_path / "songs.csv", rows)
    drop = [f"events=[{log}]", "service=music", "on_bad_row=drop"]
    shown = lines_of(tmp_path / "c", capsys, *drop)
    assert "item_with_another_text (3), events kept" in shown
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.manifest.dropped_rows == {} and corpus.manifest.num_events == {"music": 6}


def test_items_of_the_same_tokens_have_the_same_content(tmp_path: Path) -> None:
    long = "one very long description of a product " * 9
    texts = ["Café Mug", "CAFÉ MUG", "cafe\u0301 mug", "Ｃafé mug", long + "red", long + "blue"]
    rows: list[Row] = [
        {"user_id": "u", "item_id": f"i{n}", "timestamp": n, "text": text}
        for n, text in enumerate([*texts, "a pan"])
    ]
    corpus = corpus_from(tmp_path / "c", write_log(tmp_path / "x.jsonl", rows), "service=shop")
    content = corpus.item_content
    assert len(set(content[:4].tolist())) == len(set(content[4:6].tolist())) == 1
    assert len(np.unique(content)) == 3
    tokens = [corpus.item_tokens[item].tolist() for item in range(7)]
    assert tokens[0] == tokens[3] and tokens[4] == tokens[5] and tokens[0] != tokens[4]
