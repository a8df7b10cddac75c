"""A synthetic world of any size, written as it is drawn: many files by time, no table whole.

Users come in blocks, each of its own generator, over one catalogue; the laws are those of
`clue.synthetic.world`. A file of the log holds one span of time with events of all users.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clue.synthetic.draws import draw_items, draw_rows
from clue.synthetic.spending import draw_spending
from clue.synthetic.titles import read_words
from clue.synthetic.world import (
    EPOCH,
    SyntheticConfig,
    check,
    draw_activity,
    draw_latents,
    items_table,
    topics_of_items,
)

BLOCK = 50_000  # users drawn at a time: some 2.5 million events, 400 MB


def write_stream(config: SyntheticConfig, directory: Path, files: int) -> int:
    """Write items.parquet and `files` files of events, events-000.parquet, ..., by time.

    Return the number of events. Memory is that of one block of users and of the catalogue. Raises
    ValueError for a config that no world can follow.
    """
    check(config)
    directory.mkdir(parents=True, exist_ok=True)
    catalogue = _Catalogue(config)
    pq.write_table(catalogue.items, directory / "items.parquet")
    total = 0
    with ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []
        for first in range(0, config.users, BLOCK):
            for number, part in enumerate(_parts(catalogue.events(first), files, config)):
                if not first:
                    file = directory / f"events-{number:03d}.parquet"
                    writers.append(stack.enter_context(pq.ParquetWriter(file, part.schema)))
                writers[number].write_table(part)
                total += part.num_rows
    return total


class _Catalogue:
    """The items of a world, from which the events of its users are drawn block by block."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        rng = np.random.default_rng(config.seed)
        words = dict(list(read_words().items())[: config.interests])
        topics = tuple(f"{interest}/{sub}" for interest, subs in words.items() for sub in subs)
        self.topics = len(topics)
        self.item_topic = [topics_of_items(rng, config, self.topics) for _ in config.services]
        size = config.items_per_service
        self.weights = [
            (rng.permutation(size) + 1.0) ** -config.popularity for _ in config.services
        ]
        items = items_table(rng, config, words, topics, np.concatenate(self.item_topic))
        self.price = draw_spending(rng, config.spending, 0, items.num_rows).price
        self.items = items.append_column("price", pa.array(self.price))
        self.item_ids = items["item_id"].combine_chunks()

    def events(self, first: int) -> pa.Table:
        """Return the events of the block of users that begins with `first`, by time."""
        block = dataclasses.replace(self.config, users=min(BLOCK, self.config.users - first))
        rng = np.random.default_rng([block.seed, first])
        start, end = draw_latents(rng, block, self.topics)
        user, service, moment = draw_activity(rng, block)
        order = np.argsort(moment)
        user, service, moment = user[order], service[order], moment[order]
        rows = np.where(rng.random(len(user)) < moment, user + block.users, user)
        topic = draw_rows(rng, np.concatenate([start, end]), rows)
        item = np.empty(len(user), np.int64)
        for number, its_topics in enumerate(self.item_topic):
            here = service == number
            drawn = draw_items(rng, self.weights[number], its_topics, topic[here], block.noise)
            item[here] = drawn + number * block.items_per_service
        drawn_by = draw_spending(rng, block.spending, block.users, 0)
        spending = dataclasses.replace(drawn_by, price=self.price)
        ids = pa.array([f"u{n:09d}" for n in range(first, first + block.users)])
        channel = pa.array(spending.channel_codes(rng, user).astype(np.int8))
        return pa.table(
            {
                "user_id": ids.take(pa.array(user)),
                "service": pa.array(block.services).take(pa.array(service)),
                "item_id": self.item_ids.take(pa.array(item)),
                "timestamp": EPOCH + (moment * block.days * 86_400).astype(np.int64),
                "amount": spending.amounts(rng, user, item).astype(np.float32),
                "channel": pa.array(block.spending.channels).take(channel),
            }
        )


def _parts(events: pa.Table, files: int, config: SyntheticConfig) -> Iterator[pa.Table]:
    """Yield the events of each of `files` equal spans of time."""
    seconds = events["timestamp"].to_numpy() - EPOCH
    borders = np.arange(1, files) * (config.days * 86_400) // files
    cuts = [0, *np.searchsorted(seconds, borders).tolist(), len(seconds)]
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        yield events.slice(start, stop - start)
