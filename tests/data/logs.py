"""Small logs for the tests of the data part, and the corpus made of them."""

import csv
import gzip
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue.config import load
from clue.data.corpus import Corpus
from clue.prepare import PrepareConfig, prepare

Row = Mapping[str, Any]

EVENTS: list[Row] = [
    {"user_id": 2, "service": "shop", "item_id": "a", "timestamp": 30, "text": "cast iron skillet"},
    {"user_id": 10, "service": "shop", "item_id": "b", "timestamp": 20, "text": "blue silk scarf"},
    {"user_id": 2, "service": "shop", "item_id": "b", "timestamp": 10, "text": "blue silk scarf"},
    {"user_id": 2, "service": "news", "item_id": "a", "timestamp": 5, "text": "braised recipes"},
    {"user_id": 10, "service": "shop", "item_id": "c", "timestamp": 20, "text": "walnut chair"},
    {"user_id": 3, "service": "news", "item_id": "a", "timestamp": 7, "text": "braised recipes"},
]


def write_log(file: Path, rows: Sequence[Row]) -> Path:
    """Write rows in the format of the file's suffix; None is an empty field or JSON null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)
        return file
    if ".csv" in file.suffixes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        written = text.getvalue()
    else:
        written = "".join(json.dumps(dict(row)) + "\n" for row in rows)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(written.encode(), mtime=0))
    else:
        file.write_text(written, encoding="utf-8", newline="")
    return file


def chains(users: int, draw: np.random.Generator, *, shuffled: bool) -> list[Row]:
    """Return 12 events of each user: item i is followed by 7 i + 3 mod 31, or by any of the 31.

    Whoever knows the chain is certain of every next item.
    """
    rows: list[Row] = []
    for user in range(users):
        item = int(draw.integers(31))
        for time in range(12):
            shown = int(draw.integers(31)) if shuffled else item
            rows.append(
                {
                    "user_id": f"u{user}",
                    "service": "shop",
                    "item_id": f"i{shown}",
                    "timestamp": time,
                    "text": f"item {shown}",
                }
            )
            item = (7 * item + 3) % 31
    return rows


def hours(users: int, draw: np.random.Generator, *, shuffled: bool) -> list[Row]:
    """Return 12 events of each user, at six or at eighteen o'clock of one day after the other.

    Item i is followed by 7 i + 3 mod 31 after a morning and by 5 i + 1 mod 31 after an evening; of
    shuffled hours nothing follows: whoever knows both chains is left with a coin.
    """
    rows: list[Row] = []
    for user in range(users):
        item = int(draw.integers(31))
        for day in range(12):
            evening = bool(draw.integers(2))
            shown = bool(draw.integers(2)) if shuffled else evening
            rows.append(
                {
                    "user_id": f"u{user}",
                    "service": "shop",
                    "item_id": f"i{item}",
                    "timestamp": 1_700_006_400 + 86_400 * day + 3_600 * (18 if shown else 6),
                    "text": f"item {item}",
                }
            )
            item = (5 * item + 1 if evening else 7 * item + 3) % 31
    return rows


def config(out: Path, *overrides: str) -> PrepareConfig:
    """Return a data config with a small tokenizer, writing to `out`."""
    common = ["name=test", f"out={out}", "tokenizer.vocab_size=300"]
    return load(PrepareConfig, None, [*common, *overrides])


def corpus_of(out: Path, *overrides: str) -> Corpus:
    """Prepare a corpus and open it."""
    return Corpus.open(prepare(config(out, *overrides), progress=False))


def histories(corpus: Corpus) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """Return (user, service) -> [(item, time)], read the slow way; no empty histories."""
    users, items = corpus.user_ids.to_pylist(), corpus.item_ids.to_pylist()
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for number, service in enumerate(corpus.services):
        rows, times = corpus.items_of(number), corpus.timestamps_of(number)
        for user in range(corpus.num_users):
            events = zip(rows[user].tolist(), times[user].tolist(), strict=True)
            if len(rows[user]):
                found[users[user], service] = [(items[item], time) for item, time in events]
    return found


def many_events(count: int, seed: int) -> list[Row]:
    """Rows in random order, with ties in time, of users in two services."""
    rng = random.Random(seed)
    return [
        {
            "user_id": rng.randrange(200),
            "service": rng.choice(["shop", "news"]),
            "item_id": f"i{rng.randrange(40)}",
            "timestamp": rng.randrange(30),
        }
        for _ in range(count)
    ]


def slow_histories(rows: list[Row]) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """The reference: a stable sort of Python lists."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for row in sorted(rows, key=lambda row: row["timestamp"]):
        key = (str(row["user_id"]), row["service"])
        found.setdefault(key, []).append((row["item_id"], float(row["timestamp"])))
    return found
