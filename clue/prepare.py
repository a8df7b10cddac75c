"""Command: raw behaviour logs -> corpus. `python clue/prepare.py configs/prepare/synthetic.yaml`.

Read top to bottom: files are found and checked, rows are judged, the catalogue and the users are
numbered, the tokenizer is learned, and the corpus is written and renamed into place.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from secrets import token_hex

import duckdb
from tokenizers import Tokenizer

from clue.atomic import sha256, write_text
from clue.config import run_command
from clue.data.cache import MANIFEST
from clue.data.columns import history_file
from clue.data.corpus import FORMAT, SPLITS, Manifest, building, seal
from clue.data.fields import MOST_VALUES, Field
from clue.data.history_shards import Sharded, cut
from clue.data.ingest import validation, writer
from clue.data.ingest.ledger import Key, Ledger, Source, identify, ledger_folder, open_ledger
from clue.data.ingest.prepare_config import (
    PrepareConfig,
    TokenizerConfig,
    check_values,
    fields_of,
    layout_of,
    open_logs,
    split_sql,
)
from clue.data.ingest.progress import Progress
from clue.data.ingest.readers import delimiter_of
from clue.data.ingest.staged import (
    Reading,
    counted_sql,
    counted_times,
    create_staged,
    good_services,
    judge_times,
    stage_log,
)
from clue.data.ingest.staging import Layout
from clue.data.ingest.times import settle
from clue.data.store import path_of, url_of
from clue.data.text import learn_tokenizer, read_tokenizer
from clue.data.upload import outbox, read_small, upload

HELP = """Make a corpus out of behaviour logs.

    clue prepare configs/prepare/synthetic.yaml
    clue prepare name=mine events='[logs/*.parquet]' columns.user_id=customer
    clue prepare shop.csv service=shop

A log has one row per event: user, service, item, time; a text, or an `items` table that has it."""


def prepare(config: PrepareConfig, progress: bool = True) -> Path:
    """Return the directory of the corpus made from the logs that `config` names.

    Does nothing where that very corpus is there already. Raises FileNotFoundError or ValueError,
    with the next step, for missing files, wrong columns, bad rows (file, row and value), or an
    `out` that holds something else; nothing is written then.
    """
    show = Progress(progress)
    out = config.out or Path("corpora") / config.name
    url = url_of(out)
    out = out if url else path_of(out)
    here = out if url is None else outbox(url, config.cache)
    folder = ledger_folder(here)
    check_values(config)
    event_log, item_log = open_logs(config)
    layout = layout_of(config, event_log, item_log)
    with show.stage("hashing the sources"):
        sources = {log.table: identify(log) for log in (event_log, item_log) if log}
    inputs = _digest(config, layout, sources)
    if _is_there(out, inputs, config):
        show.line(f"{url or out} is already there, made from the same logs with the same settings")
        return out
    _show_delimiters(event_log, show)
    key = Key(_digest(config, layout, {}) if config.append else inputs, config.append)
    if config.engine == "spark":
        key = Key(token_hex(), appends=False)  # its rows do not outlive a run
    with (
        building(here, replace=config.overwrite or config.append or url is not None) as scratch,
        open_ledger(folder, key, config.memory_limit, replace=config.overwrite) as ledger,
    ):
        logs, sources = ledger.admit((event_log, item_log), sources)
        read = _read_on_spark if config.engine == "spark" else _read
        rows = read(ledger.db, logs, layout, config, show)
        ledger.settle()
        if not config.compact:
            shutil.rmtree(scratch / "corpus")
            show.line(f"{folder}: {ledger.num_events():,} events are staged; {out} is as it was")
            return out
        _number(ledger.db, config, rows, show)
        manifest = dataclasses.replace(
            _write(ledger, scratch, rows, config, show),
            dropped_rows=rows.dropped,
            source=[source for table in ("events", "items") for source in sources.get(table, [])],
            inputs=_digest(config, layout, sources),
            templates={s: (layout.templates or {}).get(s, layout.template) for s in rows.clocks},
        )
        with show.stage("sealing"):
            sharded = rows.histories if isinstance(rows.histories, Sharded) else None
            seal(scratch / "corpus", manifest, sharded)
            if config.shards > 1 and sharded is None:
                cut(scratch / "corpus", config.shards)
    if url is not None:
        with show.stage(f"uploading to {url}"):
            upload(here, url, config.cache)
        shutil.rmtree(here)
    show.line(
        f"{url or out}: {manifest.num_users:,} users, {manifest.num_items:,} items, "
        f"{sum(manifest.num_events.values()):,} events of {', '.join(rows.clocks)}"
    )
    return out


def _show_delimiters(log: validation.Log, show: Progress) -> None:
    for file in log.files:
        if file.format == "csv" and file.delimiter is None and delimiter_of(file) != ",":
            show.line(f"{file}: values are parted by {delimiter_of(file)!r}; delimiter= says other")


def _digest(config: PrepareConfig, layout: Layout, sources: Mapping[str, Sequence[Source]]) -> str:
    """Return a hash of all that decides what the corpus will hold."""
    # Which change nothing of that, or stand in `sources` and in `layout`.
    how = ("events", "items", "out", "overwrite", "memory_limit", "cache", "engine", "spark")
    how += ("append", "compact")
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in how}
    read = [layout.template, layout.templates, bool(config.items)]
    path = config.tokenizer.path
    parts = [settings, read, sources, sha256(path) if path and path.is_file() else ""]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _is_there(out: Path, inputs: str, config: PrepareConfig) -> bool:
    """Return whether `out` is the corpus asked for; ValueError where it must not be replaced."""
    url, overwrite = url_of(out), config.overwrite or not config.compact
    if url is None and not out.exists():
        return False
    if url is None and not (out / MANIFEST).is_file():
        raise ValueError(f"{out} is there and is no corpus; give another out=")
    if not overwrite:
        try:
            there = json.loads(read_small(out, MANIFEST, config.cache))
            same = (there.get("inputs"), there.get("format")) == (inputs, FORMAT)
        except FileNotFoundError:
            return False
        except (AttributeError, ValueError):
            same = False
        if config.append and not same and ledger_folder(out).exists():
            return False
        if not same:
            raise ValueError(
                f"{url or out} holds a corpus of other logs or settings; "
                "give overwrite=true to replace it, or another out="
            )
    return not overwrite


def _read(
    db: duckdb.DuckDBPyConnection,
    logs: tuple[validation.Log, validation.Log | None],
    layout: Layout,
    config: PrepareConfig,
    show: Progress,
) -> writer.Rows:
    """Fill the tables of good rows; ValueError for bad ones that are not to be dropped."""
    event_log, item_log = logs
    reading = Reading(layout, with_text=item_log is None, unit=config.time_unit)
    create_staged(db, reading)
    for log in (item_log, event_log):
        if log:
            stage_log(db, log, reading, show)
    settled = settle(counted_times(db, config.time_unit), event_log, config.time_unit)
    judge_times(db, settled)
    show.line(settled.line)
    with show.stage("checking rows"):
        validation.find_conflicting_users(db, split=layout.split is not None)
        validation.build_catalogue(db, from_items=item_log is not None)
        present = [event_log, item_log] if item_log else [event_log]
        bad = validation.bad_rows(db, present)
        conflicts = validation.conflicting_texts(db, item_log or event_log)
    dropped = validation.refuse_or_drop(
        bad, conflicts, of_items=item_log is not None, on_bad_row=config.on_bad_row, show=show
    )
    services = validation.services_of(good_services(db), layout.templates)
    clocks = {name: settled.clocks[name] for name in services}
    return writer.Rows(dropped, clocks, counted_sql(layout), partial(writer.read_histories, db))


def _read_on_spark(
    db: duckdb.DuckDBPyConnection,
    logs: tuple[validation.Log, validation.Log | None],
    layout: Layout,
    config: PrepareConfig,
    show: Progress,
) -> writer.Rows:
    """Do what `_read` does, and the sorting, on Spark; ValueError where it is not installed."""
    try:
        from clue.data.ingest.spark.engine import read
    except ImportError:
        raise ValueError(
            "engine=spark needs a package that is not installed; pip install 'clue-users[spark]'"
        ) from None
    return read(db, logs, layout, config, show)


def _number(
    db: duckdb.DuckDBPyConnection, config: PrepareConfig, rows: writer.Rows, show: Progress
) -> None:
    """Give users and items numbers."""
    with show.stage("numbering users and items"):
        writer.number_users(db, split_sql(config), rows.counted)
        outsized = writer.outsized_user(db)
        writer.number_items(db, list(rows.clocks))
    if outsized:
        show.line(outsized)


def _tokenizer(ledger: Ledger, config: TokenizerConfig, show: Progress) -> Tokenizer:
    """Return the tokenizer to use, which stands in the ledger from then on."""
    if ledger.tokenizer.is_file():
        return read_tokenizer(ledger.tokenizer)
    if config.path:
        read_tokenizer(config.path)
        write_text(ledger.tokenizer, config.path.read_text(encoding="utf-8"))
        return read_tokenizer(config.path)
    with show.stage("learning the tokenizer"):
        tokenizer = learn_tokenizer(writer.distinct_texts(ledger.db), config.vocab_size)
        write_text(ledger.tokenizer, tokenizer.to_str(pretty=True))
    return tokenizer


def _write(
    ledger: Ledger,
    scratch: Path,
    rows: writer.Rows,
    config: PrepareConfig,
    show: Progress,
) -> Manifest:
    """Write everything but the manifest into `scratch/corpus`; return what it holds."""
    db, corpus = ledger.db, scratch / "corpus"
    tokenizer = _tokenizer(ledger, config.tokenizer, show)
    shutil.copyfile(ledger.tokenizer, corpus / "tokenizer.json")
    users = writer.write_users(db, corpus / "users.arrow")
    with show.stage("encoding items") as seen:
        items, tokens = writer.write_items(
            db, corpus / "items.arrow", tokenizer, config.max_item_tokens, seen
        )
    events, fields = _write_histories(db, scratch, rows, config, show)
    return Manifest(
        name=config.name,
        services=list(rows.clocks),
        num_users=int(users.sum()),
        num_items=items,
        num_events=events,
        clocks=rows.clocks,
        fields={service: its_fields for service, its_fields in fields.items() if its_fields},
        num_tokens=tokens,
        split={name: int(count) for name, count in zip(SPLITS, users, strict=True)},
        max_item_tokens=config.max_item_tokens,
        vocab_size=tokenizer.get_vocab_size(),
        seed=config.seed,
    )


def _write_histories(
    db: duckdb.DuckDBPyConnection,
    scratch: Path,
    rows: writer.Rows,
    config: PrepareConfig,
    show: Progress,
) -> tuple[dict[str, int], dict[str, list[Field]]]:
    """Write the histories into `scratch/corpus`; return the events and fields of each service."""
    corpus, histories = scratch / "corpus", rows.histories
    events: dict[str, int] = {}
    fields: dict[str, list[Field]] = {}
    if isinstance(histories, Sharded):
        histories.move_into(corpus)
        events, fields = histories.events, histories.fields
    for service in rows.clocks:
        if not isinstance(histories, Sharded):
            own = fields_of(config, service)
            with show.stage(f"writing histories of {service}") as seen:
                file = history_file(corpus, service)
                events[service], fields[service] = writer.write_histories(
                    db, histories(service, own), file, scratch, seen
                )
        for field in fields[service]:
            if len(field.values) == MOST_VALUES:
                show.line(
                    f"{service}: of the categories of {field.name} the {MOST_VALUES:,} most "
                    'frequent are kept, the rest are "other"'
                )
    return events, fields


def with_logs_as_keys(argv: Sequence[str]) -> list[str]:
    """Return a command line whose leading log files are written as `events=`, with their `name=`.

    The name is that of the first file, unless it is a pattern: `logs/shop.csv.gz` is "shop".
    """
    yaml = (".yaml", ".yml")
    files = list(takewhile(lambda a: not re.search(r"=|^-", a) and not a.endswith(yaml), argv))
    if not files:
        return list(argv)
    stem = Path(files[0]).name.split(".")[0]
    name = [f"name={stem}"] if re.fullmatch(r"[\w-]+", stem) else []
    return [*name, f"events={json.dumps(files)}", *argv[len(files) :]]


def main() -> None:
    """Run the command line."""
    argv = with_logs_as_keys(sys.argv[1:])
    run_command(PrepareConfig, prepare, argv, description=HELP, also=(duckdb.Error,))


if __name__ == "__main__":
    main()
