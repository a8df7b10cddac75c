"""From a publisher's files to the tables of a log, each written whole or not at all.

OUT/events.parquet   user_id, service, item_id, timestamp; and rating, where the set has one
OUT/items.parquet    service, item_id, text
OUT/attributes.parquet, OUT/impressions.parquet, where the set has them
OUT/data.yaml        what `clue/prepare.py` reads; last, so where it is the set is whole
OUT/raw              the publisher's files, and lock.json, their checksums
"""

import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import duckdb
import yaml

from benchmarks.datasets.download import Source
from clue.atomic import sync, write_text
from clue.data.ingest.values import quoted
from clue.data.ingest.writer import connect

# What `csv_sql` is told of files with a header, commas, and double quotes, doubled inside.
CSV = {"header": "true", "delim": "','", "quote": "'\"'", "escape": "'\"'"}
UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a set is made: the publisher's files, what to unpack of them, and SQL for each table.

    `members` are the names of the files to unpack, by archive; each goes to WORK/ARCHIVE/NAME.
    `growth` is the bytes that tables and unpacked files take for each byte downloaded. `prepare`
    holds the keys of data.yaml beside name, events and items.
    """

    page: str
    sources: Sequence[Source]
    tables: Mapping[str, str]
    growth: float
    prepare: Mapping[str, Any]
    members: Mapping[str, Sequence[str]]
    hint: str = ""


def csv_sql(file: Path, columns: Mapping[str, str], **options: str) -> str:
    """Return SQL for a file of separated values, its columns and their types as they are named.

    The dialect is fixed, for a sniffer that guesses may guess otherwise tomorrow: no header, a tab
    between values and no quotes, unless `options` say otherwise.
    """
    plain = {"header": "false", "delim": r"'\t'", "quote": "''", "escape": "''"}
    chosen = ", ".join(f"{name} = {value}" for name, value in (plain | options).items())
    types = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in columns.items())
    return f"read_csv({quoted(str(file))}, auto_detect = false, {chosen}, columns = {{{types}}})"


def write_tables(recipe: Recipe, out: Path, memory_limit: str) -> dict[str, int]:
    """Return the rows of each table written into `out`, from the files in `out`/raw.

    Raises ValueError for a file that is broken, is missing in its archive, or holds rows that are
    not of the publisher's format. A data.yaml there is removed first: it spoke of other tables.
    """
    (out / "data.yaml").unlink(missing_ok=True)
    sync(out)
    work = work_of(out)
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    try:
        with closing(connect(work, memory_limit)) as db:
            for archive, members in recipe.members.items():
                with _stage(f"unpacking {archive}"):
                    _unpack(out / "raw" / archive, members, work / archive)
            return {name: _write(db, name, sql, out) for name, sql in recipe.tables.items()}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_config(recipe: Recipe, out: Path, name: str) -> Path:
    """Return the data YAML of the tables in `out`, written."""
    file = out / "data.yaml"
    settings = {
        "name": name,
        "events": [str(out / "events.parquet")],
        "items": [str(out / "items.parquet")],
        **recipe.prepare,
    }
    head = f"# {recipe.page}\n#   python clue/prepare.py {file}\n"
    write_text(file, head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return file


def write_queries(queries: Mapping[str, str], folders: Sequence[Path], out: Path) -> dict[str, int]:
    """Return the rows of each query's table, written into `out`; "raw" is for the others alone.

    A query may read the tables before it. FileNotFoundError where one of the `folders` is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}; data= names the directory of the sets")
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, int] = {}
    with duckdb.connect() as db:
        for name, query in queries.items():
            db.execute(f"CREATE TABLE {name} AS {query}")
            if name != "raw":
                file = out / f"{name}.parquet"
                db.execute(f"COPY {name} TO '{file}.partial' (FORMAT parquet, COMPRESSION zstd)")
                file.with_name(f"{file.name}.partial").replace(file)
                rows[name] = db.table(name).shape[0]
    return rows


def summary(out: Path, rows: Mapping[str, int], config: Path | str) -> str:
    """Return the line that a command ends with: what it wrote, and what reads it."""
    counts = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    return f"{out}: {counts}; next: python clue/prepare.py {config}\n"


def check_names(what: str, names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise ValueError for one of `names` that is not `known`, or is named twice."""
    for number, name in enumerate(names):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"there is {near[0]}" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{what}: no {name!r} in {where}; {hint}")
        if name in names[:number]:
            raise ValueError(f"{what}: {name} is named twice; name it once")


def work_of(out: Path) -> Path:
    """Return the directory for what is unpacked and spilt; it is removed at the end."""
    return out / ".work"


def _write(db: duckdb.DuckDBPyConnection, name: str, sql: str, out: Path) -> int:
    file, partial = out / f"{name}.parquet", out / f"{name}.parquet.partial"
    # In order: joins and windows on several threads give the same rows in any order, and a set that
    # is made again must be the same file.
    ordered = f"FROM ({sql}) ORDER BY ALL"
    copy = f"COPY ({ordered}) TO {quoted(str(partial))} (FORMAT parquet, COMPRESSION zstd)"
    try:
        with _stage(f"writing {file}"):
            (rows,) = db.execute(copy).fetchall()[0]
    except duckdb.Error as error:
        raise ValueError(
            f"{file} cannot be made: {error}\nif a file in {out / 'raw'} is broken, delete it and "
            "run again"
        ) from None
    sync(partial)
    partial.replace(file)
    sync(out)
    return int(rows)


def _unpack(archive: Path, members: Sequence[str], into: Path) -> None:
    """Write the members of these names, wherever in the archive they lie, into `into`."""
    into.mkdir()
    wanted = set(members)
    try:
        for name, opened in _members(archive, wanted):
            if name not in wanted:
                raise ValueError(f"{archive} holds {name} twice; it is not the publisher's file")
            wanted.remove(name)
            with (into / name).open("wb") as file:
                shutil.copyfileobj(opened, file, 1 << 20)
    except UNREADABLE as error:
        raise ValueError(f"{archive} is broken: {error}; delete it and run again") from None
    if wanted:
        raise ValueError(f"{archive} holds no {sorted(wanted)[0]}; it is not the publisher's file")


def _members(archive: Path, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    names = set(names)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                name = Path(entry.filename).name
                if name in names and not entry.is_dir() and "__MACOSX" not in entry.filename:
                    with opened.open(entry) as member:
                        yield name, member
        return
    with tarfile.open(archive, "r|gz") as stream:  # one pass: it cannot go back in gzip
        for info in stream:
            member = stream.extractfile(info) if Path(info.name).name in names else None
            if member is not None:
                yield Path(info.name).name, member


@contextmanager
def _stage(name: str) -> Generator[None]:
    start = time.perf_counter()
    yield
    sys.stderr.write(f"{name}: {time.perf_counter() - start:.1f} s\n")
