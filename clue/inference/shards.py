"""A table in shards that a kill does not undo: each is whole or absent, and none is made twice.

    .users.shards/plan.json             what the shards are of; of anything else they start anew
    .users.shards/part-00003.parquet    renamed into place when its bytes are on the disk
    .users.shards/part-00003.json       its rows and its hash, after that: the shard is finished

When all are, they become OUT: one Parquet file, or the directory itself with a manifest.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clue.atomic import sha256, sync, write_text
from clue.data.cache import MANIFEST, CacheConfig
from clue.data.store import path_of, url_of
from clue.data.upload import read_small
from clue.inference.shared_items import FOLDER

PLAN = "plan.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a table is of: equal plans make equal shards. `before` is a moment in epoch seconds."""

    model_fingerprint: str
    corpus_fingerprint: str
    width: int
    before: float | None
    users: int
    shard_users: int
    format: int = FORMAT

    @property
    def count(self) -> int:
        """The number of shards, at least one."""
        return max(-(-self.users // self.shard_users), 1)

    def users_of(self, shard: int) -> range:
        """Return the users of a shard, rows of the corpus."""
        start = shard * self.shard_users
        return range(start, min(start + self.shard_users, self.users))


@contextmanager
def held(out: Path, is_main: bool) -> Generator[Path]:
    """Return the directory in which the shards of `out` are made, held by the main process.

    ValueError where another run is writing it, or `out` is something that is not to be replaced.
    """
    if out.is_dir() and not (out / MANIFEST).is_file() and any(out.iterdir()):
        raise ValueError(f"{out} is a directory of something else; choose another out")
    work = out.with_name(f".{out.name}.shards")
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    with lock.open("w") if is_main else nullcontext() as file:
        if file is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another run is writing {out}; wait for it") from None
        yield work


def begin(work: Path, plan: Plan) -> None:
    """Make the directory ready for the shards of a plan; those of another plan make way."""
    text = json.dumps(asdict(plan), indent=1)
    if work.is_dir() and not _is(work / PLAN, text):
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    for left in work.glob(".writing-*"):
        left.unlink()
    write_text(work / PLAN, text)


def missing(work: Path, plan: Plan) -> list[int]:
    """Return the shards that are not finished."""
    return [n for n in range(plan.count) if not (work / f"{name(n)}.json").is_file()]


def name(shard: int) -> str:
    """Return the name of a shard's files."""
    return f"part-{shard:05d}"


def write(work: Path, shard: int, users: range, make: Callable[[Path, range], None]) -> None:
    """Finish a shard: `make` writes the rows of `users` into the file that it is given."""
    beside, place = work / f".writing-{name(shard)}", work / f"{name(shard)}.parquet"
    make(beside, users)
    sync(beside)
    about = {
        "users": [users.start, users.stop],
        "rows": pq.read_metadata(beside).num_rows,
        "bytes": beside.stat().st_size,
        "sha256": sha256(beside),
    }
    beside.replace(place)
    sync(work)
    write_text(work / f"{name(shard)}.json", json.dumps(about))


def finish(work: Path, plan: Plan, out: Path) -> int:
    """Make the finished shards the table `out`, in place of an older one; return its rows."""
    each: dict[str, dict[str, Any]] = {
        f"{name(n)}.parquet": json.loads((work / f"{name(n)}.json").read_text(encoding="utf-8"))
        for n in range(plan.count)
    }
    rows = sum(one["rows"] for one in each.values())
    if out.suffix == ".parquet":
        merge([work / file for file in each], out)
        shutil.rmtree(work)
        return rows
    if (work / FOLDER).is_dir():
        shutil.rmtree(work / FOLDER)
    manifest = {**asdict(plan), "rows": rows, "files": each}
    write_text(work / MANIFEST, json.dumps(manifest, indent=1))
    older = out.with_name(f".{out.name}.older")
    if older.exists():
        shutil.rmtree(older)
    if out.exists():
        out.rename(older)
    work.rename(out)
    sync(out.parent)
    _tidy(out)
    if older.exists():
        shutil.rmtree(older)
    return rows


def finished(out: Path, plan: Plan, cache: CacheConfig) -> int | None:
    """Return the rows of the directory `out`, perhaps in a store, if it is this plan's table."""
    try:
        manifest = json.loads(read_small(out, MANIFEST, cache))
    except (FileNotFoundError, NotADirectoryError):
        return None
    same = all(manifest.get(name) == value for name, value in asdict(plan).items())
    if same and url_of(out) is None:
        _tidy(path_of(out))  # a kill may have come before the end of `finish`
    return manifest["rows"] if same else None


def _tidy(out: Path) -> None:
    """Remove from a finished table what its manifest says too."""
    for left in (*out.glob("part-*.json"), out / PLAN):
        left.unlink(missing_ok=True)


def merge(parts: list[Path], out: Path) -> None:
    """Join the parts into the file `out`, row group by row group."""
    beside = out.with_name(f".writing-{out.name}")
    with pq.ParquetWriter(beside, pq.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))
    sync(beside)
    beside.replace(out)
    sync(out.parent)


def files(table: Path) -> list[Path]:
    """Return the files of a finished table in order; ValueError where one is not as written."""
    if not (table / MANIFEST).is_file():
        raise ValueError(f"{table} has no {MANIFEST}: it is no finished table; run clue embed")
    manifest = json.loads((table / MANIFEST).read_text(encoding="utf-8"))
    shards: dict[str, dict[str, Any]] = manifest["files"]
    paths = [table / file for file in shards]
    for path, one in zip(paths, shards.values(), strict=True):
        if not path.is_file() or sha256(path) != one["sha256"]:
            raise ValueError(f"{path} is not what was written; run clue embed again")
    return paths


def _is(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text
