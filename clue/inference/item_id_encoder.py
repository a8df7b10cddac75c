"""The model that reads item ids, as a function: behaviours in, unit vectors out.

The next-item model ranks items by the inner product h . e_j of a user's state h (D,) and items e_j
of any length; an index, a probe and the matching of users want unit vectors and their cosine. With
M the length of the longest e_j, the vectors (E = D + 1)

    user  [h / |h|, 0]        item  [e_j / M, sqrt(1 - |e_j|^2 / M^2)]

have length one, a user's cosines rank the items exactly as h . e_j does, and two users' cosine is
that of their states (Bachrach et al. 2014, "Speeding Up the Xbox Recommender System Using a
Euclidean Transformation for Inner-Product Spaces", RecSys).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from clue.data.corpus import Corpus, Ragged
from clue.evaluation.encode import by_service, last_states, normalised, packed
from clue.nn.decoder import NextItemDecoder
from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint


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

    def __init__(self, source: Checkpoint, model: NextItemDecoder, fingerprint: str) -> None:
        """Use `ItemIdEncoder.load` or `ItemIdEncoder.untrained`."""
        self.model, self.fingerprint = model, fingerprint
        self.width = model.config.width + 1
        self.max_events = model.config.max_events
        self.max_item_tokens = int(source.corpus["max_item_tokens"])
        self.tokenizer_path = source.path / "tokenizer.json"
        self.join: Literal["time", "service"] = source.config.sequences.join
        keys = catalogue_of(source)
        self.rows = {key: row for row, key in enumerate(keys)}
        self.services = tuple(dict.fromkeys(service for service, _ in keys))

    @classmethod
    def load(cls, path: Path | str, device: str = "cpu") -> "ItemIdEncoder":
        """Return the model of a run directory (its best checkpoint) or of a checkpoint directory.

        Raises FileNotFoundError where there is none, ValueError where a file is damaged or the
        model is of another kind.
        """
        return cls.of(checkpoint.find(Path(path)), device)

    @classmethod
    def untrained(cls, path: Path | str, seed: int = 0, device: str = "cpu") -> "ItemIdEncoder":
        """Return the same architecture and catalogue, fresh weights: the control of any claim."""
        return cls.of(checkpoint.find(Path(path)), device, seed)

    @classmethod
    def of(
        cls, source: Checkpoint, device: str = "cpu", seed: int | None = None
    ) -> "ItemIdEncoder":
        """Return the model of a checkpoint; with a `seed`, fresh weights drawn by it instead."""
        config = source.config
        if config.objective != "next_item":
            raise ValueError(
                f"{source.path} is of objective: {config.objective}, whose model reads no item "
                "ids; give a run of objective: next_item, or use clue.inference.text_encoder"
            )
        fingerprint = source.fingerprint
        if seed is not None:
            torch.manual_seed(seed)
            fingerprint = f"untrained-{seed}-{fingerprint}"
        model = NextItemDecoder(config.decoder, len(catalogue_of(source)))
        if seed is None:
            model.load_state_dict(source.weights())
        return cls(source, model.eval().to(device), fingerprint)

    def embed(self, user: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Return the vector (E,) of one user: item ids by service, oldest first."""
        return self.embed_users([user])[0]

    def embed_users(self, users: Sequence[Mapping[str, Sequence[str]]]) -> np.ndarray:
        """Return `embed_events` of users whose item ids stand by service, oldest first.

        Raises ValueError too for a user of several services whose events have to be one history:
        nothing says in which order they came.
        """
        for number, user in enumerate(users):
            used = [service for service, ids in user.items() if len(ids)]
            if self.join == "time" and len(used) > 1:
                raise ValueError(
                    f"user {number} has events in {', '.join(used)} and the model reads one "
                    "history over all services; give embed_events the events in their order"
                )
        return self.embed_events(
            [[(service, each) for service, ids in user.items() for each in ids] for user in users]
        )

    def embed_events(self, users: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray:
        """Return the vectors (n, E) of users over all services; events are (service, item id).

        Events stand oldest first; of a history the newest `max_events` are read. Raises ValueError
        for a user without events and for an item outside the catalogue, naming which.
        """
        histories: list[list[int]] = []
        owners: list[int] = []
        for number, events in enumerate(users):
            if not events:
                raise ValueError(f"user {number} has no events; leave such users out")
            parts = [events]
            if self.join == "service":
                mine = by_service(events)
                parts = [[(service, each) for each in ids] for service, ids in mine.items()]
            histories += [[self.row_of(*event) for event in part] for part in parts]
            owners += [number] * len(parts)
        total = np.zeros((len(users), self.width), np.float32)
        np.add.at(total, owners, self._vectors(packed(histories)))
        return normalised(total)

    def row_of(self, service: str, item_id: str) -> int:
        """Return an item's row of the model. Raises ValueError for one outside the catalogue."""
        if (service, item_id) not in self.rows:
            raise ValueError(
                f"item {item_id!r} of service {service!r} is none of the {len(self.rows):,} that "
                "the model knows; leave it out, or train on a log that has it"
            )
        return self.rows[service, item_id]

    def catalogue(self, corpus: Corpus, *, items: torch.Tensor | None = None) -> np.ndarray:
        """Return the vectors (I, E) of every item of the corpus, in its order; `items` as below."""
        rows = self.catalogue_items(corpus) if items is None else items
        table = self.model.decoder.item.weight.detach().double().cpu()
        lengths = table.norm(dim=1)
        longest = lengths.max()
        lift = (1 - (lengths / longest).square()).clamp(min=0).sqrt()
        return torch.cat([table / longest, lift[:, None]], 1)[rows].float().numpy()

    def embed_histories(
        self, corpus: Corpus, histories: Ragged, *, items: torch.Tensor | None = None
    ) -> np.ndarray:
        """Return the vectors (n, E) of rows of corpus items, oldest first; empty rows are zero.

        `items` are `catalogue_items(corpus)`, for callers who come more than once.
        """
        rows = self.catalogue_items(corpus) if items is None else items
        return self._vectors(Ragged(rows.numpy()[histories.values], histories.offsets))

    def catalogue_items(self, corpus: Corpus) -> torch.Tensor:
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

    def _vectors(self, histories: Ragged) -> np.ndarray:
        """Return the vectors (n, E) of histories of the model's own rows."""
        states = normalised(last_states(self.model, histories).numpy())
        return np.pad(states, ((0, 0), (0, 1)))


def catalogue_of(source: Checkpoint) -> list[tuple[str, str]]:
    """Return service and item id of each row of a checkpoint's item embedding."""
    with pa.memory_map(str(source.path / "catalogue.arrow")) as file:
        columns = pa.ipc.open_file(file).read_all().to_pydict()
    return list(zip(columns["service"], columns["item_id"], strict=True))
