"""Histories in shards: those of a range of users in a file of their own, which is opened alone.

    histories_SERVICE@00003.arrow    as histories_SERVICE.arrow, row = user - first user of shard 3

A service's name has no @ in a file name. Whoever reads the histories of some users opens, and of a
corpus in a store fetches, only their shards. Whoever needs all of them, as training does, has them
joined in the cache, once for all processes of the machine.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pyarrow as pa

from clue.atomic import sha256, sync
from clue.data.cache import MANIFEST, CacheConfig, Held, Part, hold
from clue.data.columns import (
    as_ragged,
    history_file,
    map_columns,
    ragged_column,
    write_batch,
    write_columns,
)
from clue.data.fields import Field
from clue.data.ragged import Ragged
from clue.data.store import Object

MARK = "@"


def is_shard(name: str) -> bool:
    """Return whether a file of a corpus is a shard of histories."""
    return MARK in name


def shard_name(service: str, shard: int) -> str:
    """Return the name of the file of a shard of a service."""
    return f"{history_file(Path(), service).stem}{MARK}{shard:05d}.arrow"


def cut(path: Path, count: int) -> None:
    """Cut the histories of the sealed corpus in `path`, which nobody reads yet, into shards.

    The `count` of them hold about equally many events; one user's are never parted. The fingerprint
    stays that of the content. Raises ValueError where there are fewer users.
    """
    file = path / MANIFEST
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    services, users = manifest["services"], manifest["num_users"]
    before = np.zeros(users + 1, np.int64)
    for service in services:
        before += as_ragged(map_columns(history_file(path, service))["items"]).offsets
    bounds = bounds_of(before, count)
    for service in services:
        whole = history_file(path, service)
        batch = map_columns(whole)
        for shard, (first, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            part = path / shard_name(service, shard)
            write_columns(part, {n: _rows(batch[n], first, stop) for n in batch.schema.names})
            manifest["files"][part.name] = {"bytes": part.stat().st_size, "sha256": sha256(part)}
            sync(part)
        del manifest["files"][whole.name], batch
        whole.unlink()
    manifest["shards"] = bounds.tolist()
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    sync(file)


def bounds_of(before: np.ndarray, count: int) -> np.ndarray:
    """Return the first users of `count` shards and the number of users, int64 (count + 1,).

    `before` (users + 1,) is how many events lie before each user. ValueError for too many shards.
    """
    users = len(before) - 1
    if count > users:
        raise ValueError(f"shards is {count}, and there are {users} users; set at most that")
    aims = before[-1] * np.arange(1, count) // count
    return np.concatenate([[0], np.searchsorted(before, aims), [users]])


def _rows(column: pa.Array, first: int, stop: int) -> pa.Array:
    rows = as_ragged(column)
    start, end = rows.offsets[first], rows.offsets[stop]
    return ragged_column(Ragged(rows.values[start:end], rows.offsets[first : stop + 1] - start))


Opened = tuple[str, pa.RecordBatch, Held | None]  # the file's name, its columns, the copy


@dataclass
class HistoryShards:
    """The sharded histories of the corpus in `path`, or of the one at `url`, copied to `path`.

    `bounds` are the first users of the shards, and the number of users; `files` the manifest's. Of
    a corpus with a URL the shards come when they are read. Of each service the shard that was read
    last stays open.
    """

    path: Path
    url: str | None
    services: Sequence[str]
    bounds: np.ndarray
    files: Mapping[str, Mapping[str, Any]]
    cache: CacheConfig
    _open: dict[str, tuple[str, pa.RecordBatch, Held | None]] = field(
        default_factory=dict[str, Any]
    )

    def take(self, service: str, column: str, users: np.ndarray) -> Ragged:
        """Return the rows of these users (n,) of a column, in the order asked for."""
        shard_of = np.searchsorted(self.bounds, users, side="right") - 1
        order = np.argsort(shard_of, kind="stable")
        parts: list[Ragged] = []
        for shard in np.unique(shard_of).tolist():
            own = users[order][shard_of[order] == shard] - self.bounds[shard]
            parts.append(as_ragged(self._batch(service, shard)[column]).take(own))
        if not parts:
            parts = [as_ragged(self._batch(service, 0)[column]).take(users)]
        return Ragged.concat(parts).take(np.argsort(order, kind="stable"))

    def whole(self) -> Held:
        """Return the folder of all histories, each service's in one file, in the cache."""
        text = json.dumps([self.files, self.bounds.tolist()], sort_keys=True)
        key = hashlib.sha256(f"joined {text}".encode()).hexdigest()[:32]
        return hold(key, [], self.cache, {}, made=(self._bytes(), self._join))

    def whole_sha256(self, service: str) -> str:
        """Return the sha256 of the one file that a service's shards would be, which is not written.

        A shard is opened at a time.
        """
        shards = np.flatnonzero(np.diff(self.bounds)).tolist()
        lengths = [as_ragged(self._batch(service, shard)["items"]).lengths for shard in shards]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        columns: dict[str, pa.Array] = {}
        streams: dict[int, Iterator[memoryview]] = {}
        with TemporaryFile() as hole:
            for name in self._batch(service, shards[0]).schema.names:
                kind = as_ragged(self._batch(service, shards[0])[name]).values.dtype
                values = _unread(hole, kind, int(offsets[-1]))
                columns[name] = ragged_column(Ragged(values, offsets))
                streams[values.ctypes.data] = self._values(service, name, shards)
            sink = _Hash(streams)
            write_batch(sink, columns)
        return sink.hash.hexdigest()

    def _values(self, service: str, name: str, shards: Sequence[int]) -> Iterator[memoryview]:
        for shard in shards:
            yield as_ragged(self._batch(service, shard)[name]).values.data

    def _bytes(self) -> int:
        return sum(int(of["bytes"]) for name, of in self.files.items() if is_shard(name))

    def _batch(self, service: str, shard: int) -> pa.RecordBatch:
        name = shard_name(service, shard)
        opened = self._open.get(service)
        if opened is None or opened[0] != name:
            folder, held = self.path, None
            if self.url is not None:
                held = self._fetched(name)
                folder = held.path
            opened = self._open[service] = (name, map_columns(folder / name), held)
        return opened[1]

    def _fetched(self, name: str) -> Held:
        of = self.files[name]
        source = Object(f"{self.url}/{name}", int(of["bytes"]), "")
        key = hashlib.sha256(f"{source.url} {of['sha256']}".encode()).hexdigest()[:32]
        return hold(key, [Part(name, source, str(of["sha256"]))], self.cache, {})

    def _join(self, folder: Path) -> None:
        """Write each service's histories as one file, that which was cut, into `folder`."""
        for service in self.services:
            sizes = np.diff(self.bounds)
            shards = np.flatnonzero(sizes).tolist()
            names = self._batch(service, shards[0]).schema.names
            columns: dict[str, pa.Array] = {}
            for number, name in enumerate(names):
                scratch = folder / f".{number}.values"
                columns[name] = ragged_column(self._joined(service, name, shards, scratch))
            write_columns(history_file(folder, service), columns)
            sync(history_file(folder, service))
            for scratch in folder.glob(".*.values"):
                scratch.unlink()

    def _joined(self, service: str, name: str, shards: Sequence[int], scratch: Path) -> Ragged:
        lengths: list[np.ndarray] = []
        kind = as_ragged(self._batch(service, shards[0])[name]).values.dtype
        with scratch.open("wb") as out:
            for shard in shards:
                rows = as_ragged(self._batch(service, shard)[name])
                lengths.append(rows.lengths)
                out.write(rows.values.data)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        values = np.memmap(scratch, kind, "r") if offsets[-1] else np.empty(0, kind)
        return Ragged(values, offsets)


def _unread(hole: IO[bytes], kind: np.dtype[Any], count: int) -> np.ndarray:
    """Return numbers that nobody reads: of a file that has their size and takes no disk."""
    if not count:
        return np.empty(0, kind)
    hole.truncate(max(hole.seek(0, os.SEEK_END), count * kind.itemsize))
    return np.memmap(hole, kind, "r", shape=(count,))


class _Hash(io.RawIOBase):
    """A sink that hashes what is written: for the buffer at an address, what `streams` yields."""

    def __init__(self, streams: Mapping[int, Iterator[memoryview]]) -> None:
        self.hash = hashlib.sha256()
        self._streams, self._size = streams, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        stream = self._streams.get(data.address) if isinstance(data, pa.Buffer) else None
        for piece in [data] if stream is None else stream:
            self.hash.update(piece)
        self._size += size
        return size


@dataclass(frozen=True)
class Sharded:
    """Histories that were written as shards: the `shards`, and of the services what they hold.

    `whole` are the sha256 of the files that `cut` would have cut.
    """

    shards: HistoryShards
    whole: Mapping[str, str]
    events: dict[str, int]
    fields: dict[str, list[Field]]

    def move_into(self, corpus: Path) -> None:
        """Move the shards into a folder of the same disk; those in a store stay there."""
        if self.shards.url is None:
            for name in self.shards.files:
                (self.shards.path / name).rename(corpus / name)
