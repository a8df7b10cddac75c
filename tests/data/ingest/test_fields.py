"""Fields stay with their events, and what is learnt of them is of training users alone."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from clue.data.columns import history_file, ragged_column, write_columns
from clue.data.corpus import Corpus, read_manifest, seal
from clue.data.fields import Field, learn_edges
from clue.data.ingest import fields as ingest_fields
from clue.prepare import prepare
from tests.data.field_logs import (
    FIELDS,
    as_text,
    cells,
    field_values,
    shop,
    slow_field_values,
    with_fields,
)
from tests.data.logs import Row, config, corpus_of, many_events, write_log

SUFFIXES = ["parquet", "csv", "csv.gz", "jsonl"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_stay_with_their_events(tmp_path: Path, suffix: str) -> None:
    rows = with_fields(many_events(4000, seed=0), seed=1)  # 30 times, 200 users: ties everywhere
    log = write_log(tmp_path / f"log.{suffix}", rows)
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", FIELDS)
    assert field_values(corpus, "price") == slow_field_values(rows, "price")
    assert field_values(corpus, "channel") == slow_field_values(rows, "channel")
    assert field_values(corpus, "gift") == as_text(slow_field_values(rows, "gift"))
    assert corpus.values_of(0, "price").values.dtype == np.float32
    assert corpus.values_of(0, "gift").values.dtype == np.uint16
    random.Random(2).shuffle(rows)
    mixed = write_log(tmp_path / f"mixed.{suffix}", rows)
    shuffled = corpus_of(tmp_path / "m", f"events=[{mixed}]", FIELDS)
    for name in ("price", "channel"):
        assert (
            field_values(shuffled, name)
            == slow_field_values(rows, name)
            != field_values(corpus, name)
        )


def test_edges_and_categories_are_those_of_training_users(tmp_path: Path) -> None:
    rows = with_fields(many_events(4000, seed=3), seed=4)
    rng = random.Random(5)
    # Held-out users alone pay a fortune and come by phone: neither may shape what is learnt.
    names = [str(user) for user in range(200)]
    part = {name: rng.choice(["train", "train", "valid", "test"]) for name in names}
    rows = [{**row, "part": part[str(row["user_id"])]} for row in rows]
    rows = [
        row if row["part"] == "train" else {**row, "price": 1e6, "channel": "phone"} for row in rows
    ]
    log = write_log(tmp_path / "log.parquet", rows)
    split = "split={column: part, train: [train], valid: [valid], test: [test]}"
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", FIELDS, split)
    checked = 0
    for number, service in enumerate(corpus.services):
        training = [row for row in rows if row["service"] == service and row["part"] == "train"]
        price, channel, gift = corpus.fields_of(number)
        prices = [row["price"] for row in training if row["price"] is not None]
        assert price.edges == learn_edges(np.array(prices, np.float32)) and len(price.edges) > 50
        count = Counter(row["channel"] for row in training if row["channel"])
        assert channel.values == tuple(sorted(count, key=lambda name: (-count[name], name)))
        assert gift.values == ("false", "true")
        held_out = np.flatnonzero(corpus.split > 0)
        codes = corpus.values_of(number, "channel").take(held_out).values
        assert len(codes) > 300 and (codes == 1).all()
        checked += 1
    assert checked == 2


def test_ties_of_categories_are_broken_by_name(tmp_path: Path) -> None:
    rows = cells(*["pear", "apple", "fig", "Fig", "apple", "pear", None] * 3, name="kind")
    corpus = shop(
        tmp_path / "c",
        rows,
        "fields={kind: categorical}",
        "split.hash.test=0",
        "split.hash.valid=0",
    )
    assert corpus.fields_of(0) == (
        Field("kind", "categorical", (), ("apple", "pear", "Fig", "fig")),
    )


def test_a_log_without_fields_has_the_files_it_had(tmp_path: Path) -> None:
    rows = with_fields(many_events(2000, seed=6), seed=7)
    log = write_log(tmp_path / "log.parquet", rows)
    plain = corpus_of(tmp_path / "plain", f"events=[{log}]")
    full = corpus_of(tmp_path / "full", f"events=[{log}]", FIELDS)
    assert plain.fields_of(0) == () and read_manifest(plain.path).fields == {}
    for number, service in enumerate(plain.services):
        columns = {
            "items": ragged_column(full.items_of(number)),
            "timestamps": ragged_column(full.timestamps_of(number)),
        }
        write_columns(tmp_path / "two.arrow", columns)
        written = history_file(plain.path, service).read_bytes()
        assert written == (tmp_path / "two.arrow").read_bytes()
    for name in ("users.arrow", "items.arrow", "tokenizer.json"):
        assert (plain.path / name).read_bytes() == (full.path / name).read_bytes()


def test_the_fingerprint_is_of_the_values_and_of_what_codes_stand_for(tmp_path: Path) -> None:
    rows = with_fields(many_events(500, seed=8), seed=9)
    corpora = [
        corpus_of(
            tmp_path / name,
            f"events=[{write_log(tmp_path / f'{name}.jsonl', changed)}]",
            FIELDS,
        )
        for name, changed in {
            "one": rows,
            "same": list(rows),
            "price": [{**rows[0], "price": 17.0}, *rows[1:]],
            "name": [{**row, "channel": row["channel"] and f"x{row['channel']}"} for row in rows],
        }.items()
    ]
    one, same, price, name = (corpus.fingerprint for corpus in corpora)
    assert one == same and len({one, price, name}) == 3
    for number in range(2):  # the codes alone do not tell the last one
        first, last = (c.values_of(number, "channel").values for c in (corpora[0], corpora[3]))
        assert np.array_equal(first, last)


def test_fields_of_each_service_from_columns_of_any_name(tmp_path: Path) -> None:
    rows: list[Row] = [
        {
            "user_id": "u",
            "service": "shop",
            "item_id": "a",
            "timestamp": 1,
            "cost": 5,
            "stars": "x",
        },
        {
            "user_id": "u",
            "service": "films",
            "item_id": "b",
            "timestamp": 2,
            "cost": "n.a.",
            "stars": 4,
        },
        {"user_id": "u", "service": "news", "item_id": "c", "timestamp": 3, "cost": 7, "stars": 1},
    ]
    log = write_log(tmp_path / "log.jsonl", rows)
    services = (
        "services={shop: {fields: {price: {kind: numeric, column: cost}, level: numeric}},"
        " films: {fields: {stars: numeric, level: {kind: categorical, column: cost}}}, news: {}}"
    )
    everywhere = "fields={level: {kind: categorical, column: item_id}}"
    with pytest.raises(
        ValueError,
        match=r"services.shop.fields.level: no column 'level' in .*"
        r"there are cost, .*say under column: what yours is called",
    ):
        corpus_of(tmp_path / "c", f"events=[{log}]", services, everywhere)
    services = services.replace(", level: numeric", "")
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", services, everywhere)
    # What a cell of another service holds is nobody's error; its own field replaces the log's.
    assert [[each.name for each in corpus.fields_of(n)] for n in range(3)] == [
        ["level", "price"],
        ["level", "stars"],
        ["level"],
    ]
    assert corpus.values_of(0, "price").values.tolist() == [5.0]
    assert corpus.values_of(1, "stars").values.tolist() == [4.0]
    assert read_manifest(corpus.path).fields["films"][0].values == ("n.a.",)
    with pytest.raises(ValueError, match="news has no field 'price' but level; declare it"):
        corpus.values_of(2, "price")


def test_a_file_without_the_column_has_it_missing(tmp_path: Path) -> None:
    new = write_log(tmp_path / "2.csv", cells(2.5, 3.5))
    old = write_log(tmp_path / "1.parquet", [{**row} for row in cells(1, 2, name="other")])
    files = f"events=[{old}, {new}]"
    corpus = corpus_of(tmp_path / "c", files, "service=shop", "fields={price: numeric}")
    assert np.array_equal(
        corpus.values_of(0, "price").values,
        np.array([np.nan, 2.5, np.nan, 3.5], np.float32),
        equal_nan=True,
    )


def test_dropped_rows_teach_nothing(tmp_path: Path) -> None:
    good = [{**row, "kind": "a"} for row in cells(*range(1, 200))]
    bad = [
        {**row, "kind": "b", "timestamp": "never", "price": 1e6 + n} for n, row in enumerate(good)
    ]
    field = "fields={price: numeric, kind: categorical}"
    alone = shop(tmp_path / "alone", good, field)
    mixed = shop(tmp_path / "mixed", [*bad, *good], field, "on_bad_row=drop")
    assert mixed.manifest.dropped_rows == {"bad_timestamp": 199}
    assert mixed.fields_of(0) == alone.fields_of(0) and alone.fields_of(0)[1].values == ("a",)


def test_the_most_frequent_categories_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"k{n:05d}" for n in range(70_000)]
    rows = cells(*texts, *texts[-10:], name="kind")
    log = write_log(tmp_path / "log.parquet", rows)
    settings = [
        f"events=[{log}]",
        "service=shop",
        "fields={kind: categorical}",
        "split.hash.valid=0",
        "split.hash.test=0",
    ]
    prepare(config(tmp_path / "c", *settings))
    assert "of the categories of kind the 65,534 most frequent" in capsys.readouterr().err
    corpus = Corpus.open(tmp_path / "c")
    (field,) = corpus.fields_of(0)
    assert field.num_codes == 65_536 and field.values[:11] == (*texts[-10:], texts[0])
    codes = np.sort(corpus.values_of(0, "kind").values)
    assert (codes == 1).sum() == 70_000 - 65_534 and codes[-1] == 65_535
    # Recoding goes through the column in chunks; their size changes nothing.
    monkeypatch.setattr(ingest_fields, "CHUNK", 999)
    again = corpus_of(tmp_path / "again", *settings)
    assert again.fingerprint == corpus.fingerprint


def test_percentiles_of_a_sample_are_near_those_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = cells(*rng.random(20_000).tolist())
    monkeypatch.setattr(ingest_fields, "LEARN_FROM", 5000)
    (field,) = shop(tmp_path / "c", rows, "fields={price: numeric}", suffix="parquet").fields_of(0)
    assert len(field.edges) == 63
    assert np.abs(np.array(field.edges) - np.arange(1, 64) / 64).max() < 0.03


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("fields={items: numeric}", "fields.items: 'items' cannot name a field"),
        ("services={shop: {fields: {timestamps: numeric}}}", "services.shop.fields.timestamps"),
        ("fields={price: number}", "fields.price.kind: Input should be .*'number'"),
        ("fields={price: {kind: numeric, colum: x}}", "unknown key fields.price.colum"),
        (
            "services={shop: {fields: {price: numeric, cost: {kind: numeric, column: price}}}}",
            "fields 'price' and 'cost' of shop are both column 'price', numeric; keep one",
        ),
        ("fields={price: {column: x}}", "missing key fields.price.kind; write"),
    ],
)
def test_fields_that_cannot_be_are_refused(tmp_path: Path, setting: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        prepare(
            config(
                tmp_path / "c",
                f"events=[{write_log(tmp_path / 'x.csv', cells(1))}]",
                "service=shop",
                setting,
            ),
            progress=False,
        )


def test_a_manifest_keeps_its_fields(tmp_path: Path) -> None:
    rows = with_fields(many_events(300, seed=1), seed=2)
    log = write_log(tmp_path / "log.csv", rows)
    corpus = corpus_of(tmp_path / "c", f"events=[{log}]", FIELDS)
    seal(corpus.path, corpus.manifest)
    again = Corpus.open(corpus.path)
    assert again.manifest == corpus.manifest and again.fingerprint == corpus.fingerprint
    tree = json.loads((corpus.path / "manifest.json").read_text())["fields"]["news"][0]
    assert tree["name"] == "price" and tree["edges"] == list(again.fields_of(0)[0].edges)
