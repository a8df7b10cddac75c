"""The model that reads item ids, as a function: behaviours in, unit vectors out.

The next-item model ranks items by the inner product h . e_j of a user's state h (D,) and items e_j
of any length; an index, a probe and the matching of users want unit vectors and their cosine. With
M the length of the longest e_j, the vectors (E = D + 1)

    user  [h / |h|, 0]        item  [e_j / M, sqrt(1 - |e_j|^2 / M^2)]

have length one, a user's cosines rank the items exactly as h . e_j does, and two users' cosine is
that of their states (Bachrach et al. 2014, "Speeding Up the Xbox Recommender System Using a
Euclidean Transformation for Inner-Product Spaces", RecSys).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.encode import by_service, last_states, normalised
from clue.inference import hub
from clue.inference.hub import ModelSource, name_of
from clue.inference.pooling import (
    BATCH,
    Amounts,
    Event,
    Part,
    User,
    cosines,
    in_batches,
    pool_services,
    services_and_all,
)
from clue.inference.source import find_source
from clue.nn.decoder import NextItemDecoder


class ItemIdEncoder:
    """A next-item model as a function: histories of item ids in, unit vectors out.

    `width` is E = D + 1, `services` those of the catalogue, `rows` finds the row of the model's
    item (service, item id), `fingerprint` names the weights and the catalogue. No one `scale` turns
    cosines back into logits: it is M |h|, another for each user. A user's services `join` as the
    config of its sequences says: by `time` into one history, or by `service` as the mean of their
    vectors. `tokenizer_path` and `max_item_tokens` are how the texts of its corpus were read.
    """

    reads: Literal["item_id"] = "item_id"
    scale: None = None

    def __init__(self, source: ModelSource, model: NextItemDecoder, fingerprint: str) -> None:
        """Use `ItemIdEncoder.load`."""
        self.source, self.model, self.fingerprint = source, model, fingerprint
        self.width = model.config.width + 1
        self.blocks: Mapping[str, slice] = {}
        self.similarity_columns = self.ranking_columns = slice(0, self.width)
        self.max_events = model.config.max_events
        self.max_item_tokens = int(source.corpus["max_item_tokens"])
        self.tokenizer_path = source.path / "tokenizer.json"
        self.join: Literal["time", "service"] = source.config.sequences.join
        keys = catalogue_of(source)
        self.rows = {key: row for row, key in enumerate(keys)}
        self.services: tuple[str, ...] = tuple(dict.fromkeys(service for service, _ in keys))

    @classmethod
    def load(
        cls, path: Path | str, device: str = "cpu", *, seed: int | None = None
    ) -> "ItemIdEncoder":
        """Return the model that `clue.load` does, of this kind alone.

        Raises FileNotFoundError where there is none, ValueError where a file is damaged or the
        model is of another kind.
        """
        return cls.of(find_source(path), device, seed)

    @classmethod
    def of(
        cls, source: ModelSource, device: str = "cpu", seed: int | None = None
    ) -> "ItemIdEncoder":
        """Return the model of `source`; with a `seed`, fresh weights drawn by it instead."""
        config = source.config
        if config.objective != "next_item":
            raise ValueError(
                f"{source.path} is of objective: {config.objective}, whose model reads no item "
                "ids; give a run of objective: next_item, or use clue.inference.text_encoder"
            )
        if seed is not None:
            torch.manual_seed(seed)
        model = NextItemDecoder(config.decoder, len(catalogue_of(source)))
        if seed is None:
            model.load_state_dict(source.weights())
        return cls(source, model.eval().to(device), name_of(source, seed))

    def encode(
        self,
        users: User | Sequence[User],
        *,
        as_of: float | Sequence[float] | None = None,
        batch_size: int = BATCH,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Return the vectors (n, E) of `users`, or (E,) of one: item ids by service, oldest first.

        `batch_size` users are in memory at a time, and `as_of` is not read: the model knows no
        time. Raises ValueError as `encode_events` does, and for a user of several services whose
        events have to be one history: nothing says in which order they came.
        """
        if isinstance(users, Mapping):
            return self.encode([users])[0]
        for number, user in enumerate(users):
            used = [service for service, ids in user.items() if len(ids)]
            if self.join == "time" and len(used) > 1:
                raise ValueError(
                    f"user {number} has events in {', '.join(used)} and the model reads one "
                    "history over all services; give encode_events the events in their order"
                )
        return in_batches(
            self.encode_events,
            [[(service, each) for service, ids in user.items() for each in ids] for user in users],
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )

    def encode_events(
        self,
        users: Sequence[Sequence[Event]],
        *,
        as_of: float | Sequence[float] | None = None,
    ) -> np.ndarray:
        """Return the vectors (n, E) of users over all services; events are (service, item id).

        Events stand oldest first; of a history the newest `max_events` are read, and `as_of` is
        not. Raises ValueError for a user without events and for an item outside the catalogue,
        naming which.
        """
        histories: list[list[int]] = []
        user_index: list[int] = []
        for number, events in enumerate(users):
            if not events:
                raise ValueError(f"user {number} has no events; leave such users out")
            parts = [events]
            if self.join == "service":
                of_service = by_service(events)
                parts = [[(service, each) for each in ids] for service, ids in of_service.items()]
            histories += [[self.row_of(*event) for event in part] for part in parts]
            user_index += [number] * len(parts)
        return pool_services(
            [(np.array(user_index, np.int64), self._vectors(Ragged.from_lists(histories)))],
            len(users),
        )

    def keep_items(self, max_bytes: int, observe: Callable[[int, int], None] | None = None) -> None:
        """Keep nothing more: the items are rows of a table already."""

    def unread(self, events: Sequence[Event]) -> list[int]:
        """Return the numbers of the events (service, item id) without an id."""
        return [number for number, (_, item_id) in enumerate(events) if not item_id]

    def input_keys(self, events: Sequence[Event]) -> list[str]:
        """Return the item id of each event (service, item id)."""
        return [item_id for _, item_id in events]

    def encode_items(self, items: Sequence[str], *, service: str | None = None) -> np.ndarray:
        """Return the vectors (n, E) of items by their ids, by whose cosine the model ranks.

        `service` is theirs, and need not be said where the catalogue has only one. Raises
        ValueError without it, and for an item outside the catalogue.
        """
        names = list(self.services)
        if service is None and len(names) > 1:
            raise ValueError(f"say service=, the one of the items: {', '.join(names)}")
        chosen = names[0] if service is None else service
        rows = torch.tensor([self.row_of(chosen, item) for item in items], dtype=torch.int64)
        return self._item_table()[rows].numpy()

    def save_pretrained(self, folder: Path | str, *, license: str = "unknown") -> Path:
        """Write the model into a folder that `clue.load` and the Hugging Face Hub read.

        `license` is an identifier of the Hub. Raises ValueError for fresh weights, and where the
        folder holds something else.
        """
        return hub.write_folder(
            hub.trained(self.source, self.fingerprint), Path(folder), license=license
        )

    def push_to_hub(self, name: str, *, private: bool = False, license: str = "unknown") -> str:
        """Upload what `save_pretrained` writes to the repository `name`; return the commit.

        Raises OSError where the Hub refuses it or cannot be reached.
        """
        return hub.upload(
            hub.trained(self.source, self.fingerprint), name, private=private, license=license
        )

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine (n, m) of each vector of `a` (n, E) with each of `b` (m, E)."""
        return cosines(a, b)

    def row_of(self, service: str, item_id: str) -> int:
        """Return an item's row of the model. Raises ValueError for one outside the catalogue."""
        if (service, item_id) not in self.rows:
            raise ValueError(
                f"item {item_id!r} of service {service!r} is none of the {len(self.rows):,} that "
                "the model knows; leave it out, or train on a log that has it"
            )
        return self.rows[service, item_id]

    def encode_catalogue(self, corpus: Corpus, *, items: torch.Tensor | None = None) -> np.ndarray:
        """Return the vector (I, E) of each item of the corpus, in its order; `items` as below."""
        rows = self.item_inputs(corpus) if items is None else items
        return self._item_table()[rows].numpy()

    def encode_users(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Return the vectors (n, E) of users whose (items, times) in each service are `parts`.

        Those without any event are zero. `as_of` and `amounts` are not read.
        """
        return self.encode_services(corpus, parts, items=items)[1]

    def encode_services(
        self,
        corpus: Corpus,
        parts: Sequence[Part],
        *,
        as_of: np.ndarray | None = None,
        amounts: Sequence[Amounts] = (),
        items: torch.Tensor | None = None,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the vectors (n, E) in each service alone, and what `encode_users` does."""
        inputs = self.item_inputs(corpus) if items is None else items

        def encode(_: int | None, histories: Ragged) -> np.ndarray:
            return self.encode_histories(corpus, histories, items=inputs)

        return services_and_all(parts, encode, self.join)

    def encode_histories(
        self, corpus: Corpus, histories: Ragged, *, items: torch.Tensor | None = None
    ) -> np.ndarray:
        """Return the vectors (n, E) of rows of corpus items, oldest first; empty rows are zero.

        `items` are `item_inputs(corpus)`, for callers who come more than once.
        """
        rows = self.item_inputs(corpus) if items is None else items
        return self._vectors(Ragged(rows.numpy()[histories.values], histories.offsets))

    def item_vectors(self, corpus: Corpus) -> np.ndarray:
        """Return the embedding e_j (I, D) of each item of the corpus, of any length."""
        return self.model.decoder.item.weight.detach()[self.item_inputs(corpus)].cpu().numpy()

    def item_arrays(self, corpus: Corpus, items: range) -> dict[str, np.ndarray]:
        """Return nothing: this model's items are rows of a table."""
        return {}

    def item_inputs(
        self, corpus: Corpus, arrays: Mapping[str, np.ndarray] | None = None
    ) -> torch.Tensor:
        """Return the row (I,) of the model for every item of the corpus, whatever their order.

        Raises ValueError where the corpus has items outside the catalogue: it is of another log.
        """
        services = [corpus.services[number] for number in corpus.item_service]
        keys = list(zip(services, corpus.item_ids.to_pylist(), strict=True))
        unknown = [key for key in keys if key not in self.rows]
        if unknown:
            service, item_id = unknown[0]
            raise ValueError(
                f"{corpus.path} is of another catalogue: {len(unknown):,} of its {len(keys):,} "
                f"items are none of the {len(self.rows):,} that the model knows, the first of them "
                f"{item_id!r} of {service!r}; train on this corpus, or prepare one of known items "
                f"of {', '.join(self.services)} alone"
            )
        return torch.tensor([self.rows[key] for key in keys])

    def _item_table(self) -> torch.Tensor:
        """Return the unit vectors (V, E) of the whole catalogue, fp32 on the CPU."""
        table = self.model.decoder.item.weight.detach().double().cpu()
        lengths = table.norm(dim=1)
        longest = lengths.max()
        lift = (1 - (lengths / longest).square()).clamp(min=0).sqrt()
        return torch.cat([table / longest, lift[:, None]], 1).float()

    def _vectors(self, histories: Ragged) -> np.ndarray:
        """Return the vectors (n, E) of histories of the model's own rows."""
        states = normalised(last_states(self.model, histories).numpy())
        return np.pad(states, ((0, 0), (0, 1)))


def catalogue_of(source: ModelSource) -> list[tuple[str, str]]:
    """Return service and item id of each row of a checkpoint's item embedding."""
    with pa.memory_map(str(source.path / "catalogue.arrow")) as file:
        columns = pa.ipc.open_file(file).read_all().to_pydict()
    return list(zip(columns["service"], columns["item_id"], strict=True))
