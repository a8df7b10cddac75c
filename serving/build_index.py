"""Checkpoint + corpus -> the index that the service searches.

Run it again with overwrite=true to publish a new generation; a service loads it when it starts.

    python -m serving.build_index checkpoint=runs/demo corpus=corpora/demo out=indexes/demo
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clue.config import run_command
from clue.data.cache import CacheConfig
from clue.data.corpus import Corpus
from clue.evaluation.encode import normalised
from clue.inference.encoder import Encoder, load
from clue.inference.pooling import BATCH, histories_of
from serving.contents import Contents, check, content_of
from serving.generation import publish, writing


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to index and where. `checkpoint` is a run directory or a checkpoint directory.

    Without `activate` the generation is served when an operator asks the service to.
    """

    checkpoint: Path
    corpus: Path  # A directory, or a URL of one: s3://, gs://.
    out: Path
    device: str = "cpu"
    overwrite: bool = False
    activate: bool = True
    cache: CacheConfig = field(default_factory=CacheConfig)


def build(config: BuildConfig) -> str:
    """Embed all items and users of the corpus and publish them; return the generation's name.

    Raises FileExistsError where `out` holds an index already (unless `overwrite`), and what
    `Corpus.open` and `load` raise; the index that is there stays as it is.
    """
    with writing(config.out, overwrite=config.overwrite):
        corpus = Corpus.open(config.corpus, config.cache)
        encoder = load(config.checkpoint, config.device)
        contents = embed(encoder, corpus)
        check(contents)
        return publish(config.out, contents, activate=config.activate)


def embed(encoder: Encoder, corpus: Corpus) -> Contents:
    """Return the vectors of all items and of all users, each user over all services together.

    A user's vector is that of the encoder's `encode_events`, as of the user's last event. Users
    without any event have none and are left out. Raises ValueError for a corpus of another
    tokenizer or catalogue.
    """
    items = encoder.item_inputs(corpus)
    users = corpus.user_ids.to_numpy(zero_copy_only=False).argsort(kind="stable")
    events = [corpus.items_of(service).lengths for service in range(len(corpus.services))]
    users = users[np.sum(events, axis=0)[users] > 0]
    vectors, states = user_vectors(encoder, corpus, users, items)
    seen_values, seen_offsets = _seen(corpus, users)
    whole = encoder.encode_catalogue(corpus, items=items)
    services = corpus.item_service
    names = [corpus.services[number] for number in services]
    ids: list[str] = corpus.item_ids.to_pylist()
    read = ids if encoder.reads == "item_id" else corpus.item_texts.to_pylist()
    keys = encoder.input_keys(list(zip(names, read, strict=True)))
    return Contents(
        model_fingerprint=encoder.fingerprint,
        corpus_fingerprint=corpus.fingerprint,
        corpus_name=corpus.manifest.name,
        templates=corpus.manifest.templates,
        services=list(corpus.services),
        item_ids=corpus.item_ids,
        item_texts=corpus.item_texts,
        item_service=np.ascontiguousarray(services),
        item_content=_hashes(names, keys),
        item_key=_hashes(names, ids),
        item_vectors=np.ascontiguousarray(whole[:, encoder.ranking_columns]),
        item_blocks=np.ascontiguousarray(whole) if encoder.blocks else None,
        item_block_columns={n: (c.start, c.stop) for n, c in encoder.blocks.items()},
        user_ids=corpus.user_ids.take(pa.array(users)),
        user_vectors=vectors,
        user_states=states,
        seen_values=seen_values,
        seen_offsets=seen_offsets,
    )


def user_vectors(
    encoder: Encoder, corpus: Corpus, users: np.ndarray, items: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the unit vectors (n, S) of `users`, and the states (n, R) by which items rank.

    Of an encoder without blocks the two are one. `items` are `encoder.item_inputs(corpus)`.
    """
    vectors: list[np.ndarray] = []
    states: list[np.ndarray] = []
    for start in range(0, max(len(users), 1), BATCH):
        parts, amounts = histories_of(corpus, users[start : start + BATCH])
        whole = encoder.encode_users(corpus, parts, amounts=amounts, items=items)
        if not encoder.blocks:
            vectors.append(whole)
            continue
        vectors.append(normalised(whole[:, encoder.similarity_columns]))
        states.append(whole[:, encoder.ranking_columns])
    return np.concatenate(vectors), np.concatenate(states) if states else None


def _hashes(services: Sequence[str], what: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(content_of, services, what), np.uint64, len(what))


def _seen(corpus: Corpus, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the item indices (int32) of each of `users` over all services, and their offsets."""
    histories = [corpus.items_of(service) for service in range(len(corpus.services))]
    owners = np.concatenate([np.repeat(np.arange(len(h)), h.lengths) for h in histories])
    values = np.concatenate([h.values for h in histories])
    row_of = np.full(corpus.num_users, -1)
    row_of[users] = np.arange(len(users))
    values = values[np.argsort(row_of[owners], kind="stable")].astype(np.int32)
    counts = np.bincount(row_of[owners], minlength=len(users))
    return values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def main() -> None:
    """Run the command."""

    def report(config: BuildConfig) -> str:
        return f"{config.out}: generation {build(config)}\n"

    sys.stdout.write(run_command(BuildConfig, report, description=__doc__))


if __name__ == "__main__":
    main()
