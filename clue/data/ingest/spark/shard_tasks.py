"""What tasks of Spark do where executors write the histories: whole shards, each at one go.

A file gets its name when it is whole, and what it holds follows from the logs alone: a task that is
tried again, or runs twice at once, writes the same bytes under the same name.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa

from clue.atomic import sha256, sync
from clue.data.columns import ragged_column, write_columns
from clue.data.history_shards import shard_name
from clue.data.ingest.spark.tasks import Histories, events_by_service, is_first, packed
from clue.data.ingest.spool import Spool
from clue.data.ragged import Ragged
from clue.data.store import Store

NOTES = pa.schema([("note", pa.string())])


def assign(
    batches: Iterable[pa.RecordBatch], *, shards: Sequence[int], firsts: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the events with the `shard` of their user: `firsts` are the first users of `shards`."""
    for batch in batches:
        encoded = batch["user_id"].dictionary_encode()
        # Python sorts by code points, which is the order of the bytes.
        own = [shards[bisect_right(firsts, user) - 1] for user in encoded.dictionary.to_pylist()]
        shard = np.array(own, np.int32)[encoded.indices.to_numpy()]
        yield batch.append_column("shard", pa.array(shard))


@dataclass(frozen=True)
class Run:
    """Events of one shard that lie together, and the number of their user in it (n,), from 0."""

    shard: int
    events: pa.RecordBatch
    user: np.ndarray


def runs_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Run]:
    """Yield the events, sorted by shard and user, in runs.

    Raises RuntimeError where Spark's order of users is none of their bytes.
    """
    shard, number, last = -1, -1, ""
    for batch in batches:
        shards = batch["shard"].to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(batch)]
        for start, stop in pairwise(edges):
            if start == stop:
                continue
            events = batch.slice(start, stop - start)
            if int(shards[start]) != shard:
                shard, number, last = int(shards[start]), -1, ""
            first = events["user_id"][0].as_py()
            if number >= 0 and first < last:
                raise RuntimeError(f"user {last!r} came before {first!r}; is a collation set?")
            is_new = is_first(events["user_id"])
            is_new[0] = number < 0 or first != last
            user = number + np.cumsum(is_new)
            number, last = int(user[-1]), events["user_id"][-1].as_py()
            yield Run(shard, events, user)


@dataclass(frozen=True)
class Learning:
    """What of the fields is learnt, and from which events: those of training users by `split`, SQL.

    Of numbers it is each `steps`-th (S,) of a service; `starts` has how many events of a service
    lie before a shard, by (shard, service).
    """

    histories: Histories
    split: str
    steps: Sequence[int]
    starts: Mapping[tuple[int, int], int]


def learn(batches: Iterable[pa.RecordBatch], *, plan: Learning) -> Iterator[pa.RecordBatch]:
    """Yield, packed by service, the samples of numbers and how often each value occurs (V + 1,)."""
    at = dict(plan.starts)
    counts: dict[tuple[int, str], np.ndarray] = {}
    with closing(duckdb.connect()) as db:
        db.execute("SET threads = 1; SET autoinstall_known_extensions = false")
        for run in runs_of(batches):
            train = _is_train(db, run, plan.split)
            for number, events in events_by_service(run.events, run.user, plan.histories):
                own = train[events["user"].to_numpy() - run.user[0]]
                index = at[run.shard, number] + np.arange(len(events))
                at[run.shard, number] += len(events)
                for name, values in plan.histories.fields[number].items():
                    column = events[name].to_numpy()
                    if values is None:
                        sample = column[own & (index % plan.steps[number] == 0)]
                        yield packed(number, pa.RecordBatch.from_pydict({name: pa.array(sample)}))
                        continue
                    seen = np.bincount(column[own], minlength=1 + len(values))
                    counts[number, name] = counts.get((number, name), 0) + seen
    for (number, name), seen in counts.items():
        yield packed(number, pa.RecordBatch.from_pydict({name: pa.array(seen)}))


def _is_train(db: duckdb.DuckDBPyConnection, run: Run, split: str) -> np.ndarray:
    """Return whether the users of a run are to train on, bool (u,)."""
    firsts = pa.array(np.flatnonzero(np.diff(run.user, prepend=-1)))
    users = {name: run.events[name].take(firsts) for name in ("user_id", "part")}
    db.register("users", pa.table({**users, "number": pa.array(np.arange(len(firsts)))}))
    parts = db.sql(f"SELECT ({split})::UTINYINT AS split FROM users ORDER BY number")
    return parts.to_arrow_table()["split"].to_numpy() == 0


@dataclass(frozen=True)
class Writing:
    """Where shards go and what they hold: `sizes` (N,) users each.

    `names` (S,) are what the fields of a service are called, by column, and `codes` (S,) the code
    of each value of the categorical and boolean ones. They go into `folder`, which all executors
    mount, or below `url`.
    """

    histories: Histories
    sizes: Sequence[int]
    names: Sequence[Mapping[str, str]]
    codes: Sequence[Mapping[str, np.ndarray]]
    folder: Path
    url: str | None
    patience: float
    work: Path | None


def write_shards(batches: Iterable[pa.RecordBatch], *, plan: Writing) -> Iterator[pa.RecordBatch]:
    """Write the files of each shard that arrives, and yield a note on each of them, JSON.

    Where the folder is `missing`, that is the note.
    """
    if plan.url is None and not plan.folder.is_dir():  # raised, it would be tried again and buried
        yield noted([{"missing": str(plan.folder)}])
        return
    shard: _Shard | None = None
    with TemporaryDirectory(dir=plan.work) as scratch:
        for run in runs_of(batches):
            if shard is not None and shard.number != run.shard:
                yield noted(shard.write())
                shard = None
            shard = shard or _Shard(run.shard, Path(scratch), plan)
            shard.add(run)
        if shard is not None:
            yield noted(shard.write())


def write_empty(number: int, plan: Writing) -> list[dict[str, str | int]]:
    """Write the files of a shard without users; return the notes."""
    with TemporaryDirectory(dir=plan.work) as scratch:
        return _Shard(number, Path(scratch), plan).write()


def noted(notes: Sequence[Mapping[str, str | int]]) -> pa.RecordBatch:
    """Return notes as rows of Spark."""
    return pa.RecordBatch.from_arrays([pa.array(map(json.dumps, notes), pa.string())], schema=NOTES)


class _Shard:
    """A shard on its way: a column in a file of its own, the events of each user counted."""

    def __init__(self, number: int, scratch: Path, plan: Writing) -> None:
        self.number = number
        self._plan, self._scratch = plan, scratch
        self._counts = [np.zeros(plan.sizes[number], np.int64) for _ in plan.histories.services]
        self._users = 0
        self._columns: list[dict[str, Spool]] = []
        for service, codes in enumerate(plan.codes):
            kinds: dict[str, type] = {"item": np.int32, "seconds": np.float64}
            own = plan.histories.fields[service]
            kinds |= {name: np.uint16 if name in codes else np.float32 for name in own}
            columns = {n: Spool(scratch / f"{service}.{n}", kind) for n, kind in kinds.items()}
            self._columns.append(columns)

    def add(self, run: Run) -> None:
        """Add events behind those that are there."""
        self._users = int(run.user[-1]) + 1
        for number, events in events_by_service(run.events, run.user, self._plan.histories):
            user, codes = events["user"].to_numpy(), self._plan.codes[number]
            firsts = np.flatnonzero(np.diff(user, prepend=-1))
            self._counts[number][user[firsts]] += np.diff(firsts, append=len(user))
            for name, column in self._columns[number].items():
                values = events[name].to_numpy()
                column.add(codes[name][values] if name in codes else values)

    def write(self) -> list[dict[str, str | int]]:
        """Write a file for each service; return what they are known by."""
        plan = self._plan
        if self._users != plan.sizes[self.number]:
            raise RuntimeError(
                f"shard {self.number} has {self._users} users, not {plan.sizes[self.number]}"
            )
        notes: list[dict[str, str | int]] = []
        for number, columns in enumerate(self._columns):
            name = shard_name(plan.histories.services[number], self.number)
            called = {"item": "items", "seconds": "timestamps", **plan.names[number]}
            offsets = np.concatenate([[0], np.cumsum(self._counts[number])])
            rows = {
                called[column]: ragged_column(Ragged(each.read(), offsets))
                for column, each in columns.items()
            }
            notes.append(self._deliver(name, rows))
        return notes

    def _deliver(self, name: str, rows: Mapping[str, pa.Array]) -> dict[str, str | int]:
        plan = self._plan
        beside = (plan.folder if plan.url is None else self._scratch) / f".{token_hex(8)}"
        write_columns(beside, rows)
        note: dict[str, str | int] = {"name": name, "bytes": beside.stat().st_size}
        note["sha256"] = sha256(beside)
        if plan.url is None:
            sync(beside)
            beside.replace(plan.folder / name)
        else:
            Store(plan.url, plan.patience).write(name, beside)
            beside.unlink()
        return note
