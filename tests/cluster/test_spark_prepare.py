"""The corpus that Spark makes is DuckDB's to the byte, here in Spark's local mode on two cores."""

# pyright: standard

import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data.corpus import Corpus
from clue.prepare import prepare
from tests.data.field_logs import FIELDS, with_fields
from tests.data.logs import EVENTS, Row, config, many_events, write_log

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("session"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet:FutureWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # py4j's sockets
]
SPARK = ("engine=spark", "spark.partitions=5")


def both(folder: Path, *settings: str) -> Corpus:
    """Prepare on both engines, compare every file, and return the corpus."""
    there: list[dict[str, str]] = []
    for name, engine in (("duckdb", ()), ("spark", SPARK)):
        out = prepare(config(folder / name, *settings, *engine), progress=False)
        files = sorted(out.iterdir())
        there.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    assert there[0] == there[1] and len(there[0]) >= 5
    return Corpus.open(folder / "spark")


def messages(folder: Path, *settings: str) -> str:
    """Return the one message with which both engines refuse a log."""
    said: list[str] = []
    for name, engine in (("duckdb", ()), ("spark", SPARK)):
        with pytest.raises(ValueError) as error:
            prepare(config(folder / name, *settings, *engine), progress=False)
        said.append(str(error.value))
        assert not (folder / name).exists()
    assert said[0] == said[1]
    return said[0]


def row_groups(file: Path, rows: Sequence[Row], size: int) -> Path:
    """Write Parquet in many row groups, which several tasks read."""
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file, row_group_size=size)
    return file


def spoilt(rows: Sequence[Row], seed: int) -> list[Row]:
    """Return the rows, each twentieth bad in one of four ways."""
    rng = random.Random(seed)
    ways: list[Callable[[Row], Row]] = [
        lambda row: {**row, "user_id": None},
        lambda row: {**row, "item_id": "NA"},
        lambda row: {**row, "timestamp": "soon"},
        lambda row: {**row, "price": "dear"},
    ]
    return [
        rng.choice(ways)(row) if n % 20 == 7 else {**row, "timestamp": str(row["timestamp"])}
        for n, row in enumerate(rows)
    ]


def test_files_of_every_kind_with_fields_and_bad_rows(tmp_path: Path) -> None:
    rows = spoilt(with_fields(many_events(6000, seed=0), seed=1), seed=2)
    for number, suffix in enumerate(("csv", "jsonl.gz", "csv.gz")):
        write_log(tmp_path / f"log{number}.{suffix}", rows[number::4])
    as_text = [
        {name: None if value is None else str(value) for name, value in row.items()}
        for row in rows[3::4]
    ]
    row_groups(tmp_path / "log3.parquet", as_text, 100)
    with (tmp_path / "log0.csv").open("a", newline="") as log:
        log.write("one,value,too,many,for,this,log,of,eight,columns\r\n")
    log = f"events=[{tmp_path}/log*]"
    corpus = both(tmp_path, log, FIELDS, "on_bad_row=drop")
    assert sum(corpus.manifest.dropped_rows.values()) == 301
    assert len(corpus.manifest.dropped_rows) == 5
    said = messages(tmp_path / "refused", log, FIELDS)
    assert "bad rows: 301" in said and "log3.parquet row " in said and "log0.csv row 1501" in said


def test_a_split_column_whose_user_is_in_two_parts(tmp_path: Path) -> None:
    rows = many_events(3000, seed=3)
    parts = {row["user_id"]: random.Random(str(row["user_id"])).choice("abc") for row in rows}
    rows = [{**row, "part": parts[row["user_id"]]} for row in rows]
    rows[70] = {**rows[70], "part": "a" if rows[70]["part"] == "b" else "b"}
    log = f"events=[{row_groups(tmp_path / 'log.parquet', rows, 200)}]"
    split = "split={column: part, train: [a], valid: [b], test: [c]}"
    corpus = both(tmp_path, log, split, "on_bad_row=drop")
    assert corpus.manifest.dropped_rows["user_in_two_splits"] > 5
    assert "user_in_two_splits" in messages(tmp_path / "refused", log, split)


def test_items_with_templates_and_events_of_none_of_them(tmp_path: Path) -> None:
    items = [
        {"service": service, "item_id": f"i{n}", "title": f"thing {n}", "price": n / 4}
        for service in ("shop", "news", "unread")
        for n in range(120)
    ]
    items += [{**items[3], "title": "another text"}, {**items[4], "item_id": None}]
    rng = random.Random(4)
    events = [
        {
            "user_id": f"u{rng.randrange(90)}",
            "service": rng.choice(["shop", "news"]),
            "item_id": f"i{rng.randrange(125)}",
            "timestamp": rng.randrange(40),
        }
        for _ in range(4000)
    ]
    log = [
        f"events=[{row_groups(tmp_path / 'events.parquet', events, 300)}]",
        f"items=[{write_log(tmp_path / 'items.csv', items)}]",
    ]
    known = "services={shop: {template: '{title} for {price}'}, news: {template: '{title}'}}"
    corpus = both(tmp_path, *log, known, "on_bad_row=drop")
    assert corpus.services == ("shop", "news") and corpus.num_items == 240
    assert corpus.manifest.dropped_rows["item_not_in_items"] > 100
    assert corpus.manifest.dropped_rows["item_with_another_text"] == 1
    said = messages(tmp_path / "refused", *log, known)
    assert "item 'i3' reads 'another text for 0.75', before it read 'thing 3 for 0.75'" in said
    # Without services named: "unread" has items and no event, and is none of the services.
    every = both(tmp_path / "every", *log, "columns.text=title", "on_bad_row=drop")
    assert every.services == ("news", "shop") and every.num_items == 240


@pytest.mark.parametrize("said", [None, "ms"])
def test_times_of_any_unit(tmp_path: Path, said: str | None) -> None:
    start = datetime(2024, 1, 2, tzinfo=UTC)
    rows = many_events(2000, seed=5)
    moments = [start + timedelta(seconds=61.25 * row["timestamp"]) for row in rows]
    numbers = [
        {**row, "timestamp": int(moment.timestamp() * 1000)}
        for row, moment in zip(rows, moments, strict=True)
    ]
    if said is None:
        numbers[11] = {**numbers[11], "timestamp": int(start.timestamp())}
    dates = [
        {**row, "timestamp": moment.isoformat()} for row, moment in zip(rows, moments, strict=True)
    ]
    row_groups(tmp_path / "a.parquet", numbers[::2], 150)
    write_log(tmp_path / "b.jsonl", dates[1::2])
    unit = [f"time_unit={said}"] if said else []
    log = f"events=[{tmp_path}/a.parquet, {tmp_path}/b.jsonl]"
    moved = 0 if said else sum(n["timestamp"] < 2e9 for n in numbers[::2])
    corpus = both(tmp_path, log, *unit, "on_bad_row=drop")
    assert all(corpus.manifest.clocks.values())
    assert corpus.manifest.dropped_rows.get("time_of_another_unit", 0) == moved
    assert corpus.timestamps_of(0).values.min() >= start.timestamp()


def test_a_user_with_most_of_the_events(tmp_path: Path, session: Any) -> None:
    """Their history is sorted in windows, by several tasks, and is one history in the corpus."""
    rng = np.random.default_rng(6)
    count = 200_000
    users = np.concatenate([np.full(count, "many"), [f"u{n % 60}" for n in range(3000)]])
    order = rng.permutation(len(users))
    table = pa.table(
        {
            "user_id": users[order],
            "service": ["shop"] * len(users),
            "item_id": [f"i{n}" for n in rng.zipf(1.4, len(users)) % 500],
            "timestamp": rng.integers(0, 1000, len(users)),  # 200 events a second
            "amount": np.where(rng.random(len(users)) < 0.1, np.nan, rng.random(len(users))),
            "channel": rng.choice(["web", "app", "shop"], len(users)),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=30_000)
    fields = "fields={amount: numeric, channel: categorical}"
    corpus = both(tmp_path, f"events=[{tmp_path}/log.parquet]", fields)
    assert corpus.items_of(0).lengths.max() == count
    cut = both(tmp_path / "cut", f"events=[{tmp_path}/log.parquet]", fields, "shards=3")
    assert cut.fingerprint == corpus.fingerprint and len(cut.manifest.shards) == 4
    from clue.data.ingest.prepare_config import open_logs
    from clue.data.ingest.spark.frames import Frames

    settings = config(tmp_path / "x", f"events=[{tmp_path}/log.parquet]", *SPARK)
    frames = Frames(session.newSession(), settings, open_logs(settings), tmp_path)
    log = frames.spark.read.parquet(str(tmp_path / "log.parquet"))
    # A number of the partition stands behind the sort, or Spark would filter before it.
    ranges = frames.sort(log, "user_id", "timestamp").selectExpr(
        "user_id", "spark_partition_id() AS part"
    )
    sizes = ranges.where("user_id = 'many'").groupBy("part").count().collect()
    assert sum(row["count"] for row in sizes) == count
    assert sum(row["count"] > count / 10 for row in sizes) >= 4


def test_bits_that_no_engine_may_change(tmp_path: Path) -> None:
    nan = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001, 0x80000000, 0x3F800000], np.uint32)
    count = 500
    table = pa.table(
        {
            "user_id": [
                ["é", "e", "z", "\U0001f600", "￿", "Z", "a\x00b"][n % 7] for n in range(count)
            ],
            "service": ["shop"] * count,
            "item_id": [f"i{n % 9}" for n in range(count)],
            "timestamp": [[0.0, -0.0, 1.5, -1e300][n % 4] for n in range(count)],
            "amount": np.tile(nan, count // 5).view(np.float32),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=64)
    corpus = both(tmp_path, f"events=[{tmp_path}/log.parquet]", "fields={amount: numeric}")
    assert corpus.num_users == 7 and sum(corpus.manifest.num_events.values()) == count
    bits = corpus.values_of(0, "amount").values.view(np.uint32)
    assert set(bits.tolist()) == set(nan.tolist())


def test_a_file_that_breaks_off_and_a_log_of_folders(tmp_path: Path) -> None:
    for service in ("shop", "news"):
        rows = [
            {name: value for name, value in row.items() if name != "service"}
            for row in EVENTS
            if row["service"] == service
        ]
        folder = tmp_path / "log" / f"service={service}"
        folder.mkdir(parents=True)
        write_log(folder / "part.parquet", rows)
    corpus = both(tmp_path, f"events=[{tmp_path}/log]")
    assert corpus.manifest.num_events == {"news": 2, "shop": 4}
    whole = write_log(tmp_path / "whole.jsonl.gz", many_events(3000, seed=7))
    whole.write_bytes(whole.read_bytes()[:-2000])
    said = messages(tmp_path / "broken", f"events=[{whole}]")
    assert "whole.jsonl.gz" in said and "is the file whole?" in said


def test_what_was_added_is_for_the_engine_that_keeps_it(tmp_path: Path) -> None:
    """An append is refused before a log is opened, and leaves what DuckDB has staged as it was."""
    logs = [write_log(tmp_path / f"log{n}.jsonl", many_events(600, seed=20 + n)) for n in range(2)]
    out = tmp_path / "c"
    prepare(config(out, f"events=[{logs[0]}]", "append=true"), progress=False)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    more = [f"events=[{logs[1]}]", "append=true"]
    for wrong in (SPARK, ("engine=spark", "compact=false")):
        with pytest.raises(ValueError, match=r"engine=spark keeps no rows.*engine=duckdb"):
            prepare(config(out, *more, *wrong), progress=False)
        with pytest.raises(ValueError, match="engine=spark keeps no rows"):
            prepare(config(tmp_path / "new", *more, *wrong), progress=False)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert not (tmp_path / "new").exists()
    grown = prepare(config(out, *more), progress=False)
    # And the next step that the error names: on Spark, all files at once, with the first tokenizer.
    every = [f"events=[{logs[0]}, {logs[1]}]", f"tokenizer.path={out}/tokenizer.json"]
    anew = prepare(config(tmp_path / "anew", *every, *SPARK), progress=False)
    same = [file.name for file in grown.glob("*.arrow")]
    assert len(same) >= 3
    for name in same:
        assert (grown / name).read_bytes() == (anew / name).read_bytes()
