"""The corpus on disk: what `clue/prepare.py` writes and everything else reads.

A directory of Arrow IPC files, one record batch each and uncompressed, so that opening costs the
same for a thousand users as for a billion events and every array is a view of the mapped file:

    manifest.json            counts, split, templates, hashes (class Manifest)
    tokenizer.json           byte-level BPE; id 0 is "<pad>" and never stands for text
    users.arrow              user_id, split           row = user index, sorted by user_id
    items.arrow              item_id, service, text, tokens, content    row = item index
    histories_SERVICE.arrow  items, timestamps, and a column for each field of the service's events
                             row = user index, oldest event first; or in shards of ranges of users
                             (history_shards.py)
"""

import dataclasses
import fcntl
import hashlib
import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from clue.atomic import sha256, sync
from clue.data.cache import DEFAULT, CacheConfig, Held, hold_manifest
from clue.data.columns import as_ragged, history_file, map_columns
from clue.data.fields import Field
from clue.data.history_shards import HistoryShards, Sharded, is_shard
from clue.data.ragged import Ragged
from clue.data.store import path_of, url_of

FORMAT = 3  # since 3, a manifest says which services' times are a clock's
SPLITS = ("train", "valid", "test")
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a corpus holds and where it came from; `manifest.json` is its fields.

    `fingerprint` is sha256 over the hashes of the Arrow files and the tokenizer: equal content has
    an equal fingerprint wherever and whenever it was prepared. `inputs` is sha256 over the settings
    and the sources, by which a second run sees that its work is already done. `dropped_rows` counts
    what `on_bad_row: drop` left out, by reason; an event whose item has another text is kept.
    `clocks` is true of the services whose times are epoch seconds, false of those whose times are
    positions, between which no duration is known. `fields` are those of the services that have
    any; what their codes stand for is part of the fingerprint. `files` are the `bytes` and `sha256`
    of each file, by which a copy is checked. `shards` are the first users of the shards that the
    histories lie in, and the number of users; empty where each service's are one file. A
    fingerprint is that of the whole files.
    """

    name: str
    services: list[str]
    num_users: int
    num_items: int
    num_events: dict[str, int]
    clocks: dict[str, bool]
    num_tokens: int
    split: dict[str, int]
    max_item_tokens: int
    vocab_size: int
    seed: int
    fields: dict[str, list[Field]] = field(default_factory=dict[str, list[Field]])
    templates: dict[str, str] = field(default_factory=dict[str, str])
    dropped_rows: dict[str, int] = field(default_factory=dict[str, int])
    source: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    files: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    shards: list[int] = field(default_factory=list[int])
    inputs: str = ""
    tokenizer_sha256: str = ""
    fingerprint: str = ""
    format: int = FORMAT


class Corpus:
    """A prepared corpus, memory-mapped; nothing is read before it is used.

    One entry per user: `user_ids` (strings), `split` (uint8, an index into `SPLITS`). One per item:
    `item_ids`, `item_texts` (strings), `item_service` (uint8, an index into `services`),
    `item_content` (int64, equal for items with equal tokens), `item_tokens` (Ragged of int32).
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        held: Held | None = None,
        shards: HistoryShards | None = None,
    ) -> None:
        """Map the files of `path`; use `Corpus.open`, which also checks them."""
        self.path = path
        self.held = held  # in the cache, as long as this object lives
        self.manifest = manifest
        self.services = tuple(manifest.services)
        self.num_users = manifest.num_users
        self.num_items = manifest.num_items
        self.fingerprint = manifest.fingerprint
        self.tokenizer_path = path / "tokenizer.json"
        # Arrow's `to_numpy` would import pandas where it is installed: .65 s of every start.
        users = map_columns(path / "users.arrow")
        self.user_ids: pa.Array = users["user_id"]
        self.split: np.ndarray = np.from_dlpack(users["split"])
        items = map_columns(path / "items.arrow")
        self.item_ids: pa.Array = items["item_id"]
        self.item_texts: pa.Array = items["text"]
        self.item_service: np.ndarray = np.from_dlpack(items["service"])
        self.item_content: np.ndarray = np.from_dlpack(items["content"])
        self.item_tokens = as_ragged(items["tokens"])
        self._shards = shards
        self._joined: Held | None = None
        self._histories: list[pa.RecordBatch] = []
        if shards is None:
            self._map_histories(path)
        sizes = (len(self.user_ids), len(self.item_ids), {len(h) for h in self._histories})
        rows = {self.num_users} if shards is None else set[int]()
        if sizes != (self.num_users, self.num_items, rows):
            raise ValueError(
                f"{path}: manifest.json promises {self.num_users} users, {self.num_items} items; "
                f"the files hold {sizes}; prepare the corpus again with overwrite=true"
            )

    @classmethod
    def open(cls, path: Path | str, cache: CacheConfig = DEFAULT) -> "Corpus":
        """Return the corpus in the directory or at the URL `path` (`s3://`, `gs://`, `file://`).

        What lies in a store is copied into the `cache` first, once for all processes, and checked
        against the hashes of its manifest. Raises FileNotFoundError where there is none, ValueError
        for another format or for files that do not belong together, PermissionError and
        ConnectionError as the store does; each names the next step.
        """
        url = url_of(path)
        held = None if url is None else hold_manifest(url, cache, later=is_shard)
        local = path_of(path) if held is None else held.path
        manifest = read_manifest(local)
        if not manifest.shards:
            return cls(local, manifest, held)
        bounds = np.array(manifest.shards)
        url = None if url is None else url.rstrip("/")
        shards = HistoryShards(local, url, manifest.services, bounds, manifest.files, cache)
        return cls(local, manifest, held, shards)

    def histories_of(self, service: int, users: np.ndarray) -> tuple[Ragged, Ragged]:
        """Return the (items, times) of these users (n,) in a service, in the order asked for.

        Of a corpus in shards only theirs are opened: users who lie together are read together.
        """
        return self._take(service, "items", users), self._take(service, "timestamps", users)

    def field_of(self, service: int, name: str, users: np.ndarray) -> Ragged:
        """Return a field's values (`values_of`) of these users' events, as `histories_of` does."""
        self._check_field(service, name)
        return self._take(service, name, users)

    def _take(self, service: int, column: str, users: np.ndarray) -> Ragged:
        if self._shards is None or self._histories:
            return as_ragged(self._whole(service)[column]).take(users)
        return self._shards.take(self.services[service], column, users)

    def _whole(self, service: int) -> pa.RecordBatch:
        """Return all histories of a service; those in shards are joined in the cache at first."""
        if not self._histories and self._shards is not None:
            self._joined = self._shards.whole()
            self._map_histories(self._joined.path)
        return self._histories[service]

    def _map_histories(self, path: Path) -> None:
        self._histories = [map_columns(history_file(path, service)) for service in self.services]

    def items_of(self, service: int) -> Ragged:
        """Return the item indices (int32) of every user's events in a service, oldest first."""
        return as_ragged(self._whole(service)["items"])

    def timestamps_of(self, service: int) -> Ragged:
        """Return the times (float64) of those events: epoch seconds, or the numbers of the log."""
        return as_ragged(self._whole(service)["timestamps"])

    def is_clock(self, service: int) -> bool:
        """Return whether a service's times are epoch seconds; positions have no durations."""
        return self.manifest.clocks[self.services[service]]

    def fields_of(self, service: int) -> tuple[Field, ...]:
        """Return the fields of a service's events, in the order of the data YAML."""
        return tuple(self.manifest.fields.get(self.services[service], ()))

    def values_of(self, service: int, name: str) -> Ragged:
        """Return a field's value of each of those events, in rows like those of `items_of`.

        A number is float32, NaN where it is missing; of a categorical or boolean field it is the
        code (uint16, see `Field.values`). Raises ValueError for a field that the service lacks.
        """
        self._check_field(service, name)
        return as_ragged(self._whole(service)[name])

    def _check_field(self, service: int, name: str) -> None:
        names = [field.name for field in self.fields_of(service)]
        if name not in names:
            raise ValueError(
                f"{self.services[service]} has no field {name!r} but {', '.join(names) or 'none'}; "
                "declare it under fields and prepare the corpus again"
            )

    def users_in(self, split: Split) -> np.ndarray:
        """int64 indices of the users of a split, ascending."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
        return np.flatnonzero(self.split == SPLITS.index(split))


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the corpus in `path`; raises as `Corpus.open` does."""
    file = path / "manifest.json"
    if not file.is_file():
        raise FileNotFoundError(f"no corpus in {path}; clue prepare makes one")
    fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if fields.get("format") != FORMAT:
        raise ValueError(
            f"{file}: format {fields.get('format')}, this version reads {FORMAT}; prepare it again"
        )
    of_services: dict[str, list[dict[str, Any]]] = fields.pop("fields")
    return Manifest(
        **fields,
        fields={
            service: [Field.read(each) for each in its_fields]
            for service, its_fields in of_services.items()
        },
    )


def seal(path: Path, manifest: Manifest, sharded: Sharded | None = None) -> None:
    """Write `manifest` into `path`, its two hashes computed from the files that lie there.

    Those of the histories that were written as shards are known.
    """
    arrow = [file for file in sorted(path.glob("*.arrow")) if not is_shard(file.name)]
    named = [*arrow, path / "tokenizer.json"]
    hashes = {file.name: sha256(file) for file in named}
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashes[file.name]} for file in named
    }
    bounds: list[int] = []
    if sharded is not None:
        hashes |= {history_file(path, name).name: own for name, own in sharded.whole.items()}
        files |= {name: dict(of) for name, of in sharded.shards.files.items()}
        bounds = sharded.shards.bounds.tolist()
    if manifest.fields:
        fields = dataclasses.asdict(manifest)["fields"]
        hashes["fields"] = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    whole = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    sealed = dataclasses.replace(
        manifest,
        files=files,
        shards=bounds,
        tokenizer_sha256=hashes["tokenizer.json"],
        fingerprint=whole,
    )
    file = path / "manifest.json"
    text = json.dumps(dataclasses.asdict(sealed), indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    for written in path.iterdir():
        sync(written)


def first_users(users: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of the users, ascending; all of them where it is 0.

    They are the first of one fixed shuffle: the smaller of two counts gives a part of the larger.
    Raises ValueError where there are fewer.
    """
    if count > len(users):
        raise ValueError(
            f"users is {count}, and the corpus has {len(users)} to train on; lower it, or set 0 "
            "for all of them"
        )
    order = np.random.default_rng(0).permutation(len(users))
    return np.sort(users[order[: count or len(users)]])


@contextmanager
def building(target: Path, *, replace: bool) -> Generator[Path]:
    """Return a scratch directory beside `target`; its `corpus/` becomes `target` at the end.

    The rename comes last, so a killed run leaves no half corpus, and what it did leave is removed
    by the next. A block that raises, or removes `corpus/`, leaves `target` as it was. ValueError
    when another process is building the same target, or when it exists and `replace` is false.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name}.partial"
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:  # The kernel releases this lock when its holder dies, however it dies.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is preparing {target}; wait for it") from None
        if (scratch / "replaced").exists() and not target.exists():
            (scratch / "replaced").rename(target)  # a kill came between the two renames below
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "corpus").mkdir(parents=True)
        try:
            yield scratch
            if not (scratch / "corpus").exists():
                return
            sync(scratch / "corpus")
            if target.exists():
                if not replace:
                    raise ValueError(f"{target} appeared meanwhile; look at it, then run again")
                target.rename(scratch / "replaced")
            (scratch / "corpus").rename(target)
            sync(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
