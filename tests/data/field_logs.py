"""Small logs whose events have fields, and how a corpus has them."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clue.data.corpus import Corpus
from tests.data.logs import Row, corpus_of, write_log

FIELDS = "fields={price: numeric, channel: categorical, gift: boolean}"


def with_fields(rows: Sequence[Row], seed: int) -> list[Row]:
    """Rows with a price, a channel and a flag, each missing at times."""
    rng = random.Random(seed)
    return [
        {
            **row,
            "price": rng.choice([None, 0.0, 0.25 * rng.randrange(400)]),
            "channel": rng.choice([None, "web", "web", "app", "shop"]),
            "gift": rng.choice([None, True, False, False]),
        }
        for row in rows
    ]


def slow_field_values(rows: Sequence[Row], name: str) -> dict[tuple[str, str], list[Any]]:
    """The reference: a field's values by user and service, by a stable sort of Python lists."""
    values: dict[tuple[str, str], list[Any]] = {}
    for row in sorted(rows, key=lambda row: row["timestamp"]):
        values.setdefault((str(row["user_id"]), row["service"]), []).append(row[name])
    return values


def field_values(corpus: Corpus, name: str) -> dict[tuple[str, str], list[Any]]:
    """A field's values as the corpus has them; a category is its text, None is missing."""
    values: dict[tuple[str, str], list[Any]] = {}
    for number, service in enumerate(corpus.services):
        field = next(each for each in corpus.fields_of(number) if each.name == name)
        rows = corpus.values_of(number, name)
        assert np.array_equal(rows.offsets, corpus.items_of(number).offsets)
        texts = [None, "other", *field.values]
        for user, user_id in enumerate(corpus.user_ids.to_pylist()):
            row = rows[user].tolist()
            if field.kind == "numeric":
                own = [None if value != value else value for value in row]
            else:
                own = [texts[code] for code in row]
            if own:
                values[user_id, service] = own
    return values


def as_text(values: dict[tuple[str, str], list[Any]]) -> dict[tuple[str, str], list[Any]]:
    return {
        key: [value if value is None else str(value).lower() for value in row]
        for key, row in values.items()
    }


def shop(out: Path, rows: Sequence[Row], *overrides: str, suffix: str = "csv") -> Corpus:
    """A corpus of one service; `u0` .. and the rest as the hash splits them."""
    log = write_log(out.parent / f"{out.name}.{suffix}", rows)
    return corpus_of(out, f"events=[{log}]", "service=shop", *overrides)


def cells(*values: Any, name: str = "price") -> list[Row]:
    """A row for each value, each of a user of its own, in time."""
    return [
        {"user_id": f"u{n}", "item_id": "a", "timestamp": n, name: value}
        for n, value in enumerate(values)
    ]
