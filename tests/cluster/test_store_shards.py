"""What lies in a store comes in the pieces that are read: shards of histories, files of a log.

The store is moto's S3 server in a process of its own.
"""

# pyright: standard

import dataclasses
import json
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from benchmarks.speed.offline_jobs import ADDRESS, CREDENTIALS, s3_server
from clue.data.cache import CacheConfig
from clue.data.corpus import Corpus
from clue.data.ingest.parts import parts_of
from clue.data.ingest.prepare_config import layout_of, open_logs
from clue.data.ingest.spark.tasks import Reading, read_parts
from clue.data.store import Store
from clue.prepare import prepare
from tests.data.logs import config, many_events, write_log


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    with s3_server() as port:
        here = {"AWS_ENDPOINT_URL": f"http://{ADDRESS}:{port}"}
        for name, value in {**CREDENTIALS, **here}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"


@pytest.mark.cluster
def test_the_shards_of_the_users_asked_for_are_fetched(bucket: str, tmp_path: Path) -> None:
    log = f"events=[{write_log(tmp_path / 'log.jsonl', many_events(4000, seed=0))}]"
    whole = Corpus.open(prepare(config(tmp_path / "whole", log), progress=False))
    url = f"{bucket}/cut"
    cache = CacheConfig(directory=tmp_path / "cache")
    prepare(dataclasses.replace(config(Path(url), log, "shards=5"), cache=cache), progress=False)
    cut = Corpus.open(url, cache)
    assert cut.fingerprint == whole.fingerprint

    def fetched() -> list[str]:
        files = (tmp_path / "cache").rglob("histories_*.arrow")
        return sorted(file.name for file in files)

    assert fetched() == []
    first, stop = cut.manifest.shards[3:5]
    for service in range(2):
        items, _ = cut.histories_of(service, np.arange(first, stop))
        known = whole.items_of(service).take(np.arange(first, stop))
        assert items.values.size and np.array_equal(items.values, known.values)
    assert fetched() == ["histories_news@00003.arrow", "histories_shop@00003.arrow"]
    for service in range(2):  # which joins them
        assert np.array_equal(cut.items_of(service).values, whole.items_of(service).values)
        assert np.array_equal(cut.items_of(service).offsets, whole.items_of(service).offsets)
    assert len(fetched()) == 12


@pytest.mark.cluster
def test_a_task_of_another_machine_copies_its_file(bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    rows = [dict(row) for row in many_events(300, seed=1)]
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=100)
    Store(bucket, 20).write("log.parquet", file)
    settings = config(tmp_path / "c", f"events=[{bucket}/log.parquet]")
    driver = dataclasses.replace(settings, cache=CacheConfig(directory=tmp_path / "driver"))
    event_log, _ = open_logs(driver)
    (whole,) = parts_of(event_log)
    assert whole.file.path.is_relative_to(tmp_path / "driver")
    last = dataclasses.replace(
        whole,
        file=dataclasses.replace(whole.file, path=tmp_path / "elsewhere", row_groups=[2]),
        skipped=200,
    )
    layout = layout_of(driver, event_log, None)
    here = CacheConfig(directory=tmp_path / "executor")
    reading = Reading("events", layout, True, None, "1GB", here)
    ids = pa.RecordBatch.from_pydict({"id": [0]})
    staged = pa.Table.from_batches(list(read_parts([ids], parts=[last], reading=reading)))
    *read, note = staged.to_pylist()
    assert [row["seq"] for row in read] == list(range(201, 301))
    assert [row["user_id"] for row in read] == [str(row["user_id"]) for row in rows[200:]]
    assert json.loads(note["value"])["error"] == "" and note["seq"] is None
    assert list((tmp_path / "executor").rglob("log.parquet"))
