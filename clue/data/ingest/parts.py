"""Parts of a log: what is read at a time, whole files or runs of row groups of Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from clue.data.ingest.files import LogFile
from clue.data.ingest.validation import Log


@dataclass(frozen=True)
class Part:
    """File `number` of its log, or the row groups of it that `file` names, behind `skipped` rows."""

    number: int
    file: LogFile
    skipped: int = 0

    def __str__(self) -> str:
        """Return what is read, for progress."""
        return f"{self.file} from row {self.skipped + 1:,}" if self.skipped else str(self.file)


def parts_of(log: Log, rows: int) -> Iterator[Part]:
    """Yield the parts of a log, of Parquet runs of row groups that have at least so many rows.

    Other formats are read from their start, for a quoted line break looks like any other, and what
    is packed as a whole because it is packed.
    """
    for number, file in enumerate(log.files):
        if file.format != "parquet" or file.compression != "none":
            yield Part(number, file)
            continue
        metadata = pq.read_metadata(file.path)
        groups: list[int] = []
        skipped = taken = 0
        for group in range(metadata.num_row_groups):
            groups.append(group)
            taken += metadata.row_group(group).num_rows
            if taken >= rows or group == metadata.num_row_groups - 1:
                yield Part(number, replace(file, row_groups=groups), skipped)
                groups, skipped, taken = [], skipped + taken, 0
