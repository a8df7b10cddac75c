"""The bare encoder, in a process of its own on the server's core: what HTTP cannot be faster than.

It is the engine's own function on the queries that the routes make of the same bodies.
"""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serving.contents import Contents
from serving.engine import Answer, Engine, Query
from serving.generation import current, read
from serving.loading import load_engine
from serving.queries import embed_query
from serving.schemas import EmbedRequest
from serving.settings import Settings

# A user's events as a body holds them.
Events = list[dict[str, Any]]

_begun: list[Engine] = []


def users_of(index: Path, count: int, *, events: int, seed: int = 0) -> list[Events]:
    """Return indexed users drawn at random: their newest `events`, as texts or ids of the items.

    There are fewer than `count` where the index has fewer.
    """
    contents = read(index, current(index))[1]
    return [_events(contents, int(row), events) for row in drawn(contents, count, seed)]


def drawn(contents: Contents, count: int, seed: int) -> np.ndarray:
    """Return the rows of users drawn at random, of those who have seen something."""
    rows = np.flatnonzero(np.diff(contents.seen_offsets))
    return np.random.default_rng(seed).permutation(rows)[:count]


def _events(contents: Contents, row: int, events: int) -> Events:
    start, stop = contents.seen_offsets[row : row + 2].tolist()
    seen = contents.seen_values[max(start, stop - events) : stop].tolist()
    return [
        {
            "service": contents.services[int(contents.item_service[item])],
            "text": contents.item_texts[item].as_py(),
        }
        for item in seen
    ]


def begin(checkpoint: Path, index: Path) -> None:
    """Load what the server has loaded too; for a process of its own."""
    torch.set_num_threads(1)
    settings = Settings(checkpoint=checkpoint, index=index)
    engine = load_engine(settings, current(index), None)
    if engine.encoder.reads != "text":
        raise ValueError("the load is of texts; give a model that reads them")
    _begun[:] = [engine]


def vectors(batches: Sequence[Sequence[Events]]) -> list[np.ndarray]:
    """Return the vectors (n, E) of the users of each batch."""
    return [_answer(query) for query in _queries(batches)]


def rate(batches: Sequence[Sequence[Events]], seconds: float) -> tuple[float, float]:
    """Return the users a second of encoding the batches in turn for so long.

    And the processor's milliseconds for each, which a busy machine changes less.
    """
    queries = _queries(batches)
    for query in queries[:3]:
        _answer(query)
    users, began, used = 0, time.perf_counter(), time.process_time()
    for query in itertools.cycle(queries):
        users += len(_answer(query))
        if time.perf_counter() - began > seconds:
            break
    processor_ms = 1000 * (time.process_time() - used) / users
    return users / (time.perf_counter() - began), processor_ms


def _queries(batches: Sequence[Sequence[Events]]) -> list[Query]:
    engine = _begun[0]
    bodies = [{"users": [{"events": events} for events in batch]} for batch in batches]
    settings = Settings.model_construct(max_users=10**6, max_events=10**6, max_text_bytes=10**6)
    return [
        embed_query(EmbedRequest.model_validate(body), engine.encoder, settings) for body in bodies
    ]


def _answer(query: Query) -> np.ndarray:
    (answer,) = _begun[0].run([query])
    if not isinstance(answer, Answer):
        raise answer
    return answer.vectors
