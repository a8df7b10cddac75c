"""Which files a log is: paths, globs and folders, what their endings say, keys in folder names."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from clue.data.cache import DEFAULT, CacheConfig, Held, hold_object
from clue.data.store import Store, path_of, url_of

Format = Literal["parquet", "csv", "json"]
FORMATS: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
COMPRESSIONS = {"": "none", ".gz": "gzip", ".zst": "zstd"}
MISSING_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark write for NULL


@dataclass(frozen=True)
class LogFile:
    """A file of a log; its text is its path, or its URL where `path` is a copy in the cache.

    `partitions` are the columns that its folders name, `service=books/part-0.parquet`; None is a
    missing value. `delimiter` is what parts the values of CSV, None to find it in the header.
    `row_groups` are those of a Parquet file that are read, None for all.
    """

    path: Path
    format: Format
    compression: str
    partitions: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    delimiter: str | None = None
    url: str | None = None
    row_groups: Sequence[int] | None = None
    held: Held | None = None  # what keeps the copy where it is

    def __str__(self) -> str:
        """Return the path or the URL."""
        return self.url or str(self.path)


def log_file(path: Path, what: str = "the log", delimiter: str | None = None) -> LogFile:
    """Return the file at `path`, read by its ending in any case: a format, perhaps .gz or .zst.

    Raises ValueError, with all that are read, for an ending that is none of them.
    """
    name = path.name.lower()
    for ending, format_ in FORMATS.items():
        for packed, compression in COMPRESSIONS.items():
            if name.endswith(ending + packed):
                tab = "\t" if ending == ".tsv" and delimiter is None else delimiter
                return LogFile(path, format_, compression, _partitions(path), tab)
    raise ValueError(
        f"{what}: {path} ends in none of {' '.join(FORMATS)}, also with .gz or .zst behind; "
        "convert or rename it"
    )


def find_files(
    patterns: Sequence[str],
    what: str,
    delimiter: str | None = None,
    cache: CacheConfig = DEFAULT,
) -> list[LogFile]:
    """Return the files that paths, globs and folders name, in order, the matches of one sorted.

    Those of `s3://` and `gs://` are copied into the cache. In a folder, names that begin with `_`
    or `.` are passed over, as Spark does. Raises FileNotFoundError for a pattern without a match,
    and ValueError for an ending that is not read or a file named twice (its rows would count
    twice).
    """
    files: list[LogFile] = []
    for named in patterns:
        url = url_of(named)
        if url is not None:
            files += _from_store(url, what, delimiter, cache)
            continue
        pattern = str(path_of(named))
        # A path that exists is itself even when it holds a character that globs read as magic.
        exists = Path(pattern).exists()
        matches = [pattern] if exists else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        paths = [path for name in matches for path in _files_in(Path(name), matches)]
        if not paths:
            raise FileNotFoundError(f"{what}: no file matches {pattern!r}; check the path")
        files += [log_file(path, what, delimiter) for path in paths]
    for number, file in enumerate(files):
        if file.path in [other.path for other in files[:number]]:
            raise ValueError(f"{what}: {file} is named twice; name it once")
    return files


def _files_in(path: Path, matches: Sequence[str]) -> Iterator[Path]:
    """Return the file itself, or those below a folder; `**` matches folders and their files."""
    if not path.is_dir():
        if len(matches) == 1 or not path.name.startswith("_") or path.suffix:  # Spark's _SUCCESS
            yield path
        return
    if any(str(path) == str(Path(other).parent) for other in matches):
        return  # its content was matched too
    for below in sorted(path.rglob("*")):
        parts = below.relative_to(path).parts
        if below.is_file() and not any(part.startswith(("_", ".")) for part in parts):
            yield below


def _from_store(
    url: str, what: str, delimiter: str | None, cache: CacheConfig
) -> Iterator[LogFile]:
    """Yield the files that a URL, a glob of URLs or a folder of a store names, in the cache."""
    objects = Store(url, cache.patience).list()
    below = [each for each in objects if not _is_hidden(each.url.removeprefix(url.rstrip("/")))]
    if not below:
        raise FileNotFoundError(f"{what}: no object matches {url!r}; check bucket and name")
    for each in below:
        file = log_file(Path(each.url), what, delimiter)
        held = hold_object(each, cache)
        yield replace(file, path=held.path / file.path.name, url=each.url, held=held)


def _is_hidden(below: str) -> bool:
    return any(part.startswith(("_", ".")) for part in below.split("/"))


def _partitions(path: Path) -> dict[str, str | None]:
    pairs = [part.partition("=") for part in path.parts[:-1]]
    return {
        unquote(key): None if value == MISSING_PARTITION else unquote(value)
        for key, equals, value in pairs
        if equals and key
    }
