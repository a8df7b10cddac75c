"""The universal encoder as a function: behaviours in, a vector of named blocks out.

    contrastive   which user is this? the mean of the services' unit vectors, at unit length
    predictive    what comes next? the mean of the services' last states
    pooled        what was met, all of it alike: factors of the items, sum / sqrt(distinct items)
    recent        the same, the newest event of a service weighing 1, the one before 1/2, then 1/3
    lexical       the words of what was met: factors of the tokens, pooled as `pooled`
    activity      how much and when, as of a moment (clue/data/activity.py)

The blocks keep their own scales: unit length would lose how much a user did. The cosine of two
users is that of the contrastive block, and a user's items rank by the inner product with the
predictive one. An item is known by its service and its id, or else by its service and text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_matrix

from clue.data.activity import activity, activity_names
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.text import content_of, encode, read_tokenizer
from clue.evaluation.encode import (
    by_service,
    item_vectors,
    predictive_items,
    predictive_states,
    user_vectors,
)
from clue.inference import hub
from clue.inference.hub import ModelSource, name_of
from clue.inference.pooling import BATCH, Event, Part, User, cosines, in_batches, pool_services
from clue.inference.source import find_source
from clue.nn.universal import UniversalEncoder as UniversalModel

BLOCKS = ("contrastive", "predictive", "pooled", "recent", "lexical", "activity")
KINDS = ("contrastive", "predictive", "pooled", "lexical")  # of an item's inputs, in order


@dataclass(frozen=True)
class Known:
    """The rows of the model's catalogue by (service, item id) and by (service, content)."""

    by_id: Mapping[tuple[str, str], int]
    by_content: Mapping[tuple[str, int], int]


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
        unknown = [name for name in blocks if name not in BLOCKS]
        if unknown or not blocks:
            raise ValueError(
                f"blocks={list(blocks)} names {unknown or 'none'}; there are {', '.join(BLOCKS)}"
            )
        self.source, self.model = source, model
        self.fingerprint = fingerprint
        if tuple(blocks) != BLOCKS:
            self.fingerprint += "-" + "-".join(name for name in BLOCKS if name in blocks)
        self.max_events = model.contrastive.config.user.max_events
        self.max_item_tokens = int(source.corpus["max_item_tokens"])
        self.services = tuple(source.corpus["services"])
        self.clocks: Mapping[str, bool] = source.corpus["clocks"]
        self.tokenizer_sha256 = source.corpus["tokenizer_sha256"]
        self.tokenizer_path = source.path / "tokenizer.json"
        self.scale = model.contrastive.scale().item()
        widths = {
            "contrastive": model.contrastive.config.user.embedding,
            "predictive": model.predictive.config.width,
            "pooled": model.item_factors.shape[1],
            "recent": model.item_factors.shape[1],
            "lexical": model.token_factors.shape[1],
            "activity": len(activity_names()),
        }
        self.blocks: dict[str, slice] = {}
        for name in BLOCKS:
            if name in blocks:
                start = max((b.stop for b in self.blocks.values()), default=0)
                self.blocks[name] = slice(start, start + widths[name])
        self.width = max(columns.stop for columns in self.blocks.values())
        self._known = known_items(source)
        self._tokenizer = read_tokenizer(self.tokenizer_path)

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
        )
        if seed is None:
            model.load_state_dict(source.weights())
        return cls(source, model.eval().to(device), name_of(source, seed), blocks)

    @property
    def similarity_columns(self) -> slice:
        """The contrastive block's columns; all, where it was not chosen."""
        return self.blocks.get("contrastive", slice(0, self.width))

    def encode(
        self,
        users: User | Sequence[User],
        *,
        as_of: float | Sequence[float] | None = None,
        batch_size: int = BATCH,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Return the vectors (n, E) of `users`, or (E,) of one: events by service, oldest first.

        An event is its text, or a mapping of its `text` and its `time` in epoch seconds. `as_of` is
        the moment, of all users or of each; by default that of the last event. Raises ValueError
        for a user without events, an empty text, and an event after `as_of`.
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

    def _encode(self, users: Sequence[User], as_of: np.ndarray | None) -> np.ndarray:
        services = list(dict.fromkeys(name for user in users for name in user)) or [""]
        events = {
            name: [[_event(each) for each in user.get(name, ())] for user in users]
            for name in services
        }
        distinct = dict.fromkeys(
            (name, text) for name, rows in events.items() for row in rows for text, _ in row
        )
        number = {key: row for row, key in enumerate(distinct)}
        tokens = self._tokens([text for _, text in distinct])
        contents = content_of(tokens.values, tokens.lengths).tolist()
        keys = zip((name for name, _ in distinct), contents, strict=True)
        rows = np.array([self._known.by_content.get(key, -1) for key in keys], np.int64)
        parts: list[Part] = []
        clocks: list[bool] = []
        for name, histories in events.items():
            items = Ragged.from_lists(
                [[number[name, text] for text, _ in row] for row in histories]
            )
            times = np.array([time for row in histories for _, time in row], np.float64)
            clocks.append(self.clocks.get(name, True) and bool(np.isfinite(times).all()))
            parts.append((items, Ragged(np.nan_to_num(times), items.offsets)))
        return self._vectors(parts, self._inputs(tokens, rows), clocks, as_of)

    def encode_events(self, users: Sequence[Sequence[Event]]) -> np.ndarray:
        """Return `encode` of users whose events are (service, text), oldest first."""
        return self.encode([by_service(events) for events in users])

    def encode_users(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        items: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Return the vectors (n, E) of users whose (items, times) in each service of the corpus are
        `parts`; those without events are zero.

        `as_of` (n,) is each user's moment, by default the last event's; infinite ones are that too.
        """
        if items is None:
            items = self.item_inputs(corpus)
        clocks = [corpus.is_clock(number) for number in range(len(corpus.services))]
        return self._vectors(parts, items, clocks, as_of)

    def encode_services(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        items: torch.Tensor | None = None,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the vectors (n, E) in each service alone, and what `encode_users` does."""
        inputs = self.item_inputs(corpus) if items is None else items
        clocks = [corpus.is_clock(number) for number in range(len(corpus.services))]
        each = [
            self._vectors([part], inputs, [clock], as_of)
            for part, clock in zip(parts, clocks, strict=True)
        ]
        return each, each[0] if len(each) == 1 else self._vectors(parts, inputs, clocks, as_of)

    def encode_histories(
        self, corpus: Corpus, histories: Ragged, *, items: torch.Tensor | None = None
    ) -> np.ndarray:
        """Return the vectors (n, E) of rows of corpus items, oldest first; empty rows are zero.

        Nothing is known of when they were. `items` are `item_inputs(corpus)`.
        """
        inputs = self.item_inputs(corpus) if items is None else items
        times = Ragged(np.zeros(len(histories.values)), histories.offsets)
        return self._vectors([(histories, times)], inputs, [False], None)

    def item_inputs(self, corpus: Corpus) -> torch.Tensor:
        """Return what the blocks read of each item of the corpus, side by side (I, D).

        Raises ValueError for a corpus of another tokenizer.
        """
        if corpus.manifest.tokenizer_sha256 != self.tokenizer_sha256:
            raise ValueError(
                f"{corpus.path} was prepared with another tokenizer than the checkpoint's; prepare "
                f"it again with tokenizer.path={self.tokenizer_path}"
            )
        services = [corpus.services[number] for number in corpus.item_service]
        keys = zip(services, corpus.item_ids.to_pylist(), strict=True)
        rows = np.array([self._known.by_id.get(key, -1) for key in keys], np.int64)
        return self._inputs(corpus.item_tokens, rows)

    def item_vectors(self, corpus: Corpus) -> np.ndarray:
        """Return each item before the contrastive user encoder reads it, (I, D)."""
        return self._part(self.item_inputs(corpus), "contrastive").numpy()

    def encode_catalogue(self, corpus: Corpus, *, items: torch.Tensor | None = None) -> np.ndarray:
        """Return `encode_items` of every item of the corpus, in its order; `items` as above."""
        return self._items(self.item_inputs(corpus) if items is None else items)

    def encode_items(self, items: Sequence[str], *, service: str | None = None) -> np.ndarray:
        """Return the vectors (n, E) of items by their texts; with `service`, known ones by identity.

        In the contrastive block it is the vector of a user who did just that; in `predictive`,
        `pooled`, `recent` and `lexical` that of the item, whose inner product with a user's says
        how it fits; activity is zero. Raises ValueError for an empty text.
        """
        tokens = self._tokens(items)
        contents = content_of(tokens.values, tokens.lengths).tolist()
        names = self.services if service is None else [service]
        rows = [
            next(
                (self._known.by_content[n, c] for n in names if (n, c) in self._known.by_content),
                -1,
            )
            for c in contents
        ]
        return self._items(self._inputs(tokens, np.array(rows, np.int64)))

    def input_keys(self, events: Sequence[Event]) -> list[str]:
        """Return the token ids that the model reads of each event (service, text), joined."""
        tokens = self._tokens([text for _, text in events])
        return [" ".join(map(str, tokens[row])) for row in range(len(tokens))]

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine (n, m) of the contrastive blocks of `a` (n, E) and of `b` (m, E)."""
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
        return hub.trained(self.source, self.fingerprint.split("-contrastive")[0])

    def _inputs(self, tokens: Ragged, rows: np.ndarray) -> torch.Tensor:
        """Return the inputs (I, D) of items with these tokens and rows of the catalogue, -1 none."""
        model, known = self.model, torch.from_numpy(rows >= 0)
        factors = torch.zeros(len(rows), model.item_factors.shape[1])
        factors[known] = model.item_factors.detach().cpu()[torch.from_numpy(rows)[known]]
        ones = (np.ones(len(tokens.values), np.float32), tokens.values, tokens.offsets)
        bags = csr_matrix(ones, (len(tokens), len(model.token_factors)))
        words = torch.from_numpy(bags @ model.token_factors.detach().cpu().numpy())
        texts = item_vectors(model.contrastive, tokens)
        return torch.cat(
            [texts, predictive_items(model.predictive, tokens, rows), factors, words], 1
        )

    def _part(self, inputs: torch.Tensor, name: str) -> torch.Tensor:
        """Return the columns of `inputs` that one of KINDS reads."""
        model = self.model
        widths = [
            model.contrastive.config.item.width,
            model.predictive.config.width,
            model.item_factors.shape[1],
            model.token_factors.shape[1],
        ]
        ends = np.cumsum(widths)
        kind = KINDS.index(name)
        return inputs[:, ends[kind] - widths[kind] : ends[kind]]

    def _items(self, inputs: torch.Tensor) -> np.ndarray:
        single = Ragged(np.arange(len(inputs)), np.arange(len(inputs) + 1))
        made: dict[str, np.ndarray] = {
            "activity": np.zeros((len(inputs), len(activity_names())), np.float32)
        }
        for name in set(self.blocks) - {"activity", "contrastive"}:
            made[name] = self._part(inputs, "pooled" if name == "recent" else name).numpy()
        if "contrastive" in self.blocks:
            texts = self._part(inputs, "contrastive")
            made["contrastive"] = user_vectors(self.model.contrastive, texts, single).numpy()
        return np.concatenate([made[name] for name in self.blocks], axis=1)

    def _vectors(
        self,
        parts: Sequence[Part],
        inputs: torch.Tensor,
        clocks: Sequence[bool],
        as_of: np.ndarray | None,
    ) -> np.ndarray:
        """Return the chosen blocks of users, (n, E), from (items, times) of each service."""
        made: dict[str, np.ndarray] = {}
        if "contrastive" in self.blocks:
            made["contrastive"] = self._contrastive(parts, self._part(inputs, "contrastive"))
        if "predictive" in self.blocks:
            made["predictive"] = self._predictive(parts, self._part(inputs, "predictive"))
        uniform, recent = bags(parts, len(inputs))
        for name, bag in (("pooled", uniform), ("recent", recent), ("lexical", uniform)):
            if name in self.blocks:
                vectors = self._part(inputs, "lexical" if name == "lexical" else "pooled")
                made[name] = np.asarray(bag @ vectors.numpy(), np.float32)
        if "activity" in self.blocks:
            made["activity"] = activity(parts, clocks, as_of)
        whole = np.concatenate([made[name] for name in self.blocks], axis=1)
        whole[np.sum([items.lengths for items, _ in parts], axis=0) == 0] = 0
        return whole

    def _contrastive(self, parts: Sequence[Part], texts: torch.Tensor) -> np.ndarray:
        model, users = self.model.contrastive, len(parts[0][0])

        def unit_vectors() -> "list[tuple[np.ndarray, np.ndarray]]":
            made: list[tuple[np.ndarray, np.ndarray]] = []
            for items, _ in parts:
                some = np.flatnonzero(items.lengths > 0)
                newest = items.take(some).last(self.max_events)
                made.append((some, user_vectors(model, texts, newest).numpy()))
            return made

        return pool_services(unit_vectors(), users)

    def _predictive(self, parts: Sequence[Part], items: torch.Tensor) -> np.ndarray:
        total = np.zeros((len(parts[0][0]), items.shape[1]), np.float32)
        services = np.zeros(len(total))
        for histories, _ in parts:
            total += predictive_states(self.model.predictive, items, histories).numpy()
            services += histories.lengths > 0
        return total / np.maximum(services, 1)[:, None].astype(np.float32)

    def _tokens(self, texts: Sequence[str]) -> Ragged:
        # the very step that wrote the corpus, or a text would read otherwise here than there
        tokens, lengths = encode(self._tokenizer, texts, self.max_item_tokens)
        if not lengths.all():
            text = texts[int(lengths.argmin())]
            raise ValueError(f"{text!r} is an empty text; an event needs words to be read")
        return Ragged(tokens, np.concatenate([[0], np.cumsum(lengths)]))


def bags(parts: Sequence[Part], items: int) -> tuple[csr_matrix, csr_matrix]:
    """Return two matrices (n, items) of users' bags: all items alike, and the newest foremost.

    In the first an item met c times has 1 + log c over the root of the number of distinct items.
    In the second the events of a service weigh 1, 1/2, 1/3 … from the newest, over the root of the
    sum of their squares.
    """
    users = len(parts[0][0])
    uniform, recent = csr_matrix((users, items)), csr_matrix((users, items))
    for histories, _ in parts:
        lengths, ends = histories.lengths, histories.offsets[1:]
        rank = np.repeat(ends, lengths) - np.arange(len(histories.values))
        place = histories.values.copy(), histories.offsets.copy()  # SciPy sorts them where they lie
        uniform = uniform + csr_matrix((np.ones(len(rank)), *place), (users, items))
        recent = recent + csr_matrix((1 / rank, *place), (users, items))
    uniform.data = 1 + np.log(uniform.data)
    distinct = np.sqrt(np.maximum(np.diff(uniform.indptr), 1))
    uniform.data /= np.repeat(distinct, np.diff(uniform.indptr))
    norms = np.sqrt(np.asarray(recent.multiply(recent).sum(1)).ravel())
    recent.data /= np.repeat(np.maximum(norms, 1e-12), np.diff(recent.indptr))
    return uniform.astype(np.float32), recent.astype(np.float32)


def known_items(source: ModelSource) -> Known:
    """Return the items of a checkpoint's catalogue; of equal texts of a service the first counts."""
    with pa.memory_map(str(source.path / "catalogue.arrow")) as file:
        columns = pa.ipc.open_file(file).read_all().to_pydict()
    by_content: dict[tuple[str, int], int] = {}
    ids = zip(columns["service"], columns["item_id"], strict=True)
    contents = zip(columns["service"], columns["content"], strict=True)
    for row, key in enumerate(contents):
        by_content.setdefault(key, row)
    return Known({key: row for row, key in enumerate(ids)}, by_content)


def _event(event: "str | Mapping[str, str | float]") -> tuple[str, float]:
    """Return an event's text and time, NaN where it has none."""
    if isinstance(event, str):
        return event, np.nan
    return str(event["text"]), float(event.get("time", np.nan))
