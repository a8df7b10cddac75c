"""Small corpora whose truth is known, and models that know it, for the tests of the tasks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig, SplitConfig
from clue.prepare import prepare

Event = tuple[str, str, str]  # user, service, item; the time is the place in the list


def corpus_of(
    directory: Path,
    events: Sequence[Event],
    split: dict[str, str],
    times: Sequence[float] | None = None,
) -> Corpus:
    """The corpus of `events`, an item's text being its id; `split` names each user's part.

    `times` are those of the events where their place in the list is none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    users, services, items = zip(*events, strict=True)
    columns = {
        "user_id": list(users),
        "service": list(services),
        "item_id": list(items),
        "timestamp": list(times or range(len(events))),
        "text": [item.replace("_", " ") for item in items],
        "part": [split[user] for user in users],
    }
    pq.write_table(pa.table(columns), directory / "events.parquet")
    config = PrepareConfig(
        name="world",
        out=directory / "corpus",
        events=[str(directory / "events.parquet")],
        split=SplitConfig(column="part", train=["train"], valid=["valid"], test=["test"]),
    )
    return Corpus.open(prepare(config, progress=False))


def parts(count: int, *, train: float = 0.5, valid: float = 0.25) -> dict[str, str]:
    """Users u000 … with the first share training, the next valid, the rest test."""
    names = [f"u{number:03}" for number in range(count)]
    ends = int(count * train), int(count * (train + valid))
    return {
        name: "train" if place < ends[0] else "valid" if place < ends[1] else "test"
        for place, name in enumerate(names)
    }


def taste_events(split: dict[str, str], rng: np.random.Generator) -> list[Event]:
    """Every user has one of twelve tastes and meets items of that taste in two services.

    The services share no word; only the tastes of the users tie them together.
    """
    events: list[Event] = []
    for user in split:
        taste = rng.integers(12)
        for service, word in (("food", "bite"), ("tools", "gear")):
            for number in rng.integers(0, 5, 6):
                events.append((user, service, f"{word}{taste}_{word}x{number}"))
    return events


def one_hot(numbers: Sequence[int]) -> np.ndarray:
    return np.eye(max(numbers) + 1)[np.asarray(numbers)]
