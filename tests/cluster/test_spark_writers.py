"""Executors of Spark that write the corpus: the shards into which one machine cuts it."""

# pyright: standard

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.speed.offline_jobs import ADDRESS, CREDENTIALS, s3_server
from clue.atomic import sha256
from clue.config import load
from clue.data.corpus import Corpus
from clue.data.ingest import fields
from clue.data.ingest.prepare_config import PrepareConfig
from clue.data.ingest.spark import shard_tasks
from clue.data.ingest.spark.shard_tasks import Writing, write_shards
from clue.prepare import prepare
from tests.conftest import ROOT
from tests.data.field_logs import FIELDS, with_fields
from tests.data.logs import config, many_events

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        find_spec("pyspark") is None or shutil.which("java") is None,
        reason="needs Java 17 and the extra spark",
    ),
    pytest.mark.filterwarnings("ignore:PySpark does not yet:FutureWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # py4j's sockets
]
EXECUTORS = ("engine=spark", "spark.partitions=5", "spark.writers=executors")


def dies_once(
    batches: Iterable[pa.RecordBatch], *, plan: Writing, flag: Path
) -> Iterator[pa.RecordBatch]:
    """Write as a task does; the first dies with its first shard written, as on a lost machine."""
    for notes in write_shards(batches, plan=plan):
        if not flag.exists():
            flag.write_text(notes["note"][0].as_py())
            os.kill(os.getpid(), signal.SIGKILL)
        yield notes


def elsewhere(
    batches: Iterable[pa.RecordBatch], *, plan: Writing, folder: Path
) -> Iterator[pa.RecordBatch]:
    """Write as a task of a machine whose disk is its own."""
    yield from write_shards(batches, plan=replace(plan, folder=folder))


def skewed_log(file: Path, seed: int) -> str:
    """A log in many row groups; one user has two thirds of the events."""
    rows = with_fields(many_events(2000, seed=seed), seed=seed + 1)
    rows += [{**row, "user_id": 100} for row in rows for _ in range(2)]
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file, row_group_size=300)
    return f"events=[{file}]"


@pytest.mark.usefixtures("session")
def test_executors_write_the_shards_that_one_machine_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "LEARN_FROM", 700)  # so that percentiles are of every third event
    keys = [skewed_log(tmp_path / "log.parquet", seed=9), FIELDS, "shards=9"]
    known = prepare(config(tmp_path / "known", *keys), progress=False)
    again = partial(dies_once, flag=tmp_path / "died")
    monkeypatch.setattr(shard_tasks, "write_shards", again)
    out = prepare(config(tmp_path / "out", *keys, *EXECUTORS), progress=False)
    died = json.loads((tmp_path / "died").read_text())  # of a file that was written twice
    assert sha256(out / died["name"]) == died["sha256"]
    names = sorted(file.name for file in known.iterdir())
    assert names == sorted(file.name for file in out.iterdir()) and len(names) > 9
    for name in names:
        assert (known / name).read_bytes() == (out / name).read_bytes(), name
    manifest = Corpus.open(out).manifest
    assert 0 in np.diff(manifest.shards) and sum(map(len, manifest.fields.values())) > 2
    hidden = sorted(each.name for each in tmp_path.glob(".*"))
    assert hidden == [".known.lock", ".out.lock"]
    (tmp_path / "machine").mkdir()
    away = partial(elsewhere, folder=tmp_path / "machine")
    monkeypatch.setattr(shard_tasks, "write_shards", away)
    with pytest.raises(ValueError, match="do all executors mount that folder"):
        prepare(config(tmp_path / "away", *keys, *EXECUTORS), progress=False)
    assert not (tmp_path / "away").exists() and not (tmp_path / ".away.staged").exists()
    with pytest.raises(ValueError, match=r"set engine=spark and shards=N, not .* and shards=1"):
        prepare(config(tmp_path / "one", keys[0], *EXECUTORS), progress=False)


def test_executors_write_into_a_store(tmp_path: Path) -> None:
    keys = ["name=test", "tokenizer.vocab_size=300", "shards=3", FIELDS]
    keys.append(skewed_log(tmp_path / "log.parquet", seed=12))
    known = prepare(load(PrepareConfig, None, [*keys, f"out={tmp_path}/known"]), progress=False)
    cache = f"cache.directory={tmp_path}/cache"
    with s3_server() as port:
        here = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{ADDRESS}:{port}"}
        make = "import s3fs; s3fs.S3FileSystem().mkdir('executors')"
        env = {**os.environ, **here, "SPARK_LOCAL_IP": "127.0.0.1"}
        subprocess.run([sys.executable, "-c", make], env=env, check=True)
        url = "s3://executors/corpus"
        command = [sys.executable, "clue/prepare.py", *keys, f"out={url}", cache, *EXECUTORS]
        command.append("spark.master=local[2]")
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        read = "import sys; from pathlib import Path; from clue.data.corpus import Corpus; "
        read += "from clue.data.cache import CacheConfig; "
        read += "corpus = Corpus.open(sys.argv[1], CacheConfig(directory=Path(sys.argv[2]))); "
        read += "corpus.items_of(0); print(corpus.fingerprint, *corpus.manifest.files)"
        where = [url, str(tmp_path / "cache")]
        said = subprocess.run(
            [sys.executable, "-c", read, *where], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert said.returncode == 0, said.stderr
    corpus = Corpus.open(known)
    assert said.stdout.split() == [corpus.fingerprint, *corpus.manifest.files]
    assert not [each for each in (tmp_path / "cache/outbox").glob("*") if "lock" not in each.name]
