"""One service at a time holds a store: a lock that its worker processes share, others are refused.

The kernel frees the lock with the last process that holds it, however that ends: there is nothing
to clean up after a kill.
"""

import fcntl
import multiprocessing
import os
import time
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
PATIENCE_SECONDS = 2.0  # two workers of one service that start at once see each other's turn


class StoreRefused(ValueError):
    """The directory cannot be had; the message says why and what to do."""


def hold(directory: Path) -> BinaryIO:
    """Return the open lock of `directory`, which is held until it is closed.

    The workers of one `uvicorn --workers` hold it together. Raises StoreRefused where another
    service holds it, and where the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("a+b")
    except OSError as error:
        raise StoreRefused(
            f"the store directory cannot be written ({error.strerror}); give one that this user "
            "may write, or serve without a store"
        ) from None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _joined(lock, service_name()):
        if time.monotonic() > deadline:
            lock.close()
            raise StoreRefused(
                "another service holds this store; stop it first, or start more workers of one "
                "service (uvicorn --workers) instead of a second one"
            )
        time.sleep(0.02)
    return lock


def service_name() -> bytes:
    """Return what all worker processes of one service have in common: their parent, or themselves.

    A process id is given again after its end, so the moment of its start stands beside it.
    """
    parent = multiprocessing.parent_process()
    pid = os.getpid() if parent is None or parent.pid is None else parent.pid
    try:
        started = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
    except OSError:  # no such file system
        started = b"0"
    return b"%d-%s" % (pid, started)


def _joined(lock: BinaryIO, name: bytes) -> bool:
    """Whether this process now shares the lock: as the first of its service, or with its own."""
    if _locked(lock, fcntl.LOCK_EX):
        lock.seek(0)
        lock.truncate()
        lock.write(name)
        lock.flush()
    if not _locked(lock, fcntl.LOCK_SH):
        return False
    lock.seek(0)  # another service may have come between the two
    if lock.read() == name:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _locked(lock: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
