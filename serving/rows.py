"""The rows of a store and their checksums. SQLite's pages have none: a flipped bit would be served.

Each row carries the 128-bit hash of all that it says, checked at every read. The row `state` has
the exclusive or of all of them, so that a row that is gone is missed too.
"""

import hashlib
import json
import sqlite3
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FORMAT = 1
# Tables without rowid are one tree each: a walk over it in order passes every key by which a
# look-up turns, so that a store whose walk was in order also finds what it holds.
SCHEMA = {
    "users": "CREATE TABLE users (id TEXT PRIMARY KEY NOT NULL, seq INTEGER NOT NULL, "
    "written REAL NOT NULL, as_of REAL, events BLOB, digest BLOB NOT NULL) WITHOUT ROWID",
    "vectors": "CREATE TABLE vectors (id TEXT NOT NULL, model TEXT NOT NULL, seq INTEGER NOT NULL, "
    "vector BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (id, model)) WITHOUT ROWID",
    "state": "CREATE TABLE state (format INTEGER PRIMARY KEY NOT NULL, store TEXT NOT NULL, "
    "seq INTEGER NOT NULL, users INTEGER NOT NULL, total BLOB NOT NULL, goal TEXT NOT NULL, "
    "digest BLOB NOT NULL) WITHOUT ROWID",
    "by_seq": "CREATE UNIQUE INDEX by_seq ON users (seq)",
}
USER = "id, seq, written, as_of, events, digest"
VECTOR = "id, model, seq, vector, digest"


class BrokenStore(ValueError):
    """What the store holds is not what was written; the message names the file, never its path."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredUser:
    """A user as the store has them: `events` (JSON as sent) is None once they were deleted.

    `written` is when, in epoch seconds; `as_of` the moment of the vector, None for that of the last
    event.
    """

    user_id: str
    seq: int
    written: float
    as_of: float | None
    events: bytes | None


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredVector:
    """The whole vector (E,) float32 that `model` gave to the user as of the write `seq`."""

    user_id: str
    model: str
    seq: int
    vector: np.ndarray


@dataclass(frozen=True, kw_only=True)
class State:
    """What the store says of itself: its name, its last write, living users, and all hashes in one.

    `goal` is the generation that an operator wants to be served and that is being prepared, or "".
    """

    store: str
    seq: int
    users: int
    total: int
    goal: str


def events_by_service(events: bytes, services: Sequence[str]) -> np.ndarray:
    """Return how many events of a stored history are of each of `services`, (S,)."""
    counts = Counter(event["service"] for event in json.loads(events))
    return np.array([counts[name] for name in services], np.int64)


_KIND_NAMES = {kind: kind.__name__.encode() for kind in (str, bytes, float, int, type(None))}


def digest_of(*values: str | bytes | float | int | None) -> bytes:
    """Return the 16-byte hash of some values, each with its kind and length."""
    parts: list[bytes] = []
    for value in values:
        if isinstance(value, float):
            raw = struct.pack("<d", value)
        else:
            raw = value if isinstance(value, bytes) else str(value).encode()
        parts += [b"%s%d:" % (_KIND_NAMES[type(value)], len(raw)), raw]
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def number_of(digest: bytes) -> int:
    """Return a digest as the number that goes into the state's exclusive or."""
    return int.from_bytes(digest, "little")


def user_row(user: StoredUser) -> tuple[str | bytes | float | int | None, ...]:
    """Return the row of a user, its checksum last."""
    values = (user.user_id, user.seq, user.written, user.as_of, user.events)
    return (*values, digest_of(*values))


def vector_row(made: StoredVector) -> tuple[str | bytes | int, ...]:
    """Return the row of a vector, its checksum last."""
    values = (made.user_id, made.model, made.seq, made.vector.astype("<f4").tobytes())
    return (*values, digest_of(*values))


def state_row(state: State) -> tuple[str | bytes | int, ...]:
    """Return the row of the state, its checksum last."""
    total = state.total.to_bytes(16, "little")
    values = (FORMAT, state.store, state.seq, state.users, total, state.goal)
    return (*values, digest_of(*values))


def checked(row: tuple[object, ...]) -> tuple[object, ...]:
    """Return the row without its checksum; BrokenStore where that is not its own."""
    *values, digest = row
    if digest_of(*values) != digest:  # pyright: ignore[reportArgumentType]
        raise damaged("a row is not what was written")
    return tuple(values)


def user_of(row: tuple[object, ...]) -> StoredUser:
    """Return the user of a row of `USER`; raises BrokenStore."""
    user_id, seq, written, as_of, events = checked(row)
    return StoredUser(user_id=user_id, seq=seq, written=written, as_of=as_of, events=events)  # pyright: ignore[reportArgumentType]


def vector_of(row: tuple[object, ...]) -> StoredVector:
    """Return the vector of a row of `VECTOR`; raises BrokenStore."""
    user_id, model, seq, raw = checked(row)
    vector = np.frombuffer(raw, "<f4")  # pyright: ignore[reportCallIssue, reportArgumentType]
    return StoredVector(user_id=user_id, model=model, seq=seq, vector=vector)  # pyright: ignore[reportArgumentType]


def state_of(connection: sqlite3.Connection) -> State:
    """Return the state; raises BrokenStore where it is damaged or there is none."""
    rows = connection.execute("SELECT * FROM state").fetchall()
    if len(rows) != 1:
        raise damaged("it has lost its state")
    _, store, seq, users, total, goal = checked(rows[0])
    return State(store=store, seq=seq, users=users, total=number_of(total), goal=goal)  # pyright: ignore[reportArgumentType]


def damaged(what: str) -> BrokenStore:
    """Return the error of a damaged file, with what to do."""
    return BrokenStore(f"users.sqlite is damaged: {what}; restore it from a backup")


def verify(connection: sqlite3.Connection) -> State:
    """Read every row and return the state.

    Raises BrokenStore unless the schema is ours, every row has its checksum, the trees are in
    order, and together they are what the state says.
    """
    schema = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL"))
    if schema != SCHEMA:
        raise damaged("its tables are not those of this version")
    state = state_of(connection)
    total = users = 0
    seqs = 0
    last = None
    for row in connection.execute(f"SELECT {USER} FROM users ORDER BY id"):
        user = user_of(row)
        if last is not None and last >= user.user_id.encode():
            raise damaged("its users are out of order")
        last = user.user_id.encode()
        total ^= number_of(row[-1])
        users += user.events is not None
        seqs ^= hash((user.seq, user.user_id))
    newest = 0
    for seq, user_id in connection.execute("SELECT seq, id FROM users ORDER BY seq"):
        if seq <= newest:
            raise damaged("its writes are out of order")
        newest = seq
        seqs ^= hash((seq, user_id))
    if seqs or newest > state.seq:
        raise damaged("its index of writes does not fit its users")
    before = None
    for row in connection.execute(f"SELECT {VECTOR} FROM vectors ORDER BY id, model"):
        made = vector_of(row)
        key = (made.user_id.encode(), made.model.encode())
        if before is not None and before >= key:
            raise damaged("its vectors are out of order")
        before = key
        total ^= number_of(row[-1])
    if (total, users) != (state.total, state.users):
        raise damaged("rows are missing")
    return state
