"""Command: a corpus, or raw logs -> a table of user vectors.

    clue embed checkpoint=runs/demo corpus=corpora/demo out=demo.parquet
    accelerate launch clue/embed.py ...                              on several processes

It reads a prepared corpus (or `data=CONFIG.yaml`, the description of raw event logs, which it
prepares with the checkpoint's own tokenizer first), and writes one row for each user and service
and one for all services together: user_id, service, as_of, vector. OUT is one Parquet file where
its name ends in .parquet, else a directory of shards with a manifest. CORPUS and OUT may be URLs,
s3:// or gs://, and so may the logs of `data`. Processes share the shards;
one that is finished is never made twice: the same command goes on where it was killed. The corpus
of `data` lies beside the table, OUT.corpus, and the next day's replaces it.
With `before=TIME` only earlier events are read, and a model that reads time is asked as of it, but
in services whose times are positions; `as_of` is the time of the last event read.
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from clue.config import load, run_command
from clue.data.cache import DEFAULT, CacheConfig, hold_manifest
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.data.store import path_of, url_of
from clue.data.upload import outbox, upload
from clue.inference import encoder as inference
from clue.inference import shards
from clue.inference.encoder import Encoder
from clue.inference.pooling import ALL, BATCH, Amounts, Part, histories_of
from clue.inference.shared_items import shared_inputs
from clue.inference.work import Done, in_words, user_flops
from clue.prepare import prepare
from clue.train.distributed import init_accelerator, leave


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What to embed with what: `corpus` or `data`, one of them; `untrained` is the control."""

    checkpoint: Path  # A run directory (its best checkpoint), or a checkpoint.
    out: Path  # The Parquet file to write, or a directory of shards; s3://, gs://: of shards.
    corpus: Path | None = None  # What `clue/prepare.py` wrote: a directory, s3://, gs://.
    data: Path | None = None
    before: float | None = None  # Only events before this time are read (epoch seconds).
    untrained: bool = False
    shard_users: int = 65_536  # Users of a shard, what a process does at a time.
    cache: CacheConfig = field(default_factory=CacheConfig)

    def __post_init__(self) -> None:
        """Validate that there is one input, and somebody in a shard."""
        if self.shard_users < 1:
            raise ValueError(f"shard_users is {self.shard_users}; a shard has at least one user")
        if (self.corpus is None) == (self.data is None):
            raise ValueError("give either corpus=DIRECTORY or data=CONFIG.yaml")
        if url_of(self.out) is not None and self.out.suffix == ".parquet":
            raise ValueError(
                f"out={url_of(self.out)} is one file; a store takes a folder of shards"
            )


def main() -> None:
    """Run the command line."""

    def report(config: EmbedConfig) -> str:
        return f"{config.out}: {embed(config)} vectors\n"

    sys.stderr.write(run_command(EmbedConfig, report, description=__doc__))
    leave()


def embed(config: EmbedConfig) -> int:
    """Write the embedding table of a corpus or of raw logs; return the number of its rows.

    Raises FileNotFoundError and ValueError as the checkpoint, the corpus and the logs do.
    """
    url = url_of(config.out)
    out = path_of(config.out) if url is None else outbox(url, config.cache)
    accelerator = init_accelerator(bf16=False, trackers=[], run=out.parent)
    device = str(accelerator.device)
    encoder = inference.load(config.checkpoint, device, seed=0 if config.untrained else None)
    if config.data is not None and accelerator.is_main_process:
        prepare_logs(config.data, beside(out), encoder)
    accelerator.wait_for_everyone()
    corpus = Corpus.open(config.corpus or beside(out), config.cache)
    plan = shards.Plan(
        model_fingerprint=encoder.fingerprint,
        corpus_fingerprint=corpus.fingerprint,
        width=encoder.width,
        before=config.before,
        users=corpus.num_users,
        shard_users=config.shard_users,
    )
    if (rows := shards.finished(config.out, plan, config.cache)) is not None:
        return rows
    with shards.held(out, accelerator.is_main_process) as work:
        rows = shards.finished(out, plan, config.cache) if url else None  # made, and not sent yet
        if rows is None:
            if accelerator.is_main_process:
                shards.begin(work, plan)
            accelerator.wait_for_everyone()
            write_missing(work, plan, encoder, corpus, config, accelerator)
            rows = shards.finish(work, plan, out) if accelerator.is_main_process else 0
        if url is not None and accelerator.is_main_process:
            upload(out, url, config.cache)
            shutil.rmtree(out)
        accelerator.wait_for_everyone()
    return rows


def write_missing(
    work: Path,
    plan: shards.Plan,
    encoder: Encoder,
    corpus: Corpus,
    config: EmbedConfig,
    accelerator: Accelerator,
) -> None:
    """Write the shards that are not finished, each by one of the processes, and print the rate."""
    missing = shards.missing(work, plan)
    accelerator.wait_for_everyone()  # nobody adds one before all have looked
    if not missing:
        return
    items = shared_inputs(encoder, corpus, work, accelerator)
    # Neighbours: of a corpus in shards a process opens few, one after the other.
    own = np.array_split(missing, accelerator.num_processes)[accelerator.process_index].tolist()
    done, began = Done(), time.perf_counter()
    write = partial(
        write_part, encoder=encoder, corpus=corpus, items=items, before=config.before, done=done
    )
    for number in tqdm(own, desc="embed", unit="shard", disable=not sys.stderr.isatty()):
        shards.write(work, number, plan.users_of(number), write)
    ended = done.end(time.perf_counter() - began, accelerator.device)
    everyone = gather_object([ended])  # which waits for all shards
    if accelerator.is_main_process:
        sys.stderr.write(f"{in_words(everyone)}\n")


def beside(out: Path) -> Path:
    """Return where the corpus of `data` lies, beside the table that is made of it."""
    return out.with_suffix(".corpus")


def prepare_logs(data: Path, corpus: Path, encoder: Encoder) -> None:
    """Write the corpus of the raw logs that `data` describes, read as the model reads.

    The corpus is this command's own: yesterday's makes way for today's. Raises what `prepare` does,
    in the name of the file, whose keys are not this command's.
    """
    logs = load(PrepareConfig, data)
    tokenizer = dataclasses.replace(logs.tokenizer, path=encoder.tokenizer_path)
    logs = dataclasses.replace(
        logs,
        tokenizer=tokenizer,
        max_item_tokens=encoder.max_item_tokens,
        out=corpus,
        overwrite=True,
    )
    try:
        prepare(logs)
    except ValueError as error:
        raise ValueError(f"{data}: {error}") from None


def schema(encoder: Encoder, corpus: Corpus) -> pa.Schema:
    """Return the columns of an embedding table and, as metadata, what its vectors came from."""
    fields = [
        pa.field("user_id", pa.string()),
        pa.field("service", pa.string()),
        pa.field("as_of", pa.float64()),
        pa.field("vector", pa.list_(pa.float32(), encoder.width)),
    ]
    metadata = {
        "model_fingerprint": encoder.fingerprint,
        "corpus_fingerprint": corpus.fingerprint,
        "width": str(encoder.width),
    }
    return pa.schema(fields, metadata=metadata)


def write_part(
    path: Path,
    users: range,
    *,
    encoder: Encoder,
    corpus: Corpus,
    items: Any,
    before: float | None,
    done: Done,
) -> None:
    """Write the rows of the users in `users` to `path`, a row group of BATCH users at a time.

    `items` are what the encoder reads of the items of the corpus (`item_inputs`); `done` grows.
    """
    clocks = [corpus.is_clock(number) for number in range(len(corpus.services))]
    table_schema = schema(encoder, corpus)
    with pq.ParquetWriter(path, table_schema, compression="zstd") as writer:
        for start in range(users.start, users.stop, BATCH):
            chunk = np.arange(start, min(start + BATCH, users.stop))
            histories = histories_before(corpus, chunk, before)
            for batch in rows_of(encoder, corpus, items, chunk, histories, before):
                writer.write_batch(batch.cast(table_schema))
            lengths = [events.lengths for events, _ in histories[0]]
            done.users += len(chunk)
            done.flops += user_flops(encoder, lengths, clocks)


def rows_of(
    encoder: Encoder,
    corpus: Corpus,
    items: Any,
    users: np.ndarray,
    histories: tuple[Sequence[Part], Sequence[Amounts]],
    before: float | None,
) -> Iterator[pa.RecordBatch]:
    """Return the rows of `users` for each service, then those over all services."""
    parts, amounts = histories
    moment = None if before is None else np.full(len(users), before)
    by_service, pooled = encoder.encode_services(
        corpus, parts, as_of=moment, amounts=amounts, items=items
    )
    latest = np.full(len(users), -np.inf)
    for (_, times), service, vectors in zip(parts, corpus.services, by_service, strict=True):
        filled = np.flatnonzero(times.lengths > 0)
        as_of = times.values[times.offsets[1:][filled] - 1]
        latest[filled] = np.maximum(latest[filled], as_of)
        yield _record_batch(corpus, service, users[filled], as_of, vectors[filled])
    seen = np.flatnonzero(np.isfinite(latest))
    yield _record_batch(corpus, ALL, users[seen], latest[seen], pooled[seen])


def histories_before(
    corpus: Corpus, users: np.ndarray, before: float | None
) -> tuple[Sequence[Part], Sequence[Amounts]]:
    """Return `histories_of` these users, only the events before a moment."""
    parts, amounts = histories_of(corpus, users)
    if before is None:
        return parts, amounts
    early = [times.values < before for _, times in parts]
    parts = [
        (items.mask(kept), times.mask(kept))
        for (items, times), kept in zip(parts, early, strict=True)
    ]
    amounts = [
        {name: values.mask(kept) for name, values in named.items()}
        for named, kept in zip(amounts, early, strict=True)
    ]
    return parts, amounts


def read_embeddings(path: Path | str, cache: CacheConfig = DEFAULT) -> pa.Table:
    """Return the embedding table at `path`; `schema.metadata` names its model and its corpus.

    `path` is a Parquet file, a directory of shards or a URL of one. Raises FileNotFoundError where
    there is none and ValueError for another kind of file, or a directory that lacks one.
    """
    url = url_of(path)
    held = None if url is None else hold_manifest(url, cache)
    path = path_of(path) if held is None else held.path
    if path.is_dir():
        files = shards.files(path)
    elif path.is_file():
        files = [path]
    else:
        raise FileNotFoundError(f"no embedding table {path}; clue embed writes one")
    tables = [pq.read_table(file) for file in files]
    if any(b"model_fingerprint" not in (table.schema.metadata or {}) for table in tables):
        raise ValueError(f"{path} is no embedding table: it names no model; clue embed writes one")
    return pa.concat_tables(tables)


def _record_batch(
    corpus: Corpus, service: str, users: np.ndarray, as_of: np.ndarray, vectors: np.ndarray
) -> pa.RecordBatch:
    flat = pa.array(vectors.astype(np.float32).ravel())
    columns = {
        "user_id": corpus.user_ids.take(pa.array(users)),
        "service": pa.array([service] * len(users), pa.string()),
        "as_of": pa.array(as_of, pa.float64()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    return pa.RecordBatch.from_pydict(columns)


if __name__ == "__main__":
    main()
