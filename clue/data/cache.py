"""What lies in a store, on this machine while it is read: whole or absent, shared, bounded.

    KEY/            an entry, its files checked against size and hash; renamed here when complete
    KEY.partial/    one on its way; the next process goes on with it
    KEY.lock        its bytes as text. Exclusive while it is made or removed, shared by each process
                    that reads it: the kernel releases it when that process ends, however it ends.
                    Its time of change is that of the last use.
    lock            held while room is made

The key names a content: what changes in the store is another entry, and nobody's files change.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clue.atomic import sha256, sync
from clue.data.store import Object, Store

GIB = 1 << 30
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where what is read from `s3://` and `gs://` lies on this machine meanwhile, and how much.

    The least recently used makes way, never what a living process reads. `patience` is how long a
    store may fail to answer.
    """

    directory: Path = Path("~/.cache/clue")  # Of the copies, for all commands of this machine.
    gib: float = 100.0  # GiB that the cache may take.
    patience: float = 60.0  # Seconds without progress, then it is an error.

    def __post_init__(self) -> None:
        """Validate that it can hold anything."""
        if self.gib <= 0 or self.patience <= 0:
            raise ValueError(
                f"cache: gib is {self.gib} and patience {self.patience}; both are more than 0"
            )


DEFAULT = CacheConfig()


@dataclass(frozen=True)
class Part:
    """A file of an entry: its name there, where it comes from, and its sha256 where it is known."""

    name: str
    source: Object
    sha256: str = ""

    def __post_init__(self) -> None:
        """Validate that the name is a plain one: it comes from a store."""
        if Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"{self.source.url}: {self.name!r} is no name of a file")


@dataclass(frozen=True)
class Held:
    """An entry that stays where it is as long as this object, or a fork's, lives."""

    path: Path
    descriptor: int = field(repr=False)

    def __post_init__(self) -> None:
        """Let go with the object."""
        weakref.finalize(self, os.close, self.descriptor)


def _nothing(_: str) -> bool:
    return False


def hold_manifest(url: str, cache: CacheConfig, later: Callable[[str], bool] = _nothing) -> Held:
    """Return the folder of `manifest.json` below a URL and of the files that it lists.

    Those whose names are for `later` are left out. Under the key `files` it has their names, each
    with `bytes` and `sha256`. Raises FileNotFoundError, PermissionError and ConnectionError as the
    store does, and ValueError where the files are not what the manifest says.
    """
    url = url.rstrip("/")
    content = Store(url, cache.patience).read(MANIFEST)
    try:
        files: dict[str, dict[str, Any]] = json.loads(content)["files"]
        parts = [
            Part(name, Object(f"{url}/{name}", int(of["bytes"]), ""), str(of["sha256"]))
            for name, of in files.items()
            if not later(name)
        ]
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
        parts = []
    if not parts:
        raise ValueError(
            f"{url}/{MANIFEST} lists no hashes of files by which a copy could be checked; write it "
            "there again with this version of the command, out= this URL"
        )
    key = hashlib.sha256(url.encode() + content).hexdigest()[:32]
    return hold(key, parts, cache, {MANIFEST: content})


def hold_object(source: Object, cache: CacheConfig) -> Held:
    """Return the folder of one object under its own name, of just this version."""
    key = hashlib.sha256(f"{source.url} {source.size} {source.version}".encode()).hexdigest()[:32]
    return hold(key, [Part(source.url.rpartition("/")[2], source)], cache, {})


Made = tuple[int, Callable[[Path], None]]  # bytes, and what writes them into a folder


def hold(
    key: str,
    parts: Sequence[Part],
    cache: CacheConfig,
    small: Mapping[str, bytes],
    made: Made | None = None,
) -> Held:
    """Return the entry of a key, made of `parts` and of the `small` files where it is not there.

    And of what `made` writes. Of several processes one makes it and the others wait.
    """
    root = cache.directory.expanduser()
    root.mkdir(parents=True, exist_ok=True)
    place = root / key
    descriptor = os.open(root / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if place.is_dir():  # with the lock: nobody is removing it
                os.utime(descriptor)
                return Held(place, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not place.is_dir():
                _make(root, key, parts, cache, small, made)
            # Between the two locks it may be removed again, and is then made again.
    except BaseException:
        os.close(descriptor)
        raise


def _make(
    root: Path,
    key: str,
    parts: Sequence[Part],
    cache: CacheConfig,
    small: Mapping[str, bytes],
    made: Made | None,
) -> None:
    """Make an entry whose lock is held; what came before an error stays for the next try."""
    partial = root / f"{key}.partial"
    needed = sum(part.source.size for part in parts) + sum(map(len, small.values()))
    needed += made[0] if made else 0
    _make_room(root, key, needed, cache)
    partial.mkdir(exist_ok=True)
    where = os.path.commonprefix([part.source.url for part in parts]) or key
    with tqdm(
        total=needed, desc=where, unit="B", unit_scale=True, disable=not sys.stderr.isatty()
    ) as bar:
        for part in parts:
            _fetch(part, partial, cache, bar)
    for name, content in small.items():
        (partial / name).write_bytes(content)
        sync(partial / name)
    if made:
        made[1](partial)
    sync(partial)
    partial.rename(root / key)
    sync(root)


def _fetch(part: Part, folder: Path, cache: CacheConfig, bar: Any) -> None:
    """Make one file of an entry whole, from where an earlier try ended."""
    source, file = part.source, folder / part.name
    if file.is_file():
        bar.update(source.size)
        return
    beside = folder / f".{part.name}.part"
    url, _, name = source.url.rpartition("/")
    store = Store(url, cache.patience)
    for _ in range(2):  # what was begun earlier may be of another content: once more from its start
        with beside.open("ab") as out:
            begun = out.tell()
            bar.update(begun)
            for block in store.blocks(name, begun, source.size):
                out.write(block)
                bar.update(len(block))
        right = beside.stat().st_size == source.size
        if right and (not part.sha256 or sha256(beside) == part.sha256):
            break
        bar.update(-beside.stat().st_size)
        beside.unlink()
    else:
        raise ValueError(
            f"{source.url} is not what its manifest says: it was replaced meanwhile, or its upload "
            "was never finished; try again, or write it again"
        )
    if source.version and store.version(name) != source.version:
        beside.unlink()
        raise ValueError(f"{source.url} was replaced while it was read; run the command again")
    sync(beside)
    beside.rename(file)


def _make_room(root: Path, key: str, needed: int, cache: CacheConfig) -> None:
    """Remove what was used least recently until `needed` bytes fit, which `key` then has."""
    limit = int(cache.gib * GIB)
    with _locked(root / "lock"):
        for left in root.glob("*.removed"):
            shutil.rmtree(left)
        sizes = {
            lock: int(lock.read_text() or 0)
            for lock in root.glob("*.lock")
            if lock.stem != key
            and ((root / lock.stem).is_dir() or (root / f"{lock.stem}.partial").is_dir())
        }
        used = sum(sizes.values())
        for lock in sorted(sizes, key=lambda lock: lock.stat().st_mtime_ns):
            if used + needed <= limit:
                break
            used -= sizes[lock] if _removed(root, lock) else 0
        if used + needed > limit:
            raise ValueError(
                f"cache.directory={root} holds at most {limit / GIB:.3g} GiB: {needed / GIB:.3g} "
                f"are needed, and {used / GIB:.3g} are in use by processes; raise cache.gib, or "
                "wait for them"
            )
        (root / f"{key}.lock").write_text(str(needed))


def _removed(root: Path, lock: Path) -> bool:
    """Remove an entry, unless a process makes or reads it; return whether that was done."""
    with lock.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        for folder in (root / lock.stem, root / f"{lock.stem}.partial"):
            if folder.is_dir():  # renamed first: a kill leaves no half entry under its name
                gone = folder.with_suffix(".removed")
                folder.rename(gone)
                shutil.rmtree(gone)
    return True


@contextmanager
def _locked(file: Path) -> Generator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
