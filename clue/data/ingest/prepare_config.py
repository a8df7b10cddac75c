"""The data YAML: what a corpus is made of, and how."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from clue.config import PathPattern
from clue.data.cache import CacheConfig
from clue.data.fields import Field, FieldKind
from clue.data.ingest.fields import StagedField, column_name
from clue.data.ingest.staging import Columns, Layout, any_has, check_template, open_log
from clue.data.ingest.times import Unit, check_format
from clue.data.ingest.validation import Log
from clue.data.ingest.values import NULL_VALUES, quoted
from clue.data.ingest.writer import HASH
from clue.data.text import LEAST_VOCAB, read_tokenizer

MOST_DELIMITER = 4  # characters, DuckDB's limit
# what the histories' own columns are called, and what an event has beside its fields
RESERVED = ("items", "timestamps", "service", "text", "item_id", "time", "timestamp")


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """A field of events: what it holds, and where.

    `column` has the field's name unless told. A file of the log without it has it missing in all
    its rows.
    """

    kind: FieldKind  # A number, one of a set of texts, or true or false.
    column: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        """Return `{kind: numeric}` of `numeric`, which is short for it."""
        return {"kind": value} if isinstance(value, str) else value


Source = tuple[FieldKind, str]  # the kind and the column


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What a service's items and events hold.

    `template` makes the texts of its items; without one they are the text column, or else the item
    id. `fields` are those of its events beside those of the whole log, which they replace by name;
    `price: numeric` is short for `price: {kind: numeric, column: price}`.
    """

    template: str | None = None  # Text of an item, its columns in braces: `{title} by {author}`.
    fields: dict[str, FieldConfig] = field(default_factory=dict[str, FieldConfig])


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The shares of users, by hash of their id, held out for validation and test."""

    valid: float = 0.1  # Share of users held out for validation.
    test: float = 0.1  # Share of users held out for test.


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """The split of the users: by the values of a column where one is named, or else by hash."""

    column: str | None = None  # The column whose value says a user's part.
    train: list[str] = field(default_factory=list[str])  # Values of the column that mean training.
    valid: list[str] = field(default_factory=list[str])  # Values that mean validation.
    test: list[str] = field(default_factory=list[str])  # Values of the column that mean test.
    hash: Shares = field(default_factory=Shares)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A byte-level BPE learned from the items' texts, or the tokenizer in the file `path`."""

    vocab_size: int = 8192  # Tokens V of the tokenizer that is learned.
    path: Path | None = None  # A `tokenizer.json`; none: one is learned from the items' texts.


@dataclass(frozen=True, kw_only=True)
class SparkConfig:
    """Where `engine: spark` runs, and in how many partitions it sorts."""

    master: str | None = None  # `local[4]`, `spark://…`; none: what spark-submit says, or this one.
    partitions: int | None = None  # None: one for each 128 MB of logs, one a core at least.
    writers: Literal["driver", "executors"] = "driver"  # Of histories; executors write shards.


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to read and how; the keys of a data YAML.

    `events` and `items` are paths, globs or folders of .parquet, .csv, .tsv, .jsonl, .ndjson and
    line-wise .json files (also .gz or .zst); without `items` the log itself holds the texts. A
    folder called `service=books` is a column. All may lie in a store, `s3://` or `gs://`, and so
    may `out`. `service` names the one service of a log without a
    service column. Empty `services` means every service found. `out` is corpora/NAME unless set.
    Beyond `memory_limit`, DuckDB spills to disk beside `out`; on Spark it is that of each task.

    Found from the log unless told: `time_unit`, what numbers as times are; `delimiter` of CSV.
    `time_format` is strptime's, for times in any other form than YYYY-MM-DD hh:mm:ss. An id or a
    field's value that is one of `null_values` is missing. `fields` are those of the events of every
    service: `price: numeric` is short for `price: {kind: numeric, column: price}`.
    """

    name: str  # Of the corpus, corpora/NAME.
    events: list[PathPattern]
    items: list[PathPattern] = field(default_factory=list[PathPattern])
    out: Path | None = None
    columns: Columns = field(default_factory=Columns)
    service: str | None = None
    services: dict[str, ServiceConfig] = field(default_factory=dict[str, ServiceConfig])
    fields: dict[str, FieldConfig] = field(default_factory=dict[str, FieldConfig])
    ignore_services: list[str] = field(default_factory=list[str])  # Services that are passed over.
    split: SplitConfig = field(default_factory=SplitConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    max_item_tokens: int = 32  # Tokens kept of an item's text, the first ones.
    time_unit: Unit | None = None
    time_format: str | None = None
    null_values: list[str] = field(default_factory=lambda: list(NULL_VALUES))
    delimiter: str | None = None
    on_bad_row: Literal["error", "drop"] = "error"
    overwrite: bool = False  # Whether a corpus that is there already is replaced.
    append: bool = False  # Whether rows are kept, and files added to those of earlier runs.
    compact: bool = True  # Whether the corpus is written; with `append`, rows may be added alone.
    memory_limit: str = "2GB"
    engine: Literal["duckdb", "spark"] = "duckdb"  # One machine or many; the corpus is the same.
    spark: SparkConfig = field(default_factory=SparkConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    shards: int = 1  # Files that a service's histories lie in, each of a range of users.
    seed: int = 0


def check_values(config: PrepareConfig) -> None:
    """Raise ValueError for settings that cannot be, before any log is opened."""
    split, shares = config.split, config.split.hash
    if min(shares.valid, shares.test) < 0 or shares.valid + shares.test >= 1:
        raise ValueError(
            f"split.hash: valid={shares.valid} + test={shares.test} must leave users to train on"
        )
    parts = split.train + split.valid + split.test
    if split.column and not split.train:
        raise ValueError(f"split.column={split.column!r} needs split.train, the values to train on")
    if len(set(parts)) < len(parts) or (parts and not split.column):
        raise ValueError("split: give a column, and each of its values to one of the three parts")
    if not config.events:
        raise ValueError("events names no file; give paths or globs")
    if config.tokenizer.path:
        read_tokenizer(config.tokenizer.path)
    elif config.tokenizer.vocab_size < LEAST_VOCAB:
        raise ValueError(f"tokenizer.vocab_size={config.tokenizer.vocab_size}; least {LEAST_VOCAB}")
    _check_reading(config)
    if config.shards < 1:
        raise ValueError(f"shards={config.shards} must be at least 1")
    _check_spark(config)
    if config.max_item_tokens < 1:
        raise ValueError(f"max_item_tokens={config.max_item_tokens} must be at least 1")
    _check_names(config)


def _check_spark(config: PrepareConfig) -> None:
    spark = config.spark
    if spark.partitions is not None and spark.partitions < 1:
        raise ValueError(f"spark.partitions={spark.partitions} must be at least 1")
    if spark.writers == "executors" and (config.engine != "spark" or config.shards == 1):
        raise ValueError(
            "spark.writers=executors, each of which writes shards: set engine=spark and shards=N, "
            f"not engine={config.engine} and shards={config.shards}"
        )


def _check_names(config: PrepareConfig) -> None:
    both = set(config.services) & set(config.ignore_services)
    if both:
        raise ValueError(f"{sorted(both)[0]!r} is in both services and ignore_services; choose")
    if not config.name or Path(config.name).name != config.name:
        raise ValueError(f"name={config.name!r} must be a plain name; the place goes into out")
    for where, name, _ in _declared(config):
        if name in ("", *RESERVED):
            raise ValueError(f"{where}: {name!r} cannot name a field; take another and say column:")
    for service in config.services or [""]:
        first: dict[Source, str] = {}
        for name, source in _sources(config, service).items():
            if first.setdefault(source, name) != name:
                raise ValueError(
                    f"fields {first[source]!r} and {name!r} of {service or 'the log'} are both "
                    f"column {source[1]!r}, {source[0]}; keep one"
                )


def _check_reading(config: PrepareConfig) -> None:
    if config.append and config.engine == "spark":
        raise ValueError(
            "append=true: engine=spark keeps no rows that files could be added to; add them with "
            "engine=duckdb, or name all files and prepare anew (overwrite=true)"
        )
    if config.append and config.overwrite:
        raise ValueError("append=true adds to a corpus and overwrite=true replaces it; choose")
    if not config.append and not config.compact:
        raise ValueError("compact=false writes no corpus and keeps nothing; say append=true")
    if config.time_format is not None:
        check_format(config.time_format)
    if config.delimiter is not None and not 1 <= len(config.delimiter) <= MOST_DELIMITER:
        raise ValueError(
            f"delimiter={config.delimiter!r} must be 1 to {MOST_DELIMITER} characters; without it "
            "the delimiter is found"
        )


def split_sql(config: PrepareConfig) -> str:
    """Return SQL for the split of a user (0 train, 1 valid, 2 test) over `user_id` and `part`."""
    split = config.split
    if split.column:
        cases = [
            f"WHEN {quoted(value)} THEN {number}"
            for number, values in enumerate([split.train, split.valid, split.test])
            for value in values
        ]
        return f"CASE part {' '.join(cases)} END"
    share = HASH.format(f"{quoted(f'{config.seed}:')} || user_id") + f" / {1 << 60}"
    valid, both = split.hash.valid, split.hash.valid + split.hash.test
    return f"CASE WHEN {share} < {valid} THEN 1 WHEN {share} < {both} THEN 2 ELSE 0 END"


def open_logs(config: PrepareConfig) -> tuple[Log, Log | None]:
    """Return the log of events and, where one is named, that of items, columns checked."""
    columns, delimiter = config.columns, config.delimiter
    service = {} if config.service else {"service": columns.service}
    split = {"split": config.split.column} if config.split.column else {}
    items = service | {"item_id": columns.item_id}
    events = {"user_id": columns.user_id} | items | {"timestamp": columns.timestamp} | split
    event_log = open_log("events", config.events, events, delimiter, config.cache)
    if not config.items:
        return event_log, None
    return event_log, open_log("items", config.items, items, delimiter, config.cache)


def layout_of(config: PrepareConfig, event_log: Log, item_log: Log | None) -> Layout:
    """Return how to read rows, templates and fields checked against the columns there are."""
    texts = item_log or event_log
    default = "{text}" if any_has(texts, config.columns.text) else "{item_id}"
    templates = {name: each.template or default for name, each in config.services.items()}
    for name, template in templates.items():
        check_template(f"services.{name}.template", template, config.columns, texts)
    for where, _, (_, column) in _declared(config):
        if not any_has(event_log, column):
            known = sorted({name for names in event_log.columns for name in names})
            raise ValueError(
                f"{where}: no column {column!r} in {', '.join(map(str, event_log.files))}; "
                f"there are {', '.join(known)}; say under column: what yours is called"
            )
    return Layout(
        columns=config.columns,
        service=config.service,
        templates=templates or None,
        template=default,
        ignored=config.ignore_services,
        split=config.split.column,
        parts=[*config.split.train, *config.split.valid, *config.split.test],
        fields=_staged(config),
        null_values=config.null_values,
        time_format=config.time_format,
    )


def fields_of(config: PrepareConfig, service: str) -> dict[Field, str]:
    """Return the fields of a service, nothing learnt yet, and the columns of `events` they are."""
    columns = {(each.kind, each.column): column_name(n) for n, each in enumerate(_staged(config))}
    return {
        Field(name, source[0]): columns[source]
        for name, source in _sources(config, service).items()
    }


def _declared(config: PrepareConfig) -> Iterator[tuple[str, str, Source]]:
    """Yield every field of the data YAML: the key it stands under, its name, kind and column."""
    sections = {"fields": config.fields}
    sections |= {f"services.{name}.fields": each.fields for name, each in config.services.items()}
    for section, fields in sections.items():
        for name, source in _read_as(fields).items():
            yield f"{section}.{name}", name, source


def _sources(config: PrepareConfig, service: str) -> dict[str, Source]:
    """Return the kind and the column of each field of a service, its own before the log's."""
    own = config.services[service].fields if service in config.services else {}
    return _read_as(config.fields | own)


def _read_as(fields: dict[str, FieldConfig]) -> dict[str, Source]:
    return {name: (each.kind, each.column or name) for name, each in fields.items()}


def _staged(config: PrepareConfig) -> list[StagedField]:
    """Return each column once for each kind that it is read as."""
    if not config.services:
        sources = dict.fromkeys(source for _, _, source in _declared(config))
        return [StagedField(kind, column, None) for kind, column in sources]
    services: dict[Source, list[str]] = {}
    for service in config.services:
        for source in _sources(config, service).values():
            services.setdefault(source, []).append(service)
    return [StagedField(*source, tuple(names)) for source, names in services.items()]
