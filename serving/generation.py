"""Index generations on disk: whole or absent, and verified byte by byte before they are read.

    indexes/demo/CURRENT                       the name of the generation to serve
    indexes/demo/000001-3fa2b1c4d5e6/          its number, the first digits of its manifest's hash
        manifest.json items.arrow users.arrow arrays.safetensors

FAISS's own files are not used: they carry no checksum (86 % of single-bit flips load silently) and
a process killed while writing one leaves it torn. FAISS is built in memory from these arrays.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load, save

from clue.atomic import sync
from serving.contents import BrokenIndex, Contents, Strings, check

FORMAT = 2
CURRENT = "CURRENT"
LOCK = ".lock"
UNFINISHED = ".building-"
NAME = re.compile(r"[0-9]{6}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What manifest.json holds: whose vectors these are, how many, and the hash of each file."""

    format: Literal[2]
    model_fingerprint: str
    corpus_fingerprint: str
    corpus_name: str
    templates: dict[str, str]
    services: list[str]
    width: int
    num_items: int
    num_users: int
    files: dict[str, str]
    store: str = ""
    store_seq: int = 0
    item_block_columns: dict[str, tuple[int, int]] = field(
        default_factory=dict[str, tuple[int, int]]
    )


@contextmanager
def writing(out: Path, *, overwrite: bool) -> Generator[None]:
    """Hold `out` for one writer; remove what killed writers left.

    Raises FileExistsError when `out` holds an index and `overwrite` is false, or holds anything
    else, and ValueError when another process is writing it.
    """
    if (out / CURRENT).exists() and not overwrite:
        raise FileExistsError(f"{out} already holds an index; overwrite=true replaces it")
    if out.is_dir() and not (out / CURRENT).exists():
        foreign = [p.name for p in out.iterdir() if not _ours(p.name)]
        if foreign:
            raise FileExistsError(f"{out} holds {foreign[0]!r}, which is no index; choose another")
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is writing {out}; wait for it") from None
        for left in out.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def publish(out: Path, contents: Contents, *, activate: bool = True) -> str:
    """Write `contents` as the next generation of `out` and return its name.

    Readers see the old generation or the new one, never a part. Served from now on where
    `activate`; the generation before stays for rollback and for a reader that has just read
    CURRENT. Of the same model older ones go; those of other models and those that were published
    and never served stay. Call under `writing`.
    """
    held = tempfile.mkdtemp(prefix=UNFINISHED, dir=out)
    manifest = _write_files(Path(held), contents)
    older = names(out)
    number = int(older[-1].partition("-")[0]) + 1 if older else 1
    name = f"{number:06d}-{hashlib.sha256(manifest).hexdigest()[:12]}"
    Path(held).chmod(0o755)  # mkdtemp's 0700 would lock out a service that runs as another user
    Path(held).rename(out / name)
    sync(out)
    if activate:
        serve_next(out, name)
    return name


def serve_next(out: Path, name: str) -> list[str]:
    """Serve a generation from now on; return the older ones that are removed. See `publish`."""
    served = current(out) if (out / CURRENT).exists() else ""
    model = manifest_of(out, name).model_fingerprint
    serve(out, name)
    gone = [left for left in names(out) if left < served and _model_of(out, left) == model]
    for left in gone:
        shutil.rmtree(out / left)
    return gone


def serve(out: Path, name: str) -> None:
    """Make the generation `name` the one that is served from now on. Call under `writing`."""
    _write(out / f"{UNFINISHED}current", name.encode())
    (out / f"{UNFINISHED}current").replace(out / CURRENT)
    sync(out)


def names(out: Path) -> list[str]:
    """Return the names of the generations in `out`, oldest first."""
    return sorted(path.name for path in out.iterdir() if NAME.fullmatch(path.name))


def current(out: Path) -> str:
    """Return the name of the generation that is served.

    Raises FileNotFoundError when there is none, BrokenIndex when CURRENT names none.
    """
    if not (out / CURRENT).is_file():
        raise FileNotFoundError(f"no index in {out}; clue index makes one")
    name = (out / CURRENT).read_bytes().decode("ascii", "replace")
    if not NAME.fullmatch(name):
        raise BrokenIndex(f"{CURRENT} does not name a generation; build the index again")
    return name


def manifest_of(out: Path, name: str) -> Manifest:
    """Return the manifest of a generation; raises BrokenIndex when it is not as it was written."""
    text = _read(out / name / "manifest.json")
    if hashlib.sha256(text).hexdigest()[:12] != name.partition("-")[2]:
        raise BrokenIndex("manifest.json is not what was written; build the index again")
    try:
        return TypeAdapter(Manifest).validate_json(text)
    except ValidationError:
        raise BrokenIndex("manifest.json is of another format; build the index again") from None


def read(out: Path, name: str | None = None) -> tuple[str, Contents]:
    """Return the name and the contents of a generation of `out`, by default of the current one.

    Raises FileNotFoundError when there is none, BrokenIndex when a byte is not as it was written.
    """
    name = current(out) if name is None else name
    manifest = manifest_of(out, name)
    files = {
        file: _read_hashed(out / name / file, digest) for file, digest in manifest.files.items()
    }
    items, users = (_table(files[f"{kind}.arrow"]) for kind in ("items", "users"))
    contents = Contents(
        model_fingerprint=manifest.model_fingerprint,
        corpus_fingerprint=manifest.corpus_fingerprint,
        corpus_name=manifest.corpus_name,
        templates=manifest.templates,
        services=manifest.services,
        store=manifest.store,
        store_seq=manifest.store_seq,
        item_block_columns=manifest.item_block_columns,
        item_ids=items["item_id"],
        item_texts=items["text"],
        user_ids=users["user_id"],
        **load(files["arrays.safetensors"]),
    )
    check(contents)
    return name, contents


def _model_of(out: Path, name: str) -> str:
    """Return the model of a generation, "" of a broken one."""
    try:
        return manifest_of(out, name).model_fingerprint
    except BrokenIndex:
        return ""


def _write_files(directory: Path, contents: Contents) -> bytes:
    """Write and sync the four files; return the manifest's bytes."""
    arrays = {
        "item_service": contents.item_service,
        "item_content": contents.item_content,
        "item_key": contents.item_key,
        "item_vectors": contents.item_vectors,
        "user_vectors": contents.user_vectors,
        "seen_values": contents.seen_values,
        "seen_offsets": contents.seen_offsets,
    }
    for name in ("user_states", "user_events", "item_events", "item_blocks"):
        array: np.ndarray | None = getattr(contents, name)
        if array is not None:
            arrays[name] = array
    blobs: dict[str, bytes] = {
        "items.arrow": _arrow({"item_id": contents.item_ids, "text": contents.item_texts}),
        "users.arrow": _arrow({"user_id": contents.user_ids}),
        "arrays.safetensors": save(arrays),
    }
    manifest = Manifest(
        format=FORMAT,
        model_fingerprint=contents.model_fingerprint,
        corpus_fingerprint=contents.corpus_fingerprint,
        corpus_name=contents.corpus_name,
        templates=contents.templates,
        services=contents.services,
        store=contents.store,
        store_seq=contents.store_seq,
        width=contents.user_vectors.shape[1],
        num_items=len(contents.item_ids),
        num_users=len(contents.user_ids),
        item_block_columns=contents.item_block_columns,
        files={name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()},
    )
    text = TypeAdapter(dict[str, Any]).dump_json(asdict(manifest), indent=1)
    for name, blob in (blobs | {"manifest.json": text}).items():
        _write(directory / name, blob)
    sync(directory)
    return text


def _arrow(columns: dict[str, Strings]) -> bytes:
    table: Any = pa.table(columns)
    sink: Any = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _table(blob: bytes) -> dict[str, Strings]:
    table: Any = pa.ipc.open_file(pa.py_buffer(blob)).read_all()
    return {name: table[name].combine_chunks() for name in table.column_names}


def _read_hashed(path: Path, digest: str) -> bytes:
    blob = _read(path)
    if hashlib.sha256(blob).hexdigest() != digest:
        raise BrokenIndex(f"{path.name} is not what was written; build the index again")
    return blob


def _read(path: Path) -> bytes:
    """Return the file's bytes: what is hashed is what is used, not what is mapped later."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BrokenIndex(f"{path.name} is missing; build the index again") from None


def _write(path: Path, blob: bytes) -> None:
    with path.open("wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())


def _ours(name: str) -> bool:
    return name == LOCK or name.startswith(UNFINISHED) or NAME.fullmatch(name) is not None
