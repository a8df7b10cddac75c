"""Base generation + store -> the next generation: nobody dead in it, everybody written part of it.

    python -m serving.rebuild index=indexes/demo store=stores/demo base=000001-0123456789ab \
        similarity='[0,24]' ranking='[0,24]'

The service runs this beside itself when much has changed. Nothing is encoded: the vectors are those
in the store. A process of its own takes neither the service's interpreter nor, later, its memory.
"""

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from clue.config import run_command
from serving import rows
from serving.contents import Contents, check
from serving.filters import Filters
from serving.generation import publish, read, writing
from serving.sqlite import sqlite_errors
from serving.store import FILE


@dataclass(frozen=True, kw_only=True)
class RebuildConfig:
    """Where the index and the store are, which generation to begin with, its model's columns.

    `similarity` and `ranking` are the first column and the one after the last of the vector that
    compare users and rank items.
    """

    index: Path
    store: Path
    base: str
    similarity: tuple[int, int]
    ranking: tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class Written:
    """What a store says of a model's users at one moment: all of `up_to` is in it.

    `touched` are all whom it ever wrote, sorted; `ids` those with a vector, (n,), `vectors` (n, E),
    and their `events` by service, (n, S).
    """

    store: str
    up_to: int
    touched: list[str]
    ids: list[str]
    vectors: np.ndarray
    events: np.ndarray


def rebuild(config: RebuildConfig) -> str:
    """Publish the next generation and return its name; the service takes it up by itself.

    Raises BrokenIndex and BrokenStore where what it reads is damaged, and what `writing` raises.
    """
    with writing(config.index, overwrite=True):
        _, base = read(config.index, config.base)
        written = read_store(config.store, base.model_fingerprint, base.services)
        contents = merge(base, written, slice(*config.similarity), slice(*config.ranking))
        check(contents)
        return publish(config.index, contents)


def read_store(directory: Path, model: str, services: Sequence[str]) -> Written:
    """Return the users of a store and their vectors by `model`, as of one commit.

    Writes go on meanwhile. A user whom the model has not embedded yet holds `up_to` before the
    write, so that they are in the delta of the generation.
    """
    touched: list[str] = []
    ids: list[str] = []
    vectors: list[np.ndarray] = []
    events: list[np.ndarray] = []
    connection = sqlite3.connect(f"file:{directory / FILE}?mode=ro", uri=True)
    with closing(connection), sqlite_errors():
        connection.execute("BEGIN")
        state = rows.state_of(connection)
        up_to = state.seq
        made = {
            made.user_id: made
            for made in map(
                rows.vector_of,
                connection.execute(f"SELECT {rows.VECTOR} FROM vectors WHERE model = ?", (model,)),
            )
        }
        for row in connection.execute(f"SELECT {rows.USER} FROM users ORDER BY id"):
            user = rows.user_of(row)
            touched.append(user.user_id)
            own = made.get(user.user_id)
            if user.events is None:
                continue
            if own is None or own.seq != user.seq:
                up_to = min(up_to, user.seq - 1)
            elif len(own.vector):
                ids.append(user.user_id)
                vectors.append(own.vector)
                events.append(rows.events_by_service(user.events, services))
    whole = np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
    counts = np.array(events, np.int64).reshape(len(events), len(services))
    return Written(
        store=state.store,
        up_to=up_to,
        touched=touched,
        ids=ids,
        vectors=whole,
        events=counts,
    )


def merge(base: Contents, written: Written, similarity: slice, ranking: slice) -> Contents:
    """Return the contents of `base` without whom the store ever wrote, and with whom it holds.

    A stored user's seen items are those of their stored history, so their row has none.
    """
    ids: list[str] = base.user_ids.to_pylist()
    touched = set(written.touched)
    kept = np.array([n for n, user_id in enumerate(ids) if user_id not in touched], np.int64)
    names = [ids[n] for n in kept.tolist()] + written.ids
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    new = written.vectors if written.ids else np.zeros((0, max(similarity.stop, ranking.stop)))
    new = new.astype(np.float32)
    # not clue's own, which would bring torch along: whoever was stored has a vector of some length
    lengths = np.linalg.norm(new[:, similarity], axis=1, keepdims=True)
    vectors = np.concatenate([base.user_vectors[kept], new[:, similarity] / lengths])
    states = base.user_states
    if states is not None:
        states = np.concatenate([states[kept], new[:, ranking]])[order]
    lengths = np.concatenate([np.diff(base.seen_offsets)[kept], np.zeros(len(new), np.int64)])
    starts = np.concatenate([base.seen_offsets[:-1][kept], np.zeros(len(new), np.int64)])
    lengths, starts = lengths[order], starts[order]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # row n's values are those from starts[n] on, written from offsets[n] on
    taken = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return replace(
        base,
        user_ids=pa.array([names[n] for n in order.tolist()], pa.large_string()),
        user_vectors=vectors[order],
        user_states=states,
        seen_values=base.seen_values[taken],
        seen_offsets=offsets,
        user_events=np.concatenate([Filters(base).events[kept], written.events])[order],
        store=written.store,
        store_seq=written.up_to,
    )


def main() -> None:
    """Run the command."""

    def report(config: RebuildConfig) -> str:
        return f"{rebuild(config)}\n"

    sys.stdout.write(run_command(RebuildConfig, report, description=__doc__))


if __name__ == "__main__":
    main()
