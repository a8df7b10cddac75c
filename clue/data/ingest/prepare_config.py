"""The data YAML: what a corpus is made of, and how."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clue.config import PathPattern
from clue.data.ingest.staging import Columns
from clue.data.ingest.times import Unit, check_format
from clue.data.ingest.values import NULL_VALUES, quoted
from clue.data.ingest.writer import HASH
from clue.data.text import LEAST_VOCAB, read_tokenizer

MOST_DELIMITER = 4  # characters, DuckDB's limit


@dataclass(frozen=True, kw_only=True)
class ServiceText:
    """How the texts of a service's items are made; None: the text column, or else the item id."""

    template: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The shares of users, by hash of their id, held out for validation and test."""

    valid: float = 0.1
    test: float = 0.1


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """The split of the users: by the values of a column where one is named, or else by hash."""

    column: str | None = None
    train: list[str] = field(default_factory=list[str])
    valid: list[str] = field(default_factory=list[str])
    test: list[str] = field(default_factory=list[str])
    hash: Shares = field(default_factory=Shares)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A byte-level BPE learned from the items' texts, or the tokenizer in the file `path`."""

    vocab_size: int = 8192
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to read and how; the keys of a data YAML.

    `events` and `items` are paths, globs or folders of .parquet, .csv, .tsv, .jsonl, .ndjson and
    line-wise .json files (also .gz or .zst); without `items` the log itself holds the texts. A
    folder called `service=books` is a column. `service` names the one service of a log without a
    service column. Empty `services` means every service found. `out` is corpora/NAME unless set.
    Beyond `memory_limit`, DuckDB spills to disk beside `out`.

    Found from the log unless told: `time_unit`, what numbers as times are; `delimiter` of CSV.
    `time_format` is strptime's, for times in any other form than YYYY-MM-DD hh:mm:ss. An id that is
    one of `null_values` is missing.
    """

    name: str
    events: list[PathPattern]
    items: list[PathPattern] = field(default_factory=list[PathPattern])
    out: Path | None = None
    columns: Columns = field(default_factory=Columns)
    service: str | None = None
    services: dict[str, ServiceText] = field(default_factory=dict[str, ServiceText])
    ignore_services: list[str] = field(default_factory=list[str])
    split: SplitConfig = field(default_factory=SplitConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    max_item_tokens: int = 32
    time_unit: Unit | None = None
    time_format: str | None = None
    null_values: list[str] = field(default_factory=lambda: list(NULL_VALUES))
    delimiter: str | None = None
    on_bad_row: Literal["error", "drop"] = "error"
    overwrite: bool = False
    memory_limit: str = "2GB"
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
    if config.max_item_tokens < 1:
        raise ValueError(f"max_item_tokens={config.max_item_tokens} must be at least 1")
    both = set(config.services) & set(config.ignore_services)
    if both:
        raise ValueError(f"{sorted(both)[0]!r} is in both services and ignore_services; choose")
    if not config.name or Path(config.name).name != config.name:
        raise ValueError(f"name={config.name!r} must be a plain name; the place goes into out")


def _check_reading(config: PrepareConfig) -> None:
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
