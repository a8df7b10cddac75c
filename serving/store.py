"""The durable users: histories and vectors in SQLite, which is the truth; every index is derived.

    store/.lock           held by one service (store_lock.py)
    store/users.sqlite    WAL, synchronous=FULL: what was acknowledged is on the disk
    store/acknowledged    the last write that was; tells a log whose end is damaged from a whole one

One thread writes what waits in one transaction and acknowledges it after the commit: alone, each
write of its own, SQLite does 518 commits a second, 64 together 12,128 rows. Worker processes have a
Store each over one file; a write takes its number inside its transaction, so that numbers are in
the order of commits and "all after n" is what another process has not seen yet.
"""

import fcntl
import queue
import sqlite3
import struct
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

from serving import rows
from serving.rows import State, StoredUser, StoredVector, damaged, digest_of
from serving.sqlite import connect, sqlite_errors, transaction
from serving.store_lock import hold
from serving.writes import Delete, Embed, Goal, Upsert, apply

FILE = "users.sqlite"
ACKNOWLEDGED = "acknowledged"
NOTE_BYTES = 24
MOST_TOGETHER = 256  # writes of one transaction

Write: TypeAlias = Upsert | Delete | Embed | Goal
Job: TypeAlias = tuple[Sequence[Write], "Future[list[int]]"]


class StoreClosed(RuntimeError):
    """The store takes no more writes, for it is being closed."""


class Store:
    """The users of one directory. Any thread may read, and hand in writes."""

    def __init__(self, directory: Path) -> None:
        """Open or make the store and verify every row of it.

        Raises StoreRefused where another service
        holds the directory or it cannot be written, BrokenStore where it is damaged.
        """
        self._lock = hold(directory)
        self.directory = directory
        self._reading = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
        self.on_commit: Callable[[], None] = lambda: None  # called before a commit is acknowledged
        try:
            with sqlite_errors():
                self._writer = connect(directory / FILE)
                self._create()
                self.name = self._verify()
                self._reader = connect(directory / FILE)
                self._reader.execute("PRAGMA query_only = ON")
        except BaseException:
            self._lock.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="clue-store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Do the writes that wait, then let go of the directory."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._reader.close()
        self._writer.close()
        self._lock.close()

    def submit(self, writes: Sequence[Write]) -> "Future[list[int]]":
        """Do `writes` in one transaction, all or none of them; the future has their numbers.

        It is done after the commit. It raises writes.Conflict where the user has changed meanwhile,
        StoreFull where the disk takes no more, StoreBusy, BrokenStore and StoreClosed.
        """
        future: Future[list[int]] = Future()
        if self._closed:
            future.set_exception(StoreClosed("the service is ending"))
        else:
            self._jobs.put((writes, future))
        return future

    def user(self, user_id: str) -> StoredUser | None:
        """Return the user, or None where the store never had them; raises BrokenStore."""
        row = self._row(f"SELECT {rows.USER} FROM users WHERE id = ?", user_id)
        return None if row is None else rows.user_of(row)

    def vector(self, user_id: str, model: str) -> StoredVector | None:
        """Return the vector that `model` gave to the user, None where it gave none."""
        sql = f"SELECT {rows.VECTOR} FROM vectors WHERE id = ? AND model = ?"
        row = self._row(sql, user_id, model)
        return None if row is None else rows.vector_of(row)

    def vectors(self, user_id: str) -> list[StoredVector]:
        """Return the vectors of a user by all models."""
        sql = f"SELECT {rows.VECTOR} FROM vectors WHERE id = ? ORDER BY model"
        with self._reading, sqlite_errors():
            return [rows.vector_of(row) for row in self._reader.execute(sql, (user_id,))]

    def state(self) -> State:
        """Return what the store says of itself, as of the last commit of any process."""
        with self._reading, sqlite_errors():
            return rows.state_of(self._reader)

    def version(self) -> int:
        """Return a number that changes when another connection has written."""
        with self._reading, sqlite_errors():
            return self._reader.execute("PRAGMA data_version").fetchone()[0]

    def changes(
        self, after: int, model: str, *, most: int = 1000
    ) -> list[tuple[StoredUser, StoredVector | None]]:
        """Return the next `most` users written after the write `after`, in order.

        Each with their vector by `model`, where it is that of the last write.
        """
        with self._reading, sqlite_errors():
            sql = f"SELECT {rows.USER} FROM users WHERE seq > ? ORDER BY seq LIMIT ?"
            users = [rows.user_of(row) for row in self._reader.execute(sql, (after, most))]
            return [(user, self._fitting(user, model)) for user in users]

    def lacking(self, model: str, *, after: str = "", most: int = 64) -> list[StoredUser]:
        """Return the next living users, by id, whose last write `model` has not embedded."""
        sql = (
            f"SELECT {rows.USER} FROM users WHERE id > ? AND events NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM vectors v WHERE v.id = users.id AND v.model = ? AND v.seq = users.seq) "
            "ORDER BY id LIMIT ?"
        )
        with self._reading, sqlite_errors():
            wanted = self._reader.execute(sql, (after, model, most))
            return [rows.user_of(row) for row in wanted]

    def count_lacking(self, model: str) -> int:
        """Return how many living users `model` has not embedded as of their last write."""
        sql = (
            "SELECT count(*) FROM users WHERE events NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM vectors v WHERE v.id = users.id AND v.model = ? AND v.seq = users.seq)"
        )
        row = self._row(sql, model)
        return 0 if row is None else int(str(row[0]))

    def oldest_deletion(self, after: int) -> float | None:
        """Return when the first of the deletions after the write `after` was; None without any."""
        sql = "SELECT min(written) FROM users WHERE events IS NULL AND seq > ?"
        row = self._row(sql, after)
        return None if row is None else row[0]  # pyright: ignore[reportReturnType]

    def deleted_before(self, moment: float) -> set[str]:
        """Return the ids of the users deleted before a moment in epoch seconds."""
        sql = "SELECT id FROM users WHERE events IS NULL AND written < ?"
        with self._reading, sqlite_errors():
            return {user_id for (user_id,) in self._reader.execute(sql, (moment,))}

    def _fitting(self, user: StoredUser, model: str) -> StoredVector | None:
        sql = f"SELECT {rows.VECTOR} FROM vectors WHERE id = ? AND model = ?"
        row = self._reader.execute(sql, (user.user_id, model)).fetchone()
        made = None if row is None else rows.vector_of(row)
        return made if made is not None and made.seq == user.seq else None

    def _row(self, sql: str, *values: object) -> tuple[object, ...] | None:
        with self._reading, sqlite_errors():
            return self._reader.execute(sql, values).fetchone()

    def _create(self) -> None:
        with transaction(self._writer):
            if self._writer.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                return
            if len(_noted(self.directory / ACKNOWLEDGED)) == NOTE_BYTES:
                # a young store lies in its log alone, and SQLite drops a damaged one without a word
                raise damaged("writes were acknowledged and none is there")
            for sql in rows.SCHEMA.values():
                self._writer.execute(sql)
            state = State(store=uuid.uuid4().hex, seq=0, users=0, total=0, goal="")
            self._writer.execute("INSERT INTO state VALUES (?,?,?,?,?,?,?)", rows.state_row(state))

    def _serve(self) -> None:
        forget = False
        while True:
            jobs = [self._jobs.get()]
            while len(jobs) < MOST_TOGETHER and not self._jobs.empty():
                jobs.append(self._jobs.get())
            self._commit([job for job in jobs if job is not None])
            forget |= any(isinstance(w, Delete) for job in jobs if job for w in job[0])
            if forget and self._jobs.empty():
                forget = self._log_holds_more()
            if None in jobs:
                return

    def _commit(self, jobs: Sequence[Job]) -> None:
        """Do the jobs in one transaction and settle them."""
        settled: list[tuple[Future[list[int]], list[int] | Exception]] = []
        try:
            with sqlite_errors(), transaction(self._writer):
                before = state = rows.state_of(self._writer)
                for writes, future in jobs:
                    made, state = apply(self._writer, writes, state)
                    settled.append((future, made))
                if state != before:
                    self._writer.execute("DELETE FROM state")
                    row = rows.state_row(state)
                    self._writer.execute("INSERT INTO state VALUES (?,?,?,?,?,?,?)", row)
            self._acknowledge(state)
            self.on_commit()
        except Exception as error:  # each future has it: the thread goes on
            settled = [(future, error) for _, future in jobs]
        for future, outcome in settled:
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _log_holds_more(self) -> bool:
        """Empty the log of what deleted users were; True while a reader or the disk forbids it."""
        try:
            return bool(self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        except sqlite3.Error:
            return True

    def _acknowledge(self, state: State) -> None:
        """Note the number of the last commit; no fsync, for it guards the log and not the data."""
        note = self.directory / ACKNOWLEDGED
        note.touch()
        with note.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            raw = file.read()
            # the first, of a store that is opened, takes the room that all others are written in
            if len(raw) < NOTE_BYTES or state.seq > _acknowledged(raw, state.store):
                file.seek(0)
                file.write(struct.pack("<q", state.seq) + digest_of(state.seq, state.store))
                file.truncate()

    def _verify(self) -> str:
        """Return the store's name; raises BrokenStore unless every row is as it was written.

        Raises it too where the end of the log is lost: SQLite drops a damaged one without a word.
        """
        started = time.monotonic()
        raw = _noted(self.directory / ACKNOWLEDGED)  # before the rows: others may be writing
        self._writer.execute("BEGIN")  # one moment of them
        state = rows.verify(self._writer)
        self._writer.execute("COMMIT")
        noted = _acknowledged(raw, state.store)
        if noted > state.seq:
            raise damaged(f"writes {state.seq + 1} to {noted} were acknowledged and are not there")
        self._acknowledge(
            state
        )  # a kill came before the note: from now on it is read, and so it stays
        self.recovery_seconds = time.monotonic() - started
        return state.store


def _noted(note: Path) -> bytes:
    return note.read_bytes() if note.exists() else b""


def _acknowledged(raw: bytes, store: str) -> int:
    """Return the last write acknowledged; 0 where none is noted, or the note is damaged itself."""
    seq = struct.unpack("<q", raw[:8])[0] if len(raw) == NOTE_BYTES else 0
    return seq if raw[8:] == digest_of(seq, store) else 0
