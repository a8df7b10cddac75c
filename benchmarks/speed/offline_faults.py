"""Preparation, embedding and upload killed at random moments: what can be read then, what is lost.

    python -m benchmarks.speed offline_faults checkpoint=runs/demo corpus=corpora/demo

Each job runs in a process that is killed with SIGKILL at a moment drawn from the length of an
undisturbed run, and is started again, which goes on. After each kill what it writes must be absent
or whole, and what was finished must be as it was; in the end all files must equal those of the
undisturbed run, byte by byte. The store is an S3 server on this machine (moto).
"""

import json
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from pydantic import PositiveInt

from benchmarks.speed.report import Report, Row, Spread, claim
from clue.atomic import sha256
from clue.data.cache import CacheConfig
from clue.data.corpus import Corpus
from clue.data.ingest import staged
from clue.data.ingest.ledger import ledger_folder
from clue.data.ingest.validation import ROWS_PER_FILE
from clue.data.store import Store
from clue.data.upload import upload
from clue.embed import EmbedConfig, embed, read_embeddings
from clue.prepare import prepare
from clue.pretrain import demo_recipe
from clue.synthetic.world import SyntheticConfig

# Children begin with torch and clue imported, so that the moments lie in the work and not before.
FORK = multiprocessing.get_context("fork")
SHARDS = 24
FILES = 12  # that the log is parted into
ADDRESS = "127.0.0.1"
URL = "s3://clue-faults/corpus"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "k",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A model, a corpus for it and a world's logs (`clue synthetic`); `kills` of each job."""

    checkpoint: Path
    corpus: Path
    logs: Path = SyntheticConfig().out
    kills: PositiveInt = 20
    seed: int = 0
    out: Path = Path("results/speed/offline_faults.json")


@dataclass(frozen=True)
class Job:
    """What is killed: `run` makes `made`, which `state` reads after a kill and `clear` removes.

    `state` is "absent" or "whole", and an AssertionError for anything else; `finished` are the
    parts that are done, by name, with what must not change of them while the job goes on.
    """

    name: str
    run: Callable[[], object]
    state: Callable[[], str]
    finished: Callable[[], dict[str, str]]
    clear: Callable[[], object]


def measure(config: Config) -> Report:
    """Return how often each job was killed and what came of it; AssertionError for a half one."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="clue-offline-") as folder, s3_server() as port:
        root = Path(folder)
        jobs = (prepare_job(config, root), embed_job(config, root), upload_job(config, root))
        endpoint = f"http://{ADDRESS}:{port}"
        os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}  # noqa: TID251
        for number, job in enumerate(jobs):
            figures = killed(job, config.kills, random.Random(config.seed + number))
            rows.append(
                Row(
                    case=job.name,
                    arm="CLUE",
                    figures={name: Spread.of([value]) for name, value in figures.items()},
                )
            )
    total = {
        name: sum(int(row.figures[name].median) for row in rows)
        for name in ("read in part", "parts made twice", "kills")
    }
    return Report(
        rows=rows,
        claims=[
            claim("kills -9", total["kills"], "at least", 3 * config.kills),
            claim("half results that were read", total["read in part"], "at most", 0),
            claim("finished parts made twice", total["parts made twice"], "at most", 0),
        ],
        notes=["Every end was equal to the undisturbed run, byte by byte."],
    )


def killed(job: Job, kills: int, rng: random.Random) -> dict[str, float]:
    """Kill a job `kills` times; return the counts. AssertionError where an end is not whole."""
    began = time.monotonic()
    inside(job.run)
    life = time.monotonic() - began
    assert inside(job.state) == "whole", job.name
    job.clear()
    counts = {"kills": 0.0, "absent": 0.0, "whole": 0.0, "read in part": 0.0}
    counts |= {"parts made twice": 0.0, "runs that ended": 0.0, "seconds undisturbed": life}
    known: dict[str, str] = {}
    while counts["kills"] < kills:
        process = FORK.Process(target=job.run)
        process.start()
        process.join(rng.uniform(0, life))
        was_killed = process.is_alive()
        process.kill()
        process.join()
        assert was_killed or process.exitcode == 0, f"{job.name} ended with {process.exitcode}"
        now = job.finished()
        counts["parts made twice"] += sum(now.get(name, was) != was for name, was in known.items())
        try:
            state = inside(job.state)
        except AssertionError as error:
            sys.stderr.write(f"{job.name}: {error}\n")
            state = "read in part"
        counts[state] += was_killed or state == "read in part"
        counts["kills" if was_killed else "runs that ended"] += 1
        sys.stderr.write(f"{job.name}: {counts['kills']:.0f} of {kills} kills, {state}\n")
        known = now
        if state != "absent":  # from its start again
            job.clear()
            known = {}
    inside(job.run)
    assert inside(job.state) == "whole", job.name
    return counts


def inside(function: Callable[[], Any]) -> Any:
    """Return what a function does in a process of its own, or raise AssertionError with why not.

    This process starts no thread, which a fork would lose.
    """
    ours, theirs = FORK.Pipe(duplex=False)

    def work() -> None:
        try:
            theirs.send((True, function()))
        except BaseException as error:
            theirs.send((False, f"{type(error).__name__}: {error}"))

    process = FORK.Process(target=work)
    process.start()
    theirs.close()
    good, value = ours.recv()
    process.join()
    if not good:
        raise AssertionError(value)
    return value


def prepare_job(config: Config, root: Path) -> Job:
    """Return the preparation of the logs in so many files; what it has staged is finished."""
    logs = root / "logs"
    logs.mkdir()
    table = pq.read_table(config.logs / "events.parquet")
    size = -(-len(table) // FILES)
    for number in range(FILES):
        pq.write_table(table.slice(number * size, size), logs / f"events-{number:02d}.parquet")
    shutil.copyfile(config.logs / "items.parquet", logs / "items.parquet")
    recipe = replace(
        demo_recipe(SyntheticConfig(out=config.logs), root / "corpus"),
        events=[str(logs / "events-*.parquet")],
        items=[str(logs / "items.parquet")],
    )

    def run() -> None:
        staged.PART = 1  # every file is a part, and staged alone
        prepare(recipe, progress=False)

    def state() -> str:
        if not recipe.out or not recipe.out.exists():
            return "absent"
        Corpus.open(recipe.out)
        return whole(recipe.out, root / "prepared.json")

    def finished() -> dict[str, str]:
        return inside(partial(staged_parts, ledger_folder(root / "corpus")))

    return Job("prepare", run, state, finished, lambda: shutil.rmtree(root / "corpus"))


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


def embed_job(config: Config, root: Path) -> Job:
    """Return the embedding of a corpus in shards."""
    users = Corpus.open(config.corpus).num_users
    job = EmbedConfig(
        checkpoint=config.checkpoint,
        corpus=config.corpus,
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


def upload_job(config: Config, root: Path) -> Job:
    """Return the upload of the corpus into a store; what its journal has is finished."""
    folder, puts, cache = root / "outbox", root / "puts", CacheConfig(directory=root / "cache")
    shutil.copytree(config.corpus, folder)
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
