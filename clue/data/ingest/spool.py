"""A column on its way into the corpus: written to a file end to end, read back mapped.

What is read of a mapped file counts as memory of the process until it is let go.
"""

import mmap
from pathlib import Path

import numpy as np


class Spool:
    """A file of numbers of one kind, first filled, then read."""

    def __init__(self, file: Path, kind: type) -> None:
        """Make the file."""
        self.kind = np.dtype(kind)
        self._file = file
        self._file.write_bytes(b"")
        self._map: mmap.mmap | None = None

    def add(self, values: np.ndarray) -> None:
        """Write more numbers behind those that are there."""
        with self._file.open("ab") as out:
            values.astype(self.kind, copy=False).tofile(out)

    def read(self) -> np.ndarray:
        """Return all numbers that were added, mapped."""
        if not self._file.stat().st_size:  # an empty file cannot be mapped
            return np.empty(0, self.kind)
        with self._file.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, self.kind)

    def release(self) -> None:
        """Let go of the memory of what was read; it is read again from the file where needed."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
