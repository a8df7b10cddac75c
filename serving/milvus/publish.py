"""A generation of an index -> Milvus: users and vectors there, the items' names and texts in `out`.

    CLUE_MILVUS_TOKEN=root:Milvus python -m serving.milvus.publish \
        index=indexes/demo out=indexes/demo-milvus uri=http://milvus:19530

Run it again with overwrite=true to publish the next one. Services that serve `out` with
vectors=milvus take it up by themselves, all at one moment.
"""

import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa

from clue.config import run_command
from serving import generation
from serving.base_index import RECALL_AT, recall_of
from serving.catalogue import Catalogue
from serving.contents import Contents
from serving.filters import Filters
from serving.generation import publish, read, writing
from serving.index import PROBES
from serving.milvus.index import MilvusIndex
from serving.milvus.link import Link, done
from serving.milvus.tables import FORMAT, KEY_CHARACTERS, Record, Tables, key_of, user_row
from serving.settings import milvus_token
from serving.vectors import Search, unit_or_zero

ROWS = 500  # of one request
# `effort` is HNSW's ef, at least; a search for more than that many has as many
BUILT = {"M": 32, "efConstruction": 120}
EFFORT = 128
SECONDS = 120.0  # that Milvus may take for one call here
NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """The index, where what a service reads of it goes, and Milvus.

    Without `activate` the generation is served when an operator asks the service to.
    """

    index: Path
    out: Path
    uri: str
    prefix: str = "clue"
    kind: Literal["HNSW", "FLAT", "AUTOINDEX"] = "HNSW"
    overwrite: bool = False
    activate: bool = True


def bring(config: PublishConfig) -> str:
    """Bring the current generation to Milvus; return its name there and in `out`.

    It is whole before its record is written, and served from one moment on. Raises VectorsAway
    where Milvus does not answer, and what `read` and `writing` raise; what is served stays.
    """
    _, contents = read(config.index)
    with (
        closing(Link(config.uri, milvus_token(), seconds=SECONDS)) as link,
        writing(config.out, overwrite=config.overwrite),
    ):
        tables = Tables(link, config.prefix)
        tables.create_records()
        for name in tables.names():
            if tables.record(name) is None:  # of a command that was killed
                tables.drop(name)
        name = publish(config.out, without_users(contents), activate=False)
        write(tables, name, contents, config.kind)
        if config.activate:
            tables.activate(name)
            for old in generation.serve_next(config.out, name):
                tables.drop(old)
        return name


def without_users(contents: Contents) -> Contents:
    """Return the items alone, and how often users met them."""
    states = contents.user_states
    return replace(
        contents,
        user_ids=pa.array([], pa.large_string()),
        user_vectors=contents.user_vectors[:0],
        user_states=None if states is None else states[:0],
        seen_values=contents.seen_values[:0],
        seen_offsets=np.zeros(1, np.int64),
        user_events=None,
        item_events=Filters(contents).item_events,
    )


def write(tables: Tables, name: str, contents: Contents, kind: str) -> None:
    """Write a generation's collections, measure their recall, and then its record."""
    link, indexed = tables.link, {"index_type": kind, "params": BUILT if kind == "HNSW" else {}}
    tables.create_users(name, contents.user_vectors.shape[1], indexed)
    vectors = {"ranking": contents.item_vectors}
    if contents.item_blocks is not None:
        vectors["blocks"] = _unit_blocks(contents)
    widths = {field: each.shape[1] for field, each in vectors.items()}
    tables.create_items(name, widths, indexed)
    for collection, rows in (
        (tables.users(name), _users(contents)),
        (tables.items(name), _items(contents, vectors)),
    ):
        for batch in _batches(rows):
            link.call("insert", collection, batch, read=done)
        link.call("flush", collection, read=done)
    record = Record(
        format=FORMAT,
        model_fingerprint=contents.model_fingerprint,
        corpus_fingerprint=contents.corpus_fingerprint,
        num_users=len(contents.user_ids),
        num_items=len(contents.item_ids),
        kind=kind,
        effort=EFFORT,
        recall={},
        store=contents.store,
        store_seq=contents.store_seq,
    )
    tables.note(name, record)
    index = MilvusIndex(tables, Catalogue(name, without_users(contents)))
    tables.note(name, replace(record, recall=_recall(index, contents)))


def _users(contents: Contents) -> Iterable[dict[str, Any]]:
    events, offsets = Filters(contents).events, contents.seen_offsets
    states = contents.user_vectors if contents.user_states is None else contents.user_states
    for row, user_id in enumerate(contents.user_ids.to_pylist()):
        if len(key_of(user_id)) > KEY_CHARACTERS:
            limit = KEY_CHARACTERS // 2
            raise ValueError(f"user {row} has an id of over {limit} bytes; give them a shorter one")
        seen = contents.seen_values[offsets[row] : offsets[row + 1]]
        yield user_row(user_id, contents.user_vectors[row], states[row], seen, events[row])


def _items(contents: Contents, vectors: dict[str, np.ndarray]) -> Iterable[dict[str, Any]]:
    for row, service in enumerate(contents.item_service.tolist()):
        own = {field: each[row] for field, each in vectors.items()}
        yield {"row": row, "service": service, **own}


def _unit_blocks(contents: Contents) -> np.ndarray:
    """Return the items' vectors (I, E) with each block at unit length."""
    assert contents.item_blocks is not None
    whole = contents.item_blocks.copy()
    for start, stop in contents.item_block_columns.values():
        whole[:, start:stop] = unit_or_zero(whole[:, start:stop])
    return whole


def _batches(rows: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _recall(index: MilvusIndex, contents: Contents) -> dict[str, float]:
    """Return recall@10 against the exact search, of users of the index and of their states."""
    probes = np.random.default_rng(0).permutation(len(contents.user_ids))[:PROBES]
    states = contents.user_vectors if contents.user_states is None else contents.user_states
    ids = contents.user_ids.to_pylist()
    row_of = {user_id: row for row, user_id in enumerate(ids)}
    users, items = _search("users"), _search("items")
    near = index.nearest_users(
        [*contents.user_vectors[probes]], [users] * len(probes), [None] * len(probes), ()
    )
    hits = index.nearest_items([*states[probes]], [items] * len(probes))
    exact = {
        "users": faiss.knn(
            contents.user_vectors[probes],
            contents.user_vectors,
            min(RECALL_AT, len(ids)),
            metric=faiss.METRIC_INNER_PRODUCT,
        )[1],
        "items": faiss.knn(
            states[probes],
            contents.item_vectors,
            min(RECALL_AT, len(contents.item_ids)),
            metric=faiss.METRIC_INNER_PRODUCT,
        )[1],
    }
    known = [np.array([row_of[user_id] for user_id, _ in each]) for each in near]
    return {
        "users": recall_of(known, [*exact["users"]]),
        "items": recall_of([each.rows for each in hits], [*exact["items"]]),
    }


def _search(kind: str) -> Search:
    return Search(kind=kind, k=RECALL_AT, exclude=NOTHING)


def main() -> None:
    """Run the command."""

    def report(config: PublishConfig) -> str:
        return f"{config.out}: generation {bring(config)}\n"

    sys.stdout.write(run_command(PublishConfig, report, description=__doc__))


if __name__ == "__main__":
    main()
