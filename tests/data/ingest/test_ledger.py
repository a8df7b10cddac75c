"""What is staged once stays: files are added to it, and what a killed run has read is not lost."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data.corpus import Corpus
from clue.data.ingest import staged, writer
from clue.data.ingest.ledger import Key, ledger_folder, open_ledger
from clue.prepare import prepare
from tests.data.logs import (
    Row,
    config,
    corpus_of,
    histories,
    many_events,
    slow_histories,
    write_log,
)

FIELDS = ["fields.price=numeric", "fields.channel=categorical"]


def days(tmp_path: Path, count: int = 6) -> tuple[list[Path], list[Row]]:
    """Return the files of a log with fields, one a day, in all formats, and their rows in order."""
    rows: list[Row] = [
        {**row, "price": n % 7 / 4, "channel": ("web", "app", None)[n % 3]}
        for n, row in enumerate(many_events(3000, seed=8))
    ]
    for n in range(len(rows) // 2, len(rows), 50):  # items of the later days alone
        rows[n] = {**rows[n], "item_id": f"new{n}"}
    size = len(rows) // count
    parts = [rows[n * size : (n + 1) * size] for n in range(count)]
    endings = ["parquet", "csv", "jsonl"]
    files = [write_log(tmp_path / f"day{n}.{endings[n % 3]}", part) for n, part in enumerate(parts)]
    return files, [row for part in parts for row in part]


def same(one: Corpus, other: Corpus) -> bool:
    """Return whether two corpora have the same bytes."""
    return one.fingerprint == other.fingerprint


def test_files_that_are_added_make_the_corpus_of_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, rows = days(tmp_path)
    out = tmp_path / "grown"
    first = corpus_of(out, f"events={[str(f) for f in files[:3]]}", "append=true", *FIELDS)
    assert histories(first) == slow_histories(rows[: len(rows) // 2])
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_bytes(first.tokenizer_path.read_bytes())
    for file in files[:3]:
        file.unlink()  # what is staged is not read again
    encoded: list[str] = []
    encode = writer.encode

    def noted(tokenizer: Any, texts: list[str], limit: int) -> Any:
        encoded.extend(texts)
        return encode(tokenizer, texts, limit)

    monkeypatch.setattr(writer, "encode", noted)
    for file in files[3:5]:
        prepare(config(out, f"events=[{file}]", "append=true", "compact=false", *FIELDS), False)
        assert same(Corpus.open(out), first) and not encoded
    grown = corpus_of(out, f"events=[{files[5]}]", "append=true", *FIELDS)
    assert len(encoded) == len(set(encoded)) == grown.num_items - first.num_items > 0
    assert histories(grown) == slow_histories(rows)
    days(tmp_path)
    everything = [f"events={[str(f) for f in files]}", f"tokenizer.path={tokenizer}"]
    whole = corpus_of(tmp_path / "whole", *everything, *FIELDS)
    assert same(grown, whole) and grown.manifest.fields == whole.manifest.fields
    names = {file.name for file in grown.path.iterdir()} - {"manifest.json"}
    assert len(names) >= 5
    for name in names:
        assert (grown.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert len(grown.manifest.source) == 6 and not ledger_folder(tmp_path / "whole").exists()


def test_what_is_added_is_good_or_not_added(tmp_path: Path) -> None:
    files, rows = days(tmp_path)
    out, some = tmp_path / "c", [f"events={[str(f) for f in files[:2]]}", "append=true"]
    first = corpus_of(out, *some, *FIELDS)
    bad = write_log(tmp_path / "bad.csv", [{**rows[0], "timestamp": "soon"}])
    with pytest.raises(ValueError, match=r"bad.csv row 1"):
        prepare(config(out, f"events=[{bad}]", "append=true", *FIELDS), False)
    again = corpus_of(out, *some, *FIELDS)
    assert same(first, again) and len(again.manifest.source) == 2
    more = corpus_of(out, f"events=[{files[2]}]", "append=true", *FIELDS)
    assert histories(more) == slow_histories(rows[: len(rows) // 2])
    write_log(files[0], rows[:5])
    with pytest.raises(ValueError, match="is another file than"):
        prepare(config(out, *some, *FIELDS), False)
    with pytest.raises(ValueError, match="read with other settings"):
        prepare(config(out, f"events=[{files[3]}]", "append=true", *FIELDS, "seed=3"), False)
    with pytest.raises(ValueError, match="overwrite=true"):
        prepare(config(out, f"events=[{files[3]}]", *FIELDS), False)
    with pytest.raises(ValueError, match="say append=true"):
        prepare(config(out, f"events=[{files[3]}]", "compact=false", *FIELDS), False)
    assert same(Corpus.open(out), more)
    alone = corpus_of(out, f"events=[{files[3]}]", *FIELDS, "overwrite=true")
    assert len(alone.manifest.source) == 1 and not ledger_folder(out).exists()


def test_units_and_dropped_rows_are_those_of_all_files(tmp_path: Path) -> None:
    rows = many_events(900, seed=3)
    scaled = [{**r, "timestamp": 1_700_000_000 + n} for n, r in enumerate(rows)]
    parts: list[list[dict[str, Any]]] = [
        scaled[:300],
        [{**r, "timestamp": r["timestamp"] * 1000} for r in scaled[300:600]],
    ]
    parts.append([{**r, "timestamp": r["timestamp"] * 1000} for r in scaled[600:]])
    parts[1][5]["timestamp"] = 1_700_000_000  # seconds among milliseconds
    files = [write_log(tmp_path / f"{n}.csv", part) for n, part in enumerate(parts)]
    with files[0].open("a") as log:
        log.write('"broken\n')
    for file in files:
        keys = [f"events=[{file}]", "append=true", "on_bad_row=drop"]
        prepare(config(tmp_path / "grown", *keys), False)
    grown = Corpus.open(tmp_path / "grown")
    keys = [f"events={[str(f) for f in files]}", "on_bad_row=drop"]
    keys += [f"tokenizer.path={grown.tokenizer_path}"]
    whole = corpus_of(tmp_path / "whole", *keys)
    assert same(grown, whole)
    assert grown.manifest.dropped_rows == whole.manifest.dropped_rows
    assert set(whole.manifest.dropped_rows) == {"malformed_row", "time_of_another_unit"}


def test_a_run_goes_on_where_one_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, rows = days(tmp_path)
    keys = [f"events={[str(f) for f in files]}", *FIELDS]
    whole = corpus_of(tmp_path / "whole", *keys)
    monkeypatch.setattr(staged, "PART", 1)
    read: list[str] = []
    stage, left = staged.stage_events, [4]

    def until_killed(db: Any, log: Any, part: Any, *args: Any, **more: Any) -> None:
        if len(read) == left[0]:
            raise KeyboardInterrupt  # nothing is cleaned up, as after SIGKILL
        read.append(str(part))
        stage(db, log, part, *args, **more)

    monkeypatch.setattr(staged, "stage_events", until_killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(tmp_path / "c", *keys), False)
    assert ledger_folder(tmp_path / "c").exists() and not (tmp_path / "c").exists()
    left[0] = 100
    corpus = corpus_of(tmp_path / "c", *keys)
    assert read == [str(file) for file in files]  # none of them twice
    assert same(corpus, whole) and histories(corpus) == slow_histories(rows)
    assert not ledger_folder(tmp_path / "c").exists()


def test_parts_of_a_parquet_file_are_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = many_events(2000, seed=2)
    log = pa.Table.from_pylist([dict(row) for row in rows])
    pq.write_table(log, tmp_path / "log.parquet", row_group_size=170)
    monkeypatch.setattr(staged, "PART", 400)
    corpus = corpus_of(tmp_path / "c", f"events=[{tmp_path}/log.parquet]")
    assert histories(corpus) == slow_histories(rows)


def test_a_killed_run_that_still_clears_its_files_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".grown.staged"
    for name in ("2f", "30", "31"):
        (folder / "blocks" / name).mkdir(parents=True)
    (folder / "key").write_text("once of-the-killed-run")
    rmdir, calls = os.rmdir, list[str]()

    def beside_another(name: str, *, dir_fd: int | None = None) -> None:
        calls.append(name)
        if len(calls) == 1:  # the other was quicker
            rmdir(name, dir_fd=dir_fd)
        if len(calls) == 2:  # the other adds a file after this one has looked
            os.close(os.open(f"{name}/late", os.O_CREAT | os.O_WRONLY, dir_fd=dir_fd))
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", beside_another)
    with open_ledger(folder, Key("another", False), "1GB", replace=False):
        assert [*tmp_path.iterdir()] == [folder] and not (folder / "blocks").exists()
    assert len(calls) > 4 and not [*tmp_path.iterdir()]
