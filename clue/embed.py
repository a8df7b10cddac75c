"""Command: a corpus, or raw logs -> a table of user vectors.

    clue embed checkpoint=runs/demo corpus=corpora/demo out=demo.parquet
    accelerate launch clue/embed.py ...                              on several processes

It reads a prepared corpus (or `data=CONFIG.yaml`, the description of raw event logs, which it
prepares with the checkpoint's own tokenizer first), and writes one row for each user and service
and one for all services together: user_id, service, as_of, vector. Processes share the users. The
corpus of `data` lies beside the table, OUT.corpus, and the next day's replaces it.
With `before=TIME` only earlier events are read, and a model that reads time is asked as of it, but
in services whose times are positions; `as_of` is the time of the last event read.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from clue.config import load, run_command
from clue.data.corpus import Corpus
from clue.data.ingest.prepare_config import PrepareConfig
from clue.inference import encoder as inference
from clue.inference.encoder import Encoder
from clue.inference.pooling import ALL, BATCH, histories_of
from clue.prepare import prepare
from clue.train.distributed import init_accelerator


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What to embed with what: `corpus` or `data`, one of them; `untrained` is the control."""

    checkpoint: Path  # A run directory (its best checkpoint), or a checkpoint.
    out: Path  # The Parquet file to write.
    corpus: Path | None = None
    data: Path | None = None
    before: float | None = None  # Only events before this time are read (epoch seconds).
    untrained: bool = False

    def __post_init__(self) -> None:
        """Validate that there is one input."""
        if (self.corpus is None) == (self.data is None):
            raise ValueError("give either corpus=DIRECTORY or data=CONFIG.yaml")


def main() -> None:
    """Run the command line."""

    def report(config: EmbedConfig) -> str:
        return f"{config.out}: {embed(config)} vectors\n"

    sys.stderr.write(run_command(EmbedConfig, report, description=__doc__))


def embed(config: EmbedConfig) -> int:
    """Write the embedding table of a corpus or of raw logs; return the number of its rows.

    Raises FileNotFoundError and ValueError as the checkpoint, the corpus and the logs do.
    """
    accelerator = init_accelerator(bf16=False, trackers=[], run=config.out.parent)
    device = str(accelerator.device)
    encoder = inference.load(config.checkpoint, device, seed=0 if config.untrained else None)
    if config.data is not None and accelerator.is_main_process:
        prepare_logs(config.data, beside(config.out), encoder)
    accelerator.wait_for_everyone()
    corpus = Corpus.open(config.corpus or beside(config.out))
    rank, world = accelerator.process_index, accelerator.num_processes
    bounds = np.linspace(0, corpus.num_users, world + 1).astype(np.int64)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    part = config.out.with_name(f".writing-{rank}-{config.out.name}")
    write_part(part, encoder, corpus, range(bounds[rank], bounds[rank + 1]), config.before)
    accelerator.wait_for_everyone()
    rows = 0
    if accelerator.is_main_process:
        parts = [config.out.with_name(f".writing-{r}-{config.out.name}") for r in range(world)]
        rows = merge(parts, config.out)
    accelerator.wait_for_everyone()
    return rows


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
    path: Path, encoder: Encoder, corpus: Corpus, users: range, before: float | None
) -> None:
    """Write the rows of the users in `users` to `path`, a row group of BATCH users at a time."""
    items = encoder.item_inputs(corpus)
    starts = range(users.start, users.stop, BATCH)
    table_schema = schema(encoder, corpus)
    with pq.ParquetWriter(path, table_schema, compression="zstd") as writer:
        for start in tqdm(starts, desc="embed", unit="chunk", disable=not sys.stderr.isatty()):
            chunk = np.arange(start, min(start + BATCH, users.stop))
            for batch in rows_of(encoder, corpus, items, chunk, before):
                writer.write_batch(batch.cast(table_schema))


def rows_of(
    encoder: Encoder,
    corpus: Corpus,
    items: Any,
    users: np.ndarray,
    before: float | None,
) -> Iterator[pa.RecordBatch]:
    """Return the rows of `users` for each service, then those over all services."""
    parts, amounts = histories_of(corpus, users)
    early = [times.values < (np.inf if before is None else before) for _, times in parts]
    parts = [
        (items.mask(kept), times.mask(kept))
        for (items, times), kept in zip(parts, early, strict=True)
    ]
    amounts = [
        {name: values.mask(kept) for name, values in named.items()}
        for named, kept in zip(amounts, early, strict=True)
    ]
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


def merge(parts: Sequence[Path], out: Path) -> int:
    """Join the parts into `out`, row group by row group, delete them, return the row count."""
    beside = out.with_name(f".writing-{out.name}")
    with pq.ParquetWriter(beside, pq.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))
            part.unlink()
    beside.replace(out)
    return pq.read_metadata(out).num_rows


def read_embeddings(path: Path) -> pa.Table:
    """Return the embedding table at `path`; `schema.metadata` names its model and its corpus.

    Raises FileNotFoundError where there is none and ValueError for another kind of Parquet file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no embedding table {path}; clue embed writes one")
    table = pq.read_table(path)
    if b"model_fingerprint" not in (table.schema.metadata or {}):
        raise ValueError(f"{path} is no embedding table: it names no model; clue embed writes one")
    return table


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
