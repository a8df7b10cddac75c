"""Turn behaviours into user vectors: a Python door, and a command that writes an embedding table.

    accelerate launch clue/embed.py checkpoint=runs/demo corpus=corpora/demo out=demo.parquet

The command reads a prepared corpus (or `data=CONFIG.yaml`, the description of raw event logs, which
it prepares with the checkpoint's own tokenizer first), and writes one row for each user and service
and one for all services together: user_id, service, as_of, vector. Processes share the users.
With `before=TIME` only earlier events are read; `as_of` is the time of the last one read.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from tqdm import tqdm

from clue import checkpoint
from clue.checkpoint import Checkpoint
from clue.data.batches import take
from clue.data.corpus import Corpus, Ragged
from clue.data.views import keep
from clue.encode import item_vectors, user_vectors
from clue.nn.model import Clue
from clue.prepare import PrepareConfig, prepare
from clue.settings import load, read_command_line
from clue.train.evaluation import newest

USERS = 16_384  # users whose vectors are alive at once and a row group of the output
ALL = "all"  # the service name of the vector over all services


class Encoder:
    """A trained model as a function: behaviours in, unit vectors out.

    `width` is E, `services` those seen in pretraining (others work too: the model reads text),
    `fingerprint` names the weights and the tokenizer.
    """

    def __init__(self, source: Checkpoint, model: Clue, fingerprint: str) -> None:
        """Use `Encoder.load` or `Encoder.untrained`."""
        self.model, self.fingerprint = model, fingerprint
        self.width = model.config.user.embedding
        self.max_events = model.config.user.max_events
        self.max_item_tokens = int(source.corpus["max_item_tokens"])
        self.services = tuple(source.corpus["services"])
        self.tokenizer_sha256 = source.corpus["tokenizer_sha256"]
        self.tokenizer_path = source.path / "tokenizer.json"
        self.scale = model.scale().item()
        self._tokenizer = Tokenizer.from_file(str(self.tokenizer_path))

    @classmethod
    def load(cls, path: Path | str, device: str = "cpu") -> "Encoder":
        """Gives the model of a run directory (its best checkpoint) or of a checkpoint directory.

        Raises FileNotFoundError where there is none, ValueError where a file is damaged.
        """
        source = checkpoint.find(Path(path))
        model = Clue(source.config.model, source.corpus["vocab_size"])
        model.load_state_dict(source.weights())
        return cls(source, model.eval().to(device), source.fingerprint)

    @classmethod
    def untrained(cls, path: Path | str, seed: int = 0, device: str = "cpu") -> "Encoder":
        """Gives the same architecture and tokenizer, fresh weights: the control of any claim."""
        source = checkpoint.find(Path(path))
        torch.manual_seed(seed)
        model = Clue(source.config.model, source.corpus["vocab_size"])
        return cls(source, model.eval().to(device), f"untrained-{seed}-{source.fingerprint}")

    def embed(self, user: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Gives the vector (E,) of one user: texts of behaviours by service, oldest first."""
        return self.embed_users([user])[0]

    def embed_users(self, users: Sequence[Mapping[str, Sequence[str]]]) -> np.ndarray:
        """Gives the vectors (n, E): the normalised mean of each user's vectors of single services.

        Of a service the newest `max_events` are read. Raises ValueError for a user without events
        and for an empty text, naming which.
        """
        histories = [texts for user in users for texts in user.values() if len(texts)]
        owners = np.repeat(
            np.arange(len(users)), [sum(len(t) > 0 for t in user.values()) for user in users]
        )
        missing = np.setdiff1d(np.arange(len(users)), owners)
        if len(missing):
            raise ValueError(f"user {missing[0]} has no events; leave such users out")
        cut = [texts[-self.max_events :] for texts in histories]
        rows = {text: row for row, text in enumerate(dict.fromkeys(t for c in cut for t in c))}
        items = item_vectors(self.model, self._tokens(list(rows)))
        events = np.array([rows[text] for texts in cut for text in texts], np.int64)
        vectors = user_vectors(self.model, items, Ragged(events, _offsets([len(c) for c in cut])))
        total = np.zeros((len(users), self.width), np.float32)
        np.add.at(total, owners, vectors.numpy())
        return normalised(total)

    def embed_items(self, texts: Sequence[str]) -> np.ndarray:
        """Gives the vectors (n, E) of items: each the vector of a user who did just that."""
        return self._as_histories(item_vectors(self.model, self._tokens(texts)))

    def catalogue(self, corpus: Corpus) -> np.ndarray:
        """Gives `embed_items` of every item of the corpus, in its order."""
        self.check(corpus)
        return self._as_histories(item_vectors(self.model, corpus.item_tokens))

    def embed_histories(
        self, corpus: Corpus, histories: Ragged, *, items: torch.Tensor | None = None
    ) -> np.ndarray:
        """Gives the vectors (n, E) of rows of catalogue items, oldest first; empty rows are zero.

        `items` are `catalogue_items(corpus)`, for callers who come more than once.
        """
        if items is None:
            items = self.catalogue_items(corpus)
        return user_vectors(self.model, items, newest(histories, self.max_events)).numpy()

    def catalogue_items(self, corpus: Corpus) -> torch.Tensor:
        """Gives the item encoder's vectors (I, D) of every item of the corpus."""
        self.check(corpus)
        return item_vectors(self.model, corpus.item_tokens)

    def check(self, corpus: Corpus) -> None:
        """Raises ValueError where the corpus was written with another tokenizer."""
        if corpus.manifest.tokenizer_sha256 != self.tokenizer_sha256:
            raise ValueError(
                f"{corpus.path} was prepared with another tokenizer than the checkpoint's; prepare "
                f"it again with tokenizer.path={self.tokenizer_path}"
            )

    def _tokens(self, texts: Sequence[str]) -> Ragged:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = [one.ids[: self.max_item_tokens] for one in encoded]
        for number, tokens in enumerate(ids):
            if not tokens:
                raise ValueError(f"text {number} is empty; an event needs words to be read")
        flat = np.fromiter((i for tokens in ids for i in tokens), np.int64)
        return Ragged(flat, _offsets([len(tokens) for tokens in ids]))

    def _as_histories(self, items: torch.Tensor) -> np.ndarray:
        single = Ragged(np.arange(len(items)), np.arange(len(items) + 1))
        return user_vectors(self.model, items, single).numpy()


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What to embed with what: `corpus` or `data`, one of them; `untrained` is the control."""

    checkpoint: Path
    out: Path
    corpus: Path | None = None
    data: Path | None = None
    before: float | None = None
    untrained: bool = False

    def __post_init__(self) -> None:
        """Refuses two inputs and none."""
        if (self.corpus is None) == (self.data is None):
            raise ValueError("give either corpus=DIRECTORY or data=CONFIG.yaml")


def main() -> None:
    """Runs the command line."""
    config = read_command_line(EmbedConfig, sys.argv[1:], description=__doc__ or "")
    try:
        rows = embed(config)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    sys.stderr.write(f"{config.out}: {rows} vectors\n")


def embed(config: EmbedConfig) -> int:
    """Writes the embedding table of a corpus or of raw logs; gives the number of its rows.

    Raises FileNotFoundError and ValueError as the checkpoint, the corpus and the logs do.
    """
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    device = str(accelerator.device)
    make = Encoder.untrained if config.untrained else Encoder.load
    encoder = make(config.checkpoint, device=device)
    with accelerator.main_process_first():
        corpus = Corpus.open(config.corpus or prepared(config, encoder))
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


def prepared(config: EmbedConfig, encoder: Encoder) -> Path:
    """Gives the corpus of the raw logs that `data` describes, with the model's tokenizer."""
    assert config.data is not None
    logs = load(PrepareConfig, config.data)
    tokenizer = dataclasses.replace(logs.tokenizer, path=encoder.tokenizer_path)
    beside = config.out.with_suffix(".corpus")
    logs = dataclasses.replace(
        logs, tokenizer=tokenizer, max_item_tokens=encoder.max_item_tokens, out=beside
    )
    return prepare(logs)


def schema(encoder: Encoder, corpus: Corpus) -> pa.Schema:
    """Gives the columns of an embedding table and, as metadata, what its vectors came from."""
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
    """Writes the rows of the users in `users` to `path`, USERS of them in memory at a time."""
    items = encoder.catalogue_items(corpus)
    starts = range(users.start, users.stop, USERS)
    table_schema = schema(encoder, corpus)
    with pq.ParquetWriter(path, table_schema, compression="zstd") as writer:
        for start in tqdm(starts, desc="embed", unit="chunk", disable=not sys.stderr.isatty()):
            chunk = np.arange(start, min(start + USERS, users.stop))
            for batch in rows_of(encoder, corpus, items, chunk, before):
                writer.write_batch(batch.cast(table_schema))


def rows_of(
    encoder: Encoder, corpus: Corpus, items: torch.Tensor, users: np.ndarray, before: float | None
) -> Iterator[pa.RecordBatch]:
    """Gives the rows of `users` for each service, then those over all services."""
    total = np.zeros((len(users), encoder.width), np.float32)
    latest = np.full(len(users), -np.inf)
    for number, service in enumerate(corpus.services):
        times = take(corpus.timestamps_of(number), users)
        histories = take(corpus.items_of(number), users)
        if before is not None:
            early = times.values < before
            times, histories = keep(times, early), keep(histories, early)
        vectors = encoder.embed_histories(corpus, histories, items=items)
        there = np.flatnonzero(histories.lengths > 0)
        as_of = times.values[times.offsets[1:][there] - 1]
        latest[there] = np.maximum(latest[there], as_of)
        total += vectors
        yield _record_batch(corpus, service, users[there], as_of, vectors[there])
    seen = np.flatnonzero(np.isfinite(latest))
    yield _record_batch(corpus, ALL, users[seen], latest[seen], normalised(total[seen]))


def merge(parts: Sequence[Path], out: Path) -> int:
    """Joins the parts into `out`, row group by row group, and deletes them; gives the row count."""
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
    """Gives the embedding table at `path`; `schema.metadata` names its model and its corpus.

    Raises FileNotFoundError where there is none and ValueError for another kind of Parquet file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no embedding table {path}; clue/embed.py writes one")
    table = pq.read_table(path)
    if b"model_fingerprint" not in (table.schema.metadata or {}):
        raise ValueError(
            f"{path} is no embedding table: it names no model; clue/embed.py writes one"
        )
    return table


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Gives the rows at unit length; a zero row stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


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


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


if __name__ == "__main__":
    main()
