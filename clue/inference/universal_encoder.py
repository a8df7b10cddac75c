"""The universal encoder as a function: behaviours in, a vector of named blocks out.

clue/inference/blocks.py says what the blocks are. The cosine of two users is that of contrastive
and aligned blocks together, and a user's items rank by the inner product with the predictive one.
An item is known by its service and its id, or else by its service and text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from clue.data.activity import CLOCK
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.text import content_of, read_tokenizer
from clue.evaluation.encode import by_service, item_vectors
from clue.inference import hub
from clue.inference.blocks import BLOCKS, BlockVectors, ItemInputs, Service
from clue.inference.catalogue import check_tokenizer, fields_of, known_items, mark_table
from clue.inference.events import Described, TimedUser, numeric, read_users
from clue.inference.hub import ModelSource, name_of
from clue.inference.item_cache import Item, ItemCache, ItemsRead
from clue.inference.pooling import (
    BATCH,
    Amounts,
    Event,
    Part,
    cosines,
    in_batches,
)
from clue.inference.source import find_source
from clue.inference.text_reader import TextReader
from clue.nn.universal import UniversalEncoder as UniversalModel


class UniversalEncoder:
    """A trained universal model; `blocks` are the columns of each part of its vectors by name.

    `width` is E over the chosen blocks, `similarity` the columns by whose cosine users are
    compared, `ranking` those by whose inner product items rank.
    """

    reads: Literal["text"] = "text"
    join: Literal["service"] = "service"

    def __init__(
        self,
        source: ModelSource,
        model: UniversalModel,
        fingerprint: str,
        blocks: Sequence[str] = BLOCKS,
    ) -> None:
        """Use `UniversalEncoder.load`. Raises ValueError for a block that there is not."""
        self.source, self.model = source, model
        self.fingerprint = self._weights = fingerprint
        if tuple(blocks) != BLOCKS:
            self.fingerprint += "-" + "-".join(name for name in BLOCKS if name in blocks)
        self.max_events = model.contrastive.config.user.max_events
        self.max_item_tokens = int(source.corpus["max_item_tokens"])
        self.services = tuple(source.corpus["services"])
        self.clocks: Mapping[str, bool] = source.corpus["clocks"]
        self.tokenizer_sha256 = source.corpus["tokenizer_sha256"]
        self.tokenizer_path = source.path / "tokenizer.json"
        self.scale = model.contrastive.scale().item()
        self.fields = fields_of(source.corpus)
        self._blocks = BlockVectors(model, numeric(self.fields), blocks, mark_table(source.corpus))
        self.blocks, self.width = self._blocks.columns, self._blocks.width
        self._known = known_items(source.path / "catalogue.arrow")
        self._texts = TextReader(read_tokenizer(self.tokenizer_path), self.max_item_tokens)
        self._cache: ItemCache | None = None

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str = "cpu",
        *,
        seed: int | None = None,
        blocks: Sequence[str] = BLOCKS,
    ) -> "UniversalEncoder":
        """Return the model that `clue.load` does, of this kind alone.

        Raises FileNotFoundError where there is none, ValueError where a file is damaged or the
        model is of another kind.
        """
        return cls.of(find_source(path), device, seed, blocks)

    @classmethod
    def of(
        cls,
        source: ModelSource,
        device: str = "cpu",
        seed: int | None = None,
        blocks: Sequence[str] = BLOCKS,
    ) -> "UniversalEncoder":
        """Return the model of `source`; with a `seed`, fresh weights drawn by it instead."""
        config, corpus = source.config, source.corpus
        if config.objective != "universal":
            raise ValueError(
                f"{source.path} is of objective: {config.objective}, which has no blocks; give a "
                "run of objective: universal, or use clue.load"
            )
        if seed is not None:
            torch.manual_seed(seed)
        model = UniversalModel(
            config.model,
            config.predictive,
            config.factors,
            corpus["num_items"],
            corpus["vocab_size"],
            len(corpus["services"]),
            mark_table(corpus).size if config.predictive.context else 1,
        )
        if seed is None:
            model.load_state_dict(source.weights())
        return cls(source, model.eval().to(device), name_of(source, seed), blocks)

    @property
    def similarity_columns(self) -> slice:
        """Those of the contrastive and the aligned block; all, where neither was chosen."""
        chosen = [self.blocks[name] for name in ("contrastive", "aligned") if name in self.blocks]
        return slice(chosen[0].start, chosen[-1].stop) if chosen else slice(0, self.width)

    @property
    def ranking_columns(self) -> slice:
        """Those of the predictive block, in which items rank; all, where it was not chosen."""
        return self.blocks.get("predictive", slice(0, self.width))

    def encode(
        self,
        users: TimedUser | Sequence[TimedUser],
        *,
        as_of: float | Sequence[float] | None = None,
        batch_size: int = BATCH,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Return the vectors (n, E) of `users`, or (E,) of one: events by service, oldest first.

        An event is its text, or a mapping of its `text`, its `item_id`, its `time` in epoch seconds
        and its fields by name, all but the text as far as they are known. `as_of` is the moment, of
        all users or of each; by default, and where infinite, that of the last event. Times that are
        positions are not compared with it. Raises ValueError for a user without events, an empty
        text, an unknown field or a value of another kind, and an event after `as_of`.
        """
        if isinstance(users, Mapping):
            return self.encode([users], as_of=as_of)[0]
        for number, user in enumerate(users):
            if not any(len(events) for events in user.values()):
                raise ValueError(f"user {number} has no events; leave such users out")
        moments = None if as_of is None else np.broadcast_to(as_of, len(users))

        def batch(rows: Sequence[int]) -> np.ndarray:
            at = None if moments is None else moments[list(rows)].astype(np.float64)
            return self._encode([users[row] for row in rows], at)

        return in_batches(
            batch,
            range(len(users)),
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )

    def _encode(self, users: Sequence[TimedUser], as_of: np.ndarray | None) -> np.ndarray:
        read = read_users(users, self.fields, self.services)
        known = (
            self._cache.read(read.items, self._read)
            if self._cache is not None
            else self._read(read.items)
        )
        of_model = [self._service(service) for service, _, _ in read.items]
        inputs = self._blocks.item_inputs(known, np.array(of_model, np.int64))
        parts = [
            (
                items,
                Ragged(
                    np.where(self.is_moment(name, times.values), times.values, np.nan),
                    times.offsets,
                ),
            )
            for name, (items, times) in zip(read.services, read.parts, strict=True)
        ]
        services = [Service(self._service(n), self.clocks.get(n, True)) for n in read.services]
        return self._blocks.of_users(parts, inputs, services, as_of, read.amounts)

    def keep_items(self, max_bytes: int, observe: Callable[[int, int], None] | None = None) -> None:
        """Have `encode` read a text once, while what was made of it is among the last `max_bytes`.

        `observe` is told of the hits and misses of each batch.
        """
        self._cache = ItemCache(max_bytes, self.max_item_tokens, observe)

    def _read(self, items: Sequence[Item]) -> ItemsRead:
        tokens = self._texts.tokens([text for _, text, _ in items])
        contents = content_of(tokens.values, tokens.lengths).tolist()
        rows = [
            self._known.row(service, content, item_id)
            for (service, _, item_id), content in zip(items, contents, strict=True)
        ]
        return self._blocks.read_items(tokens, np.array(rows, np.int64))

    def is_moment(self, service: str, times: np.ndarray) -> np.ndarray:
        """Return which `times` (n,) are moments: not NaN, and not positions.

        Of a service that pretraining had not, numbers of a time before March 1973 are positions.
        """
        return np.isfinite(times) & self.clocks.get(service, times >= CLOCK)

    def _service(self, name: str) -> int:
        """Return the row of a service in the model, -1 for one that it does not know."""
        return self.services.index(name) if name in self.services else -1

    def _services(self, corpus: Corpus) -> list[Service]:
        return [
            Service(self._service(name), corpus.is_clock(number))
            for number, name in enumerate(corpus.services)
        ]

    def encode_events(
        self,
        users: Sequence[Sequence[tuple[str, Described]]],
        *,
        as_of: float | Sequence[float] | None = None,
    ) -> np.ndarray:
        """Return `encode` of users whose events are (service, text or mapping), oldest first."""
        return self.encode([by_service(events) for events in users], as_of=as_of)

    def encode_users(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: ItemInputs | None = None,
    ) -> np.ndarray:
        """Return the vectors (n, E) of users whose (items, times) in each service are `parts`.

        Those without events are zero. `as_of` (n,) is each user's moment, by default the last
        event's; infinite ones are that too. `amounts` are the numeric fields of each service, in
        rows like its items'.
        """
        if items is None:
            items = self.item_inputs(corpus)
        return self._blocks.of_users(parts, items, self._services(corpus), as_of, amounts)

    def encode_services(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: ItemInputs | None = None,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the vectors (n, E) in each service alone, and what `encode_users` does."""
        inputs = self.item_inputs(corpus) if items is None else items
        services = self._services(corpus)
        return self._blocks.of_services(parts, inputs, services, as_of, amounts)

    def encode_histories(
        self, corpus: Corpus, histories: Ragged, *, items: ItemInputs | None = None
    ) -> np.ndarray:
        """Return the vectors (n, E) of rows of corpus items of one service, oldest first.

        Empty rows are zero. Nothing is known of when they were. `items` are `item_inputs(corpus)`.
        """
        inputs = self.item_inputs(corpus) if items is None else items
        times = Ragged(np.zeros(len(histories.values)), histories.offsets)
        present = np.unique(inputs.services[histories.values])
        service = Service(int(present[0]) if len(present) == 1 else -1, clock=False)
        return self._blocks.of_users([(histories, times)], inputs, [service], None)

    def item_arrays(self, corpus: Corpus, items: range) -> dict[str, np.ndarray]:
        """Return what the blocks read of these items alone, by block; raises as `item_inputs`."""
        check_tokenizer(corpus, self.tokenizer_sha256, self.tokenizer_path)
        tokens = corpus.item_tokens.take(np.arange(items.start, items.stop))
        read = self._blocks.read_items(tokens, self._known.rows(corpus, items))
        return {name: each.numpy() for name, each in read.vectors.items()}

    def item_inputs(
        self, corpus: Corpus, arrays: Mapping[str, np.ndarray] | None = None
    ) -> ItemInputs:
        """Return what the blocks read of each item; `arrays` are `item_arrays` of all of them.

        Raises ValueError for a corpus of another tokenizer.
        """
        items = range(corpus.num_items)
        made = self.item_arrays(corpus, items) if arrays is None else arrays
        vectors = {name: torch.from_numpy(each) for name, each in made.items()}
        known = np.array([self._service(name) for name in corpus.services], np.int64)
        read = ItemsRead(corpus.item_tokens, self._known.rows(corpus, items), vectors)
        return self._blocks.item_inputs(read, known[corpus.item_service])

    def item_vectors(self, corpus: Corpus) -> np.ndarray:
        """Return each item before the contrastive user encoder reads it, (I, D)."""
        return item_vectors(self.model.contrastive, corpus.item_tokens).numpy()

    def encode_catalogue(self, corpus: Corpus, *, items: ItemInputs | None = None) -> np.ndarray:
        """Return `encode_items` of every item of the corpus, in its order; `items` as above."""
        return self._blocks.of_items(self.item_inputs(corpus) if items is None else items)

    def encode_items(self, items: Sequence[str], *, service: str | None = None) -> np.ndarray:
        """Return the vectors (n, E) of items by their texts, and by their identity if known.

        clue/inference/blocks.py says what each block holds of an item; `aligned` needs the service
        and is zero without. Raises ValueError for an empty text.
        """
        tokens = self._texts.tokens(items)
        contents = content_of(tokens.values, tokens.lengths).tolist()
        names = self.services if service is None else [service]
        known = self._known.by_content
        rows = [next((known[n, c] for n in names if (n, c) in known), -1) for c in contents]
        own = -1 if service is None else self._service(service)
        services = np.full(len(items), own)
        read = self._blocks.read_items(tokens, np.array(rows, np.int64))
        return self._blocks.of_items(self._blocks.item_inputs(read, services))

    def input_keys(self, events: Sequence[Event]) -> list[str]:
        """Return the token ids that the model reads of each event (service, text), joined."""
        return self._texts.keys(events)

    def unread(self, events: Sequence[Event]) -> list[int]:
        """Return the numbers of the events (service, text) of which the model reads nothing."""
        return self._texts.unread(events)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine (n, m) of users' or items' vectors, over `similarity_columns`."""
        columns = self.similarity_columns
        return cosines(np.atleast_2d(a)[:, columns], np.atleast_2d(b)[:, columns])

    def save_pretrained(self, folder: Path | str, *, license: str = "unknown") -> Path:
        """Write the model into a folder that `clue.load` and the Hugging Face Hub read.

        `license` is an identifier of the Hub. Raises ValueError for fresh weights, and where the
        folder holds something else.
        """
        return hub.write_folder(self._trained(), Path(folder), license=license)

    def push_to_hub(self, name: str, *, private: bool = False, license: str = "unknown") -> str:
        """Upload what `save_pretrained` writes to the repository `name`; return the commit.

        Raises OSError where the Hub refuses it or cannot be reached.
        """
        return hub.upload(self._trained(), name, private=private, license=license)

    def _trained(self) -> ModelSource:
        return hub.trained(self.source, self._weights)
