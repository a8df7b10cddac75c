"""Files that outlive a crash: written to the disk itself, and known by their hash."""

import hashlib
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Return when the file, or the entries of the directory, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small file beside its place and rename it: a kill leaves the old one or the new."""
    beside = path.with_name(f".writing-{path.name}")
    beside.write_text(text, encoding="utf-8")
    sync(beside)
    beside.replace(path)
    sync(path.parent)


def sha256(file: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
