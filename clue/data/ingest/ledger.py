"""Which files are staged: what a killed run leaves for the next, what a later one adds to.

The staged rows of a corpus lie in a folder beside it, `.NAME.staged`, known by what they were read
from and how (`key`). A run that is killed leaves them, and the next with the same key goes on; of
one that ends they are removed, unless files are to be added later (`append`).
"""

import json
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb

from clue.atomic import sha256, write_text
from clue.data.ingest.files import LogFile
from clue.data.ingest.validation import ROWS_PER_FILE, Log
from clue.data.ingest.writer import connect

KEY = "key"  # the file of it in the folder
TOKENIZER = "tokenizer.json"
REMOVED_WITHIN = 10.0  # seconds that a folder's removal is tried again for
HASHED_WHOLE = 1 << 30  # bytes; larger source files are known by size and time of change
Source = dict[str, Any]  # a file's path and what it is known by


@dataclass(frozen=True)
class Key:
    """A hash of what rows are read from and how; where files are added later, of how alone."""

    digest: str
    appends: bool


@dataclass
class Ledger:
    """The staged rows of a corpus: `db`, its `folder`, and the files admitted by this run."""

    folder: Path
    db: duckdb.DuckDBPyConnection
    admitted: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    @property
    def tokenizer(self) -> Path:
        """Where the tokenizer stands from its first use on."""
        return self.folder / TOKENIZER

    def num_events(self) -> int:
        """Return how many events are staged, bad ones among them."""
        ((count,),) = self.db.execute("SELECT count(*) FROM staged").fetchall()
        return count

    def admit(
        self, logs: tuple[Log, Log | None], sources: Mapping[str, Sequence[Source]]
    ) -> tuple[tuple[Log, Log | None], dict[str, list[Source]]]:
        """Return the logs of all files there are, those to skip marked, and what all are known by.

        Files that are staged keep their numbers and need not be named again; a new one gets the
        next. `sources` are those of each log's files. Raises ValueError for a file that was staged
        with other content.
        """
        events, items = logs
        events, known = self._admit(events, sources["events"])
        if items is None:
            return (events, None), {"events": known}
        items, known_items = self._admit(items, sources["items"])
        return (events, items), {"events": known, "items": known_items}

    def _admit(self, log: Log, sources: Sequence[Source]) -> tuple[Log, list[Source]]:
        known = dict(
            self.db.execute(
                "SELECT name, [number::VARCHAR, source, complete::VARCHAR] FROM sources "
                "WHERE log = ?",
                [log.table],
            ).fetchall()
        )
        given = {str(file): file for file in log.files}
        for name, (number, _, complete) in known.items():
            if complete == "false" and name not in given:  # of a run that was killed
                self._withdraw(log.table, int(number))
        known = {name: row for name, row in known.items() if row[2] == "true" or name in given}
        numbers = {name: int(row[0]) for name, row in known.items()}
        for (name, _), source in zip(given.items(), sources, strict=True):
            text = json.dumps(source)
            if name in known and known[name][1] != text:
                raise ValueError(
                    f"{name} is another file than when its rows were added; append= adds files and "
                    "changes none: give the new rows as a file of their own, or prepare anew"
                )
            if name not in known:
                numbers[name] = max(numbers.values(), default=-1) + 1
                self.db.execute(
                    "INSERT INTO sources VALUES (?, ?, ?, ?, false)",
                    [log.table, numbers[name], name, text],
                )
            if name not in known or known[name][2] == "false":
                self.admitted.append((log.table, numbers[name]))
        return self._whole(log, numbers, given)

    def _whole(
        self, log: Log, numbers: dict[str, int], given: dict[str, LogFile]
    ) -> tuple[Log, list[Source]]:
        names = {number: name for name, number in numbers.items()}
        files = [
            given.get(
                names.get(number, ""), LogFile(Path(names.get(number, "")), "parquet", "none")
            )
            for number in range(max(names) + 1)
        ]
        reads = {number for table, number in self.admitted if table == log.table}
        skipped = frozenset(range(len(files))) - reads
        rows = self.db.execute(
            "SELECT source FROM sources WHERE log = ? ORDER BY number", [log.table]
        ).fetchall()
        return replace(log, files=files, skipped=skipped), [json.loads(text) for (text,) in rows]

    def settle(self) -> None:
        """Note that the rows of all admitted files are good and stay."""
        self.db.execute("UPDATE sources SET complete = true WHERE NOT complete")
        self.admitted.clear()

    def withdraw(self) -> None:
        """Remove the rows of the files that this run admitted."""
        for table, number in self.admitted:
            self._withdraw(table, number)

    def _withdraw(self, table: str, number: int) -> None:
        rows = "staged" if table == "events" else "claims"
        self.db.execute("BEGIN")
        self.db.execute(f"DELETE FROM {rows} WHERE seq // {ROWS_PER_FILE} = ?", [number])
        if table == "events":
            self.db.execute("DELETE FROM times WHERE file = ?", [number])
        for name in ("finished", "rejected"):
            self.db.execute(f"DELETE FROM {name} WHERE log = ? AND file = ?", [table, number])
        self.db.execute("DELETE FROM sources WHERE log = ? AND number = ?", [table, number])
        self.db.execute("COMMIT")


def identify(log: Log) -> list[Source]:
    """Return what the files of a log are known by."""
    sources: list[Source] = []
    for file in log.files:
        stat = file.path.stat()
        if stat.st_size > HASHED_WHOLE:
            known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        else:
            known = {"sha256": sha256(file.path)}
        sources.append({"path": str(file), **known})
    return sources


def ledger_folder(corpus: Path) -> Path:
    """Return where the staged rows of a corpus lie."""
    return corpus.with_name(f".{corpus.name}.staged")


@contextmanager
def open_ledger(folder: Path, key: Key, memory_limit: str, *, replace: bool) -> Generator[Ledger]:
    """Yield the rows staged in `folder` for `key`; none yet where they were staged for another.

    Rows that files are added to stay; a block that raises takes back what it admitted. Raises
    ValueError where such rows were staged for another key, unless they are to be replaced.
    """
    staged = _key(folder)
    if staged != key:
        if staged.appends and not replace:
            raise ValueError(
                f"{folder} keeps rows that files are added to, read with other settings; give "
                "those, with append=true, or remove the folder and prepare anew"
            )
        _remove(folder)
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "spill", ignore_errors=True)
    write_text(folder / KEY, f"{'append' if key.appends else 'once'} {key.digest}")
    with closing(connect(folder, memory_limit)) as db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS sources "
            "(log VARCHAR, number BIGINT, name VARCHAR, source VARCHAR, complete BOOLEAN)"
        )
        ledger = Ledger(folder, db)
        try:
            yield ledger
        except Exception:
            if key.appends:
                ledger.withdraw()
            else:
                _remove(folder)
            raise
    if not key.appends:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, renamed first: what a killed run has started may yet write into its name."""
    gone = folder.with_name(f"{folder.name}.removed")
    _remove_beside_others(gone)
    if folder.exists():
        folder.rename(gone)
        _remove_beside_others(gone)


def _remove_beside_others(folder: Path) -> None:
    """Remove a folder in which others may remove and add files meanwhile.

    They are the JVM of a killed run, which takes seconds to end and clears its own files. Raises
    OSError where something still hinders after REMOVED_WITHIN seconds.
    """
    end = time.monotonic() + REMOVED_WITHIN
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)


def _key(folder: Path) -> Key:
    file = folder / KEY
    how, _, digest = (file.read_text(encoding="utf-8") if file.is_file() else "").partition(" ")
    return Key(digest, how == "append")
