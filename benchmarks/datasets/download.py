"""Files of a publisher: brought whole or not at all, gone on with after a break, checked.

A file grows as NAME.part, beside NAME.part.json, which says what it is a part of; it gets its name
when it is whole and its checksum is right. A file put there by hand is taken as it is and checked
alike. One that fails is kept as NAME.refused.

By urllib: the extra `bench` brings no HTTP client, and pooch, which knows checksums, cannot resume.
"""

import hashlib
import json
import shutil
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from clue.atomic import sha256, sync, write_text

ATTEMPTS = 5  # of one file in one run
TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20  # bytes
BUSY = (408, 429, 500, 502, 503, 504)  # answers that another try may change
BROKEN = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of a publisher; `md5` is the one that the publisher states, None where none is."""

    name: str
    url: str
    md5: str | None = None


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Where files come from and go to.

    `page` is the publisher's own page, `hint` what else to know when a file does not come. `mirror`
    holds the same files under another address; `token` is sent to the publisher, never to a mirror.
    """

    sources: Sequence[Source]
    raw: Path
    page: str
    hint: str = ""
    mirror: str | None = None
    token: str | None = None

    def url(self, source: Source) -> str:
        """Return the address that a file is asked from."""
        return f"{self.mirror.rstrip('/')}/{source.name}" if self.mirror else source.url

    def request(self, source: Source, **headers: str) -> Request:
        """Return a request for a file, as it lies there: a packed answer would not match sizes."""
        request = Request(self.url(source), headers={"Accept-Encoding": "identity", **headers})
        if self.token and not self.mirror:  # and not to where the publisher sends us on
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        return request


def check_space(publisher: Publisher, growth: float) -> str:
    """Return a line of what is to be downloaded and what the disk must hold.

    `growth` is the bytes that tables and unpacked files take for each byte downloaded. Raises
    OSError where the disk has less, ConnectionError where a file is neither here nor in reach.
    """
    whole = left = unknown = 0
    for source in publisher.sources:
        file, part = publisher.raw / source.name, publisher.raw / f"{source.name}.part"
        size = file.stat().st_size if file.is_file() else _size(publisher, source)
        unknown += size is None
        whole += size or 0
        if not file.is_file():
            left += max(0, (size or 0) - (part.stat().st_size if part.is_file() else 0))
    needed, free = left + int(growth * whole), shutil.disk_usage(publisher.raw).free
    more = f" and {unknown} files of unknown size" if unknown else ""
    line = f"{_gb(left)}{more} to download, {_gb(needed)} of disk needed, {_gb(free)} free"
    if needed > free:
        raise OSError(f"{publisher.raw.parent}: {line}; make room, or give out= on a larger disk")
    return line


def fetch(
    publisher: Publisher, recorded: Mapping[str, Any], *, pause: float = 2.0
) -> dict[str, Any]:
    """Bring every file that is missing; return what is now known of each, for the lock.

    `recorded` is the lock: what was known of the files when they first made a set. Raises
    ConnectionError, with what to do by hand, where a file does not come, and ValueError for one
    whose checksum is wrong. Waits `pause` seconds before the second try, then twice as long.
    """
    known: dict[str, Any] = {}
    for source in publisher.sources:
        file = publisher.raw / source.name
        if file.is_file():
            sys.stderr.write(f"{file} is there\n")
            digest = _checked(publisher, source, file, recorded)
        else:
            part = publisher.raw / f"{source.name}.part"
            _download(publisher, source, part, pause)
            digest = _checked(publisher, source, part, recorded)
            sync(part)
            part.replace(file)
            sync(publisher.raw)
            _state(part).unlink()
        known[source.name] = {
            "bytes": file.stat().st_size,
            "sha256": digest,
            "published": f"md5 {source.md5}" if source.md5 else None,
            "url": source.url,
        }
    return known


def _download(publisher: Publisher, source: Source, part: Path, pause: float) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(publisher, source, part)
            return
        except BROKEN as error:
            if isinstance(error, HTTPError):
                error.close()  # it is an open reply as well
            final = isinstance(error, HTTPError) and error.code not in BUSY
            if final or attempt == ATTEMPTS:
                raise ConnectionError(_by_hand(publisher, source, error)) from None
            sys.stderr.write(f"{publisher.url(source)}: {error}; try {attempt + 1} of {ATTEMPTS}\n")
        time.sleep(pause * 2 ** (attempt - 1))


def _receive(publisher: Publisher, source: Source, part: Path) -> None:
    """Make `part` whole, or longer; raise one of `BROKEN` where the connection breaks."""
    have, state = _had(part)
    if have and have == state["bytes"]:
        return
    # If-Range: the rest of the same file, or, where it has changed, the whole of the new one.
    ask = {"Range": f"bytes={have}-", "If-Range": state["validator"]} if have else {}
    with urlopen(publisher.request(source, **ask), timeout=TIMEOUT) as reply:
        start = have if reply.status == 206 else 0
        if start and not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise HTTPException(f"asked from byte {start}: {reply.headers.get('Content-Range')}")
        total = _total(reply, start)
        state = {"url": publisher.url(source), "validator": _validator(reply), "bytes": total}
        if not start:
            part.unlink(missing_ok=True)  # before its new description, not after
            write_text(_state(part), json.dumps(state))
        with part.open("ab" if start else "wb") as opened, _bar(source, start, total) as bar:
            while chunk := reply.read(CHUNK):
                opened.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise ConnectionError(f"broke off at {part.stat().st_size:,} of {total:,} bytes")


def _bar(source: Source, start: int, total: int | None) -> "tqdm[NoReturn]":
    return tqdm(
        desc=source.name,
        initial=start,
        total=total,
        unit="B",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
    )


def _had(part: Path) -> tuple[int, dict[str, Any]]:
    """Return the bytes of a part that can be gone on with, 0 where none can, and what it is of."""
    if not part.is_file() or not _state(part).is_file():
        return 0, {}
    state = json.loads(_state(part).read_text(encoding="utf-8"))
    have = part.stat().st_size
    known = state["validator"] and state["bytes"] is not None
    return (have, state) if known and have <= state["bytes"] else (0, {})


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _total(reply: HTTPResponse, start: int) -> int | None:
    length = reply.headers.get("Content-Length")
    return None if length is None else start + int(length)


def _validator(reply: HTTPResponse) -> str | None:
    """Return what tells this version of the file from others; a weak ETag must not be used."""
    tag = reply.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else reply.headers.get("Last-Modified")


def _size(publisher: Publisher, source: Source) -> int | None:
    """Return the bytes of a file at its address, None where the server does not say."""
    request = publisher.request(source)
    request.method = "HEAD"
    try:
        with urlopen(request, timeout=TIMEOUT) as reply:
            return _total(reply, 0)
    except HTTPError as error:
        error.close()
        return None  # some refuse HEAD; what is wrong, if anything, GET will say
    except BROKEN as error:
        raise ConnectionError(_by_hand(publisher, source, error)) from None


def _checked(publisher: Publisher, source: Source, file: Path, recorded: Mapping[str, Any]) -> str:
    """Return the sha256 of a file; ValueError, and the file set aside, where it is another one."""
    digest, first = sha256(file), recorded.get(source.name, {}).get("sha256")
    with file.open("rb") as opened:
        md5 = hashlib.file_digest(opened, "md5").hexdigest() if source.md5 else None
    if md5 != source.md5:
        wrong = f"its md5 is {md5}, the publisher's {source.md5}; delete it and run again"
    elif first and digest != first:
        wrong = (
            f"its sha256 is {digest}, that of the first download was {first}; the publisher has "
            "changed it or it is damaged. To take the new one, delete "
            f"{publisher.raw / 'lock.json'} and run again"
        )
    else:
        return digest
    aside = publisher.raw / f"{source.name}.refused"
    file.replace(aside)
    _state(file).unlink(missing_ok=True)
    raise ValueError(f"{source.name} is refused and kept as {aside}: {wrong}")


def _by_hand(publisher: Publisher, source: Source, error: Exception) -> str:
    """Return message for a file that does not come: which, why, and how to bring all by hand."""
    reason = error.reason if isinstance(error, URLError) else error
    status = f"HTTP {error.code} " if isinstance(error, HTTPError) else ""
    absent = [one for one in publisher.sources if not (publisher.raw / one.name).is_file()]
    lines = [f"{publisher.url(source)} does not come: {status}{reason}"]
    lines += ["run the same command again to go on, or download by hand and then run it:"]
    lines += [f"  {one.url} -> {publisher.raw / one.name}" for one in absent]
    lines += [
        f"the publisher's page: {publisher.page}",
        *([publisher.hint] if publisher.hint else []),
    ]
    return "\n".join(lines)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
