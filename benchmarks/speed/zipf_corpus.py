"""A corpus with nothing to learn and a known shape: Zipf catalogue, lognormal text lengths.

Two services, in each of which every user has a history; `PairSampler` draws from it what it draws
from any corpus, and the rivals' arms read the same batches.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from clue.data.columns import history_file, ragged_column, write_columns
from clue.data.corpus import Corpus, Manifest, building, seal
from clue.data.ragged import Ragged
from clue.data.views import ViewsConfig

SERVICES = ("first", "second")


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Items are drawn with probability 1 / rank; texts have exp(normal(ln 12, .55)) tokens.

    Histories have `least_items` .. `items` events, every length as likely. Where `unique`, no item
    comes twice and every text has `tokens` tokens: nothing to save by de-duplication or packing.
    """

    users: int = 2048
    items: int = 32
    least_items: int = 1
    catalogue: int = 50_000
    vocabulary: int = 8192
    max_tokens: int = 64
    unique: bool = False
    tokens: int = 16

    def __post_init__(self) -> None:
        """Refuse histories that no length fits."""
        if not 1 <= self.least_items <= self.items:
            raise ValueError(f"least_items {self.least_items} must lie in 1 .. items {self.items}")


def open_world(config: WorldConfig, home: Path) -> Corpus:
    """Return the corpus of `config`, which is written below `home` where it is missing."""
    folder = home / "-".join(str(value) for value in asdict(config).values())
    if not (folder / "manifest.json").is_file():
        with building(folder, replace=True) as scratch:
            _write(config, scratch / "corpus")
    return Corpus.open(folder)


def views(config: WorldConfig) -> ViewsConfig:
    """Return the views that are the whole histories of the two services."""
    return ViewsConfig(cross_service=1.0, past_future=0.0, slices=0.0, max_events=config.items)


def _write(config: WorldConfig, path: Path) -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(config.least_items, config.items + 1, (len(SERVICES), config.users))
    counts = lengths.sum(1).tolist()
    catalogue = sum(counts) if config.unique else config.catalogue
    if config.unique:
        texts = np.full(catalogue, config.tokens)
        drawn = draw.permutation(catalogue)
    else:
        texts = np.exp(draw.normal(np.log(12), 0.55, catalogue)).round()
        texts = texts.clip(1, config.max_tokens).astype(np.int64)
        chances = np.cumsum(1 / np.arange(1, catalogue + 1))
        ranks = np.searchsorted(chances, draw.random(sum(counts)) * chances[-1])
        drawn = draw.permutation(catalogue)[ranks]  # length says nothing about popularity
    tokens = draw.integers(1, config.vocabulary, int(texts.sum())).astype(np.int32)
    users = {
        "user_id": pa.array([f"u{user:08d}" for user in range(config.users)]),
        "split": pa.array(np.zeros(config.users, np.uint8)),
    }
    write_columns(path / "users.arrow", users)
    items = {
        "item_id": pa.array([f"i{item}" for item in range(catalogue)]),
        "service": pa.array(np.zeros(catalogue, np.uint8)),
        "text": pa.array([""] * catalogue),
        "tokens": ragged_column(_ragged(tokens, texts)),
        "content": pa.array(np.arange(catalogue)),
    }
    write_columns(path / "items.arrow", items)
    events = np.split(drawn.astype(np.int32), counts[:1])
    for service, chosen, sizes in zip(SERVICES, events, lengths, strict=True):
        times = np.sort(draw.random(len(chosen))) * 1e7
        values = {"items": chosen, "timestamps": times}
        columns = {name: ragged_column(_ragged(flat, sizes)) for name, flat in values.items()}
        write_columns(history_file(path, service), columns)
    (path / "tokenizer.json").write_text("{}", encoding="utf-8")
    manifest = Manifest(
        name="speed",
        services=list(SERVICES),
        num_users=config.users,
        num_items=catalogue,
        num_events=dict(zip(SERVICES, counts, strict=True)),
        clocks=dict.fromkeys(SERVICES, False),
        num_tokens=len(tokens),
        split={"train": config.users, "valid": 0, "test": 0},
        max_item_tokens=int(texts.max()),
        vocab_size=config.vocabulary,
        seed=0,
    )
    seal(path, manifest)


def _ragged(values: np.ndarray, lengths: np.ndarray) -> Ragged:
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
