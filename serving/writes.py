"""What a transaction does to a store: upserts, deletions, vectors of another model, a goal."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from serving import rows
from serving.rows import BrokenStore, State, StoredUser, StoredVector


class Conflict(RuntimeError):
    """The user is no longer as the caller read them; read again and come again."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Upsert:
    """A user's whole history (JSON) and the vector (E,) that `model` gave it as of `as_of`.

    `if_seq` is the number of the write that the caller has read, 0 for none; None overwrites
    whatever is there.
    """

    user_id: str
    events: bytes
    as_of: float | None
    model: str
    vector: np.ndarray
    if_seq: int | None = None


@dataclass(frozen=True, kw_only=True)
class Delete:
    """The history and all vectors of a user; their id stays, so that no old index revives them."""

    user_id: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Embed:
    """The vector that another model gave to a user as of the write `seq`; nothing if it is over."""

    user_id: str
    seq: int
    model: str
    vector: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The generation that is to be served as soon as all users have vectors for it, "" for none."""

    generation: str


Write: TypeAlias = Upsert | Delete | Embed | Goal


def apply(
    connection: sqlite3.Connection, writes: Sequence[Write], state: State
) -> tuple["list[int] | Conflict | BrokenStore", State]:
    """Do `writes`, all or none of them; return their numbers and the new state.

    A write of a vector or a goal has no number of its own: it has that of the last write.
    """
    made: list[int] = []
    before = state
    connection.execute("SAVEPOINT job")
    try:
        for write in writes:
            state = _do(connection, write, state)
            made.append(state.seq)
    except (Conflict, BrokenStore) as error:
        connection.execute("ROLLBACK TO job")
        return error, before
    finally:
        connection.execute("RELEASE job")
    return made, state


def _do(connection: sqlite3.Connection, write: Write, state: State) -> State:
    if isinstance(write, Goal):
        return replace(state, goal=write.generation)
    if isinstance(write, Embed):
        return _embed(connection, write, state)
    old = _user(connection, write.user_id)
    if isinstance(write, Upsert) and write.if_seq is not None:
        known = 0 if old is None else old[0].seq
        if known != write.if_seq:
            raise Conflict("the user has changed meanwhile")
    total, seq = state.total, state.seq + 1
    lived = False
    if old is not None:
        lived = old[0].events is not None
        total ^= rows.number_of(old[1])
        sql = f"SELECT {rows.VECTOR} FROM vectors WHERE id = ?"
        for row in connection.execute(sql, (write.user_id,)):
            rows.checked(row)
            total ^= rows.number_of(row[-1])
        connection.execute("DELETE FROM vectors WHERE id = ?", (write.user_id,))
    upsert = write if isinstance(write, Upsert) else None
    user = StoredUser(
        user_id=write.user_id,
        seq=seq,
        written=time.time(),
        as_of=None if upsert is None else upsert.as_of,
        events=None if upsert is None else upsert.events,
    )
    row = rows.user_row(user)
    connection.execute("INSERT OR REPLACE INTO users VALUES (?,?,?,?,?,?)", row)
    total ^= rows.number_of(row[-1])  # pyright: ignore[reportArgumentType]
    if upsert is not None:
        total ^= _insert_vector(connection, upsert.user_id, seq, upsert.model, upsert.vector)
    users = state.users - lived + (upsert is not None)
    return replace(state, seq=seq, users=users, total=total)


def _embed(connection: sqlite3.Connection, write: Embed, state: State) -> State:
    old = _user(connection, write.user_id)
    if old is None or old[0].seq != write.seq or old[0].events is None:
        return state
    total = state.total
    sql = f"SELECT {rows.VECTOR} FROM vectors WHERE id = ? AND model = ?"
    for row in connection.execute(sql, (write.user_id, write.model)):
        rows.checked(row)
        total ^= rows.number_of(row[-1])
    total ^= _insert_vector(connection, write.user_id, write.seq, write.model, write.vector)
    return replace(state, total=total)


def _user(connection: sqlite3.Connection, user_id: str) -> tuple[StoredUser, bytes] | None:
    sql = f"SELECT {rows.USER} FROM users WHERE id = ?"
    row = connection.execute(sql, (user_id,)).fetchone()
    return None if row is None else (rows.user_of(row), row[-1])


def _insert_vector(
    connection: sqlite3.Connection, user_id: str, seq: int, model: str, vector: np.ndarray
) -> int:
    made = StoredVector(user_id=user_id, model=model, seq=seq, vector=vector)
    row = rows.vector_row(made)
    connection.execute("INSERT OR REPLACE INTO vectors VALUES (?,?,?,?,?)", row)
    return rows.number_of(row[-1])  # pyright: ignore[reportArgumentType]
