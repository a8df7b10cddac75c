"""A folder with a manifest, written into a store: whole there or absent, whenever it is killed."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clue.atomic import sha256, write_text
from clue.data.cache import MANIFEST, CacheConfig
from clue.data.store import Store, path_of, url_of


def read_small(location: Path | str, name: str, cache: CacheConfig) -> str:
    """Return the text of a small file in a folder or below a URL; FileNotFoundError without."""
    url = url_of(location)
    if url is None:
        return (path_of(location) / name).read_text(encoding="utf-8")
    return Store(url, cache.patience).read(name).decode("utf-8")


def outbox(url: str, cache: CacheConfig) -> Path:
    """Return where what goes to a URL is made on this machine, until it is there."""
    folder = cache.directory.expanduser() / "outbox"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{url.rpartition('/')[2]}"


def upload(folder: Path, url: str, cache: CacheConfig) -> None:
    """Write the files of a folder below a URL, in place of what a manifest there is of.

    An old manifest goes first and the new one comes last: what has one is whole. What has arrived
    stands in a journal beside the folder, so that no object is sent twice after a kill.
    """
    store, journal = Store(url, cache.patience), folder.with_name(f"{folder.name}.sent.json")
    whole = sha256(folder / MANIFEST)
    sent: dict[str, str] = {}
    if journal.is_file():
        noted: dict[str, Any] = json.loads(journal.read_text(encoding="utf-8"))
        sent = noted["objects"] if noted["manifest"] == whole else {}
    store.remove(MANIFEST)
    names = sorted(file.name for file in folder.iterdir() if file.name != MANIFEST)
    for name in tqdm(names, desc=url, unit="file", disable=not sys.stderr.isatty()):
        if name not in sent or store.version(name) != sent[name]:
            store.write(name, folder / name)
            sent[name] = store.version(name)
            write_text(journal, json.dumps({"manifest": whole, "objects": sent}))
    store.write(MANIFEST, folder / MANIFEST)
    journal.unlink(missing_ok=True)
