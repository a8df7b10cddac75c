"""Objects of a store, `s3://` and `gs://`, through fsspec: read in blocks, tried again, written.

Endpoints and credentials are the stores' own settings (AWS_ENDPOINT_URL, AWS_PROFILE, ...), which
s3fs and gcsfs read. A call that fails is made again until `patience` seconds have passed without
progress; what no second try mends, a missing object or a refusal, is raised at once.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

T = TypeVar("T")
URL = re.compile(r"(s3|gs|file):/+(.*)")  # of a Path, in which // is /
BLOCK = 8 << 20  # bytes of a request
AT_ONCE = 4  # requests: 32 MiB on their way
LONGEST_WAIT = 5.0  # seconds between two tries


@dataclass(frozen=True)
class Object:
    """What a store lists: the size in bytes, and a version that another content changes."""

    url: str
    size: int
    version: str


def url_of(location: Path | str) -> str | None:
    """Return the URL in a store that a location is, also where a Path took one of its slashes.

    None is a path of this machine.
    """
    parts = URL.fullmatch(str(location))
    return f"{parts[1]}://{parts[2]}" if parts and parts[1] != "file" else None


def path_of(location: Path | str) -> Path:
    """Return the path of this machine that a location is, perhaps as `file://`."""
    parts = URL.fullmatch(str(location))
    return Path("/", parts[2]) if parts and parts[1] == "file" else Path(location)


class Store:
    """The objects below one URL of a store."""

    def __init__(self, url: str, patience: float) -> None:
        """Make ready for `url`; ValueError where the package for it is not installed."""
        self.url, self.patience = url.rstrip("/"), patience
        try:
            self._files: Any = fsspec.filesystem(url.partition(":")[0], use_listings_cache=False)
        except ImportError:
            raise ValueError(
                f"{url} needs a package that is not installed; pip install 'clue-users[cloud]'"
            ) from None

    def list(self, pattern: str = "") -> "list[Object]":
        """Return the objects that a glob below the URL names, or all; none is an empty list."""
        path = self._path(pattern)
        is_glob = bool(re.search(r"[*?\[]", path))

        async def listed(files: Any) -> Any:
            if is_glob:
                return await files._glob(path, detail=True)
            return await files._find(path, detail=True)

        try:
            entries: dict[str, dict[str, Any]] = self._tried(listed, path)
        except FileNotFoundError:
            return []
        scheme = self.url.partition("://")[0]
        return [
            Object(f"{scheme}://{name}", int(entry["size"]), _version(entry))
            for name, entry in sorted(entries.items())
            if entry["type"] == "file"
        ]

    def version(self, name: str) -> str:
        """Return the version of an object, "" where there is none."""
        path = self._path(name)
        try:
            return _version(self._tried(lambda files: files._info(path), path))
        except FileNotFoundError:
            return ""

    def read(self, name: str) -> bytes:
        """Return a small object whole; FileNotFoundError where there is none."""
        path = self._path(name)
        return self._tried(lambda files: files._cat_file(path), path)

    def blocks(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `stop` of an object, in order, a few blocks at once."""
        path = self._path(name)

        def fetch(first: int) -> bytes:
            last = min(first + BLOCK, stop)
            return self._tried(lambda files: files._cat_file(path, start=first, end=last), path)

        stride = BLOCK * AT_ONCE
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for first in range(start, stop, stride):
                yield from pool.map(fetch, range(first, min(first + stride, stop), BLOCK))

    def write(self, name: str, file: Path) -> None:
        """Make a file an object, which is there whole or not at all."""
        path = self._path(name)
        # Its time is its size's: what bounds it is the time-outs of the store's own client.
        self._tried(lambda files: files._put_file(str(file), path), path, bounded=False)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        path = self._path(name)
        try:
            self._tried(lambda files: files._rm_file(path), path)
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        url = f"{self.url}/{name}" if name else self.url
        return str(self._files._strip_protocol(url))

    def _tried(
        self, call: Callable[[Any], Coroutine[Any, Any, T]], path: str, *, bounded: bool = True
    ) -> T:
        """Return what a call comes to, made again until it does or the patience is at an end."""
        url = f"{self.url.partition('://')[0]}://{path}"
        end = time.monotonic() + self.patience
        wait = 0.1
        while True:
            left = max(end - time.monotonic(), 0.1) if bounded else None
            try:
                return _awaited(call(self._files), self._files.loop, left)
            except FileNotFoundError:
                raise FileNotFoundError(f"no {url} is there; check bucket and name") from None
            except PermissionError as error:
                raise PermissionError(
                    f"{url} is refused, {_line(error)}; check the credentials and what they allow"
                ) from None
            except Exception as error:  # each store's client has kinds of its own
                if type(error).__name__ == "NoCredentialsError":
                    raise PermissionError(
                        f"{url} needs credentials, and there are none; set those of the store"
                    ) from None
                if time.monotonic() + wait > end:
                    raise ConnectionError(
                        f"{url} cannot be reached, tried for {self.patience:g} s: {_line(error)}; "
                        "run the command again when the store answers, it goes on where it was"
                    ) from None
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)


def _awaited(call: Coroutine[Any, Any, T], loop: Any, seconds: float | None) -> T:
    """Return what a coroutine comes to in fsspec's own thread; it is ended after `seconds`."""
    future = asyncio.run_coroutine_threadsafe(call, loop)
    try:
        return future.result(seconds)
    except TimeoutError:
        future.cancel()
        raise


def _version(entry: dict[str, Any]) -> str:
    """Return what changes with an object's content: its ETag, in Google's store its generation."""
    return str(entry.get("ETag") or entry.get("etag") or entry.get("generation") or "")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]
