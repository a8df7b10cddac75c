"""Parts of a log: what is read at a time, whole files or runs of row groups of Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from clue.data.ingest.files import LogFile
from clue.data.ingest.validation import Log

ALL = 1 << 62


@dataclass(frozen=True)
class Part:
    """File `number` of its log, or the row groups that `file` names, behind `skipped` rows."""

    number: int
    file: LogFile
    skipped: int = 0

    def __str__(self) -> str:
        """Return what is read, for progress."""
        return f"{self.file} from row {self.skipped + 1:,}" if self.skipped else str(self.file)


def parts_of(log: Log, *, rows: int = ALL, size: int = ALL) -> Iterator[Part]:
    """Yield the parts of a log; of Parquet runs of row groups of so many rows, or so many bytes.

    A CSV file is read from its start, for a quoted line break looks like any other, and a packed
    one because it is packed.
    """
    for number, file in enumerate(log.files):
        if number in log.skipped:
            continue
        if file.format != "parquet" or file.compression != "none":
            yield Part(number, file)
            continue
        metadata = pq.read_metadata(file.path)
        groups: list[int] = []
        skipped = taken = filled = 0
        for group in range(metadata.num_row_groups):
            groups.append(group)
            taken += metadata.row_group(group).num_rows
            filled += metadata.row_group(group).total_byte_size
            if taken >= rows or filled >= size or group == metadata.num_row_groups - 1:
                yield Part(number, replace(file, row_groups=groups), skipped)
                groups, skipped, taken, filled = [], skipped + taken, 0, 0
