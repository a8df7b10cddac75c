"""SQLite as the store uses it: a durable connection, transactions, and what its errors mean."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from serving.rows import damaged

BUSY_SECONDS = 10.0  # how long a worker waits for the others' commits
PAGE_BYTES = 8192
# what SQLite reports of a disk that takes no more, and of a limit on the size of files
FULL = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE),
    *(sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_CANTOPEN),
)


class StoreFull(RuntimeError):
    """The disk takes no more: the write is not done. Reads go on, and writes as soon as it does."""


class StoreBusy(RuntimeError):
    """Another process holds the write lock for too long: the write is not done."""


def connect(file: Path) -> sqlite3.Connection:
    """Return a connection to a file whose commits are on the disk when they are done."""
    connection = sqlite3.connect(
        file,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")  # what a user was is overwritten, not freed
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Hold the write lock of the file; commit at the end, or roll all back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def sqlite_errors() -> Generator[None]:
    """Turn SQLite's errors into StoreFull, StoreBusy and BrokenStore."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, OverflowError, TypeError) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code in FULL:
            raise StoreFull("the disk takes no more") from error
        if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusy("other processes write for too long") from error
        raise damaged(type(error).__name__) from error
