"""The jobs of `offline_faults`: what is run and killed, how its result and its parts are read."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow.parquet as pq

from clue.atomic import sha256
from clue.data.cache import CacheConfig
from clue.data.corpus import Corpus
from clue.data.ingest import staged
from clue.data.ingest.ledger import ledger_folder
from clue.data.ingest.prepare_config import PrepareConfig, SparkConfig
from clue.data.ingest.validation import ROWS_PER_FILE
from clue.data.store import Store
from clue.data.upload import upload
from clue.embed import EmbedConfig, embed, read_embeddings
from clue.prepare import prepare
from clue.pretrain import demo_recipe
from clue.synthetic.world import SyntheticConfig

JobName = Literal["prepare", "prepare on Spark", "embed", "upload"]
SHARDS = 24
FILES = 12  # that the log is parted into
ADDRESS = "127.0.0.1"
URL = "s3://clue-faults/corpus"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "k",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_DEFAULT_REGION": "us-east-1",
}
Inside = Callable[[Callable[[], Any]], Any]  # what runs a function in a process of its own


@dataclass(frozen=True)
class Job:
    """What is killed: `run` makes `made`, which `state` reads after a kill and `clear` removes.

    `state` is "absent" or "whole", and an AssertionError for anything else; `finished` are the
    parts that are done, by name, with what must not change of them while the job goes on. Of a job
    of several processes, a `tree`, all may be killed at once.
    """

    name: str
    run: Callable[[], object]
    state: Callable[[], str]
    finished: Callable[[], dict[str, str]]
    clear: Callable[[], object]
    tree: bool = False


def jobs_of(
    wanted: Sequence[JobName], inputs: tuple[Path, Path, Path], root: Path, inside: Inside
) -> list[Job]:
    """Return the jobs with these names over a checkpoint, a corpus and a world's logs.

    They write into `root`.
    """
    checkpoint, corpus, logs = inputs
    recipe = parted_logs(logs, root)
    known = replace(recipe, out=root / "corpus-known")
    inside(lambda: prepare(known, progress=False))
    whole(root / "corpus-known", root / "prepared.json")
    shutil.rmtree(root / "corpus-known")
    makers: dict[JobName, Callable[[], Job]] = {
        "prepare": lambda: prepare_job(recipe, root, inside),
        "prepare on Spark": lambda: spark_job(recipe, root),
        "embed": lambda: embed_job(checkpoint, corpus, root),
        "upload": lambda: upload_job(corpus, root, inside),
    }
    return [makers[name]() for name in wanted]


def parted_logs(logs: Path, root: Path) -> PrepareConfig:
    """Write a world's logs again, the events in FILES; return how they become a corpus."""
    folder = root / "logs"
    folder.mkdir()
    table = pq.read_table(logs / "events.parquet")
    size = -(-len(table) // FILES)
    for number in range(FILES):
        pq.write_table(table.slice(number * size, size), folder / f"events-{number:02d}.parquet")
    shutil.copyfile(logs / "items.parquet", folder / "items.parquet")
    return replace(
        demo_recipe(SyntheticConfig(out=logs), root / "corpus"),
        shards=3,
        events=[str(folder / "events-*.parquet")],
        items=[str(folder / "items.parquet")],
    )


def prepare_job(recipe: PrepareConfig, root: Path, inside: Inside) -> Job:
    """Return the preparation of the logs in so many files; what it has staged is finished."""
    out = root / "corpus"

    def run() -> None:
        staged.PART = 1  # every file is a part, and staged alone
        prepare(recipe, progress=False)

    def finished() -> dict[str, str]:
        return inside(partial(staged_parts, ledger_folder(out)))

    return Job("prepare", run, partial(prepared, out, root), finished, lambda: shutil.rmtree(out))


def spark_job(recipe: PrepareConfig, root: Path) -> Job:
    """Return the same preparation on Spark, which begins anew: nothing of it is finished before."""
    out = root / "corpus"
    spark = SparkConfig(master="local[2]", partitions=4, writers="executors")
    run = partial(prepare, replace(recipe, engine="spark", spark=spark), progress=False)
    state = partial(prepared, out, root)
    return Job("prepare on Spark", run, state, dict[str, str], lambda: shutil.rmtree(out), True)


def prepared(out: Path, root: Path) -> str:
    """Return whether a corpus is "absent" or "whole", as DuckDB made it undisturbed."""
    if not out.exists():
        return "absent"
    Corpus.open(out)
    return whole(out, root / "prepared.json")


def staged_parts(folder: Path) -> dict[str, str]:
    """Return the parts that are staged in a folder, with how many rows there are and the first.

    Raises AssertionError for rows of a part that is not finished, or for rows that are there twice.
    """
    if not (folder / "rows.duckdb").is_file():
        return {}
    with duckdb.connect(str(folder / "rows.duckdb")) as db:
        names = {name for (name,) in db.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        if not {"staged", "finished"} <= names:
            return {}
        rows = db.sql(
            f"SELECT seq // {ROWS_PER_FILE}, count(*), count(DISTINCT seq), min(rowid) FROM staged "
            "GROUP BY 1"
        ).fetchall()
        parts = db.sql("SELECT file FROM finished WHERE log = 'events'").fetchall()
    assert sorted(file for file, *_ in rows) == sorted(file for (file,) in parts), (rows, parts)
    assert all(count == distinct for _, count, distinct, _ in rows), rows
    return {str(file): f"{count} from {first}" for file, count, _, first in rows}


def embed_job(checkpoint: Path, corpus: Path, root: Path) -> Job:
    """Return the embedding of a corpus in shards."""
    users = Corpus.open(corpus).num_users
    job = EmbedConfig(
        checkpoint=checkpoint,
        corpus=corpus,
        out=root / "users",
        shard_users=-(-users // SHARDS),
    )

    def state() -> str:
        if not job.out.exists():
            return "absent"
        read_embeddings(job.out)
        return whole(job.out, root / "embedded.json")

    def finished() -> dict[str, str]:
        work = root / ".users.shards"
        done = [file.with_suffix(".parquet") for file in work.glob("part-*.json")]
        made = work / "items" / "made.json"
        return {file.name: str(file.stat().st_mtime_ns) for file in [*done, made] if file.exists()}

    return Job("embed", lambda: embed(job), state, finished, lambda: shutil.rmtree(job.out))


def upload_job(corpus: Path, root: Path, inside: Inside) -> Job:
    """Return the upload of the corpus into a store; what its journal has is finished."""
    folder, puts, cache = root / "outbox", root / "puts", CacheConfig(directory=root / "cache")
    shutil.copytree(corpus, folder)
    journal = folder.with_name("outbox.sent.json")

    def state() -> str:
        if not Store(URL, cache.patience).version("manifest.json"):
            return "absent"
        shutil.rmtree(cache.directory, ignore_errors=True)
        return whole(Corpus.open(URL, cache).path, root / "uploaded.json")

    def finished() -> dict[str, str]:
        sent = json.loads(journal.read_text())["objects"] if journal.is_file() else {}
        lines = puts.read_text().splitlines() if puts.is_file() else []
        return {name: str(lines.count(name)) for name in sent}  # sent again, it counts one more

    def clear() -> None:
        inside(empty_store)
        puts.unlink()

    return Job("upload", partial(noted_upload, folder, puts, cache), state, finished, clear)


def noted_upload(folder: Path, puts: Path, cache: CacheConfig) -> None:
    """Upload a folder; the name of each object is added to `puts` before it is sent."""
    import s3fs  # after the fork: it starts a thread

    files = s3fs.S3FileSystem()
    bucket = URL.split("/")[2]
    if not files.exists(bucket):
        files.mkdir(bucket)
    real = Store.write

    def write(self: Store, name: str, file: Path) -> None:
        with puts.open("a") as out:
            out.write(f"{name}\n")
        real(self, name, file)

    Store.write = write
    upload(folder, URL, cache)


def empty_store() -> None:
    """Remove what was uploaded."""
    store = Store(URL, 20)
    for each in store.list():
        store.remove(each.url.rpartition("/")[2])


def whole(folder: Path, truth: Path) -> str:
    """Return "whole" where a folder has its manifest's files as `truth`, written by the first call.

    What a manifest does not name is never read.
    """
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    hashes = {name: sha256(folder / name) for name in ["manifest.json", *listed]}
    if not truth.is_file():
        truth.write_text(json.dumps(hashes))
    assert hashes == json.loads(truth.read_text()), f"{folder} differs from the undisturbed run"
    return "whole"


@contextmanager
def s3_server() -> Generator[int]:
    """Run moto's S3 server in a process of its own, on this machine alone; yield its port."""
    with socket.create_server((ADDRESS, 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", ADDRESS, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while _refused(port):
            if process.poll() is not None or time.monotonic() > end:
                raise ValueError("moto's S3 server does not start; pip install -e '.[dev]'")
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def _refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((ADDRESS, port)) != 0
