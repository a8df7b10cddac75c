"""The blocks of a universal vector: what is computed of users and of items, by name.

    contrastive   which user is this? the mean of the services' unit vectors, at unit length
    aligned       the same by linear maps of each service's words and items (alignment.py)
    predictive    what comes next? the mean of the services' last states
    pooled        what was met, all of it alike: factors of the items, sum / sqrt(distinct items)
    recent        the same, the newest event of a service weighing 1, the one before 1/2, then 1/3
    lexical       the words of what was met: factors of the tokens, pooled as `pooled`
    activity      how much and when, as of a moment (clue/data/activity.py)

The blocks keep their own scales: unit length would lose how much a user did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from clue.data.activity import activity, activity_names
from clue.data.ragged import Ragged
from clue.evaluation.encode import (
    item_vectors,
    normalised,
    predictive_items,
    predictive_states,
    user_vectors,
)
from clue.inference.pooling import Amounts, Part, pool_services
from clue.nn.universal import UniversalEncoder
from clue.train.alignment import Alignment, documents_of

Matrix = Any  # a csr_matrix, whose data SciPy's types do not know
BLOCKS = ("contrastive", "aligned", "predictive", "pooled", "recent", "lexical", "activity")


@dataclass(frozen=True)
class Service:
    """A service of users' events: its `row` in the model, -1 for none, and if it has a `clock`."""

    row: int
    clock: bool


@dataclass(frozen=True)
class ItemInputs:
    """What blocks read of I items: `tokens`, `rows` of the catalogue, -1 for one outside it,
    `services` (I,) of the model, `vectors` by block.
    """

    tokens: Ragged
    rows: np.ndarray
    services: np.ndarray
    vectors: Mapping[str, torch.Tensor]


class BlockVectors:
    """The chosen blocks of one model; `columns` are those of each in a vector, by name."""

    def __init__(
        self, model: UniversalEncoder, amounts: Sequence[str], blocks: Sequence[str]
    ) -> None:
        """`amounts` are the numeric fields that activity reads.

        Raises ValueError for a block that there is not, or none.
        """
        unknown = [name for name in blocks if name not in BLOCKS]
        if unknown or not blocks:
            raise ValueError(
                f"blocks={list(blocks)} names {unknown or 'none'}; there are {', '.join(BLOCKS)}"
            )
        self.model, self.amounts = model, tuple(amounts)
        parts = {name: each.detach().cpu() for name, each in model.aligned.items()}
        self._alignment = Alignment(**parts)
        widths = {
            "contrastive": model.contrastive.config.user.embedding,
            "aligned": model.factors.aligned,
            "predictive": model.predictive.config.width,
            "pooled": model.item_factors.shape[1],
            "recent": model.item_factors.shape[1],
            "lexical": model.token_factors.shape[1],
            "activity": len(activity_names(self.amounts)),
        }
        self.columns: dict[str, slice] = {}
        self.width = 0
        for name in BLOCKS:
            if name in blocks:
                self.columns[name] = slice(self.width, self.width + widths[name])
                self.width += widths[name]

    def item_inputs(self, tokens: Ragged, rows: np.ndarray, services: np.ndarray) -> ItemInputs:
        """Return what the chosen blocks read of items.

        They have these `tokens`, `rows` of the catalogue and `services` of the model (I,), -1 for
        none.
        """
        model = self.model
        inputs: dict[str, torch.Tensor] = {}
        if "contrastive" in self.columns:
            inputs["contrastive"] = item_vectors(model.contrastive, tokens)
        if "predictive" in self.columns:
            inputs["predictive"] = predictive_items(model.predictive, tokens, rows)
        if {"pooled", "recent"} & self.columns.keys():
            known = torch.from_numpy(rows >= 0)
            factors = torch.zeros(len(rows), model.item_factors.shape[1])
            factors[known] = model.item_factors.detach().cpu()[torch.from_numpy(rows)[known]]
            inputs["pooled"] = inputs["recent"] = factors
        if "lexical" in self.columns:
            ones = (np.ones(len(tokens.values), np.float32), tokens.values, tokens.offsets)
            words = csr_matrix(ones, (len(tokens), len(model.token_factors)))
            made = words @ model.token_factors.detach().cpu().numpy()
            inputs["lexical"] = torch.from_numpy(made)
        return ItemInputs(tokens, rows, services, inputs)

    def of_items(self, items: ItemInputs) -> np.ndarray:
        """Return the vectors (I, E) of items: what a user's are compared with.

        `contrastive` and `aligned` are those of a user who did just that, `activity` is zero, and
        the rest are the item's own, whose inner product with the user's block says how it fits.
        """
        count = len(items.tokens)
        single = Ragged(np.arange(count), np.arange(count + 1))
        made = {name: each.numpy() for name, each in items.vectors.items()}
        made["activity"] = np.zeros((count, len(activity_names(self.amounts))), np.float32)
        if "contrastive" in self.columns:
            texts = items.vectors["contrastive"]
            made["contrastive"] = user_vectors(self.model.contrastive, texts, single).numpy()
        if "aligned" in self.columns:
            made["aligned"] = np.zeros((count, self.model.factors.aligned), np.float32)
            for service in np.unique(items.services[items.services >= 0]):
                rows = np.flatnonzero(items.services == service)
                made["aligned"][rows] = self._documents(items, single.take(rows), int(service))
        return np.concatenate([made[name] for name in self.columns], axis=1)

    def of_users(
        self,
        parts: Sequence[Part],
        items: ItemInputs,
        services: Sequence[Service],
        as_of: np.ndarray | None,
        amounts: Sequence[Amounts] = (),
    ) -> np.ndarray:
        """Return the chosen blocks of users, (n, E), from (items, times) of each service."""
        made: dict[str, np.ndarray] = {}
        if "contrastive" in self.columns:
            made["contrastive"] = self._contrastive(parts, items.vectors["contrastive"])
        if "aligned" in self.columns:
            made["aligned"] = self._aligned(parts, items, services)
        if "predictive" in self.columns:
            made["predictive"] = self._predictive(parts, items.vectors["predictive"])
        uniform, recent = bags(parts, len(items.tokens))
        for name, bag in (("pooled", uniform), ("recent", recent), ("lexical", uniform)):
            if name in self.columns:
                made[name] = np.asarray(bag @ items.vectors[name].numpy(), np.float32)
        if "activity" in self.columns:
            each = list(amounts) or [{} for _ in parts]
            known = {n: [f[n].values if n in f else None for f in each] for n in self.amounts}
            clocks = [service.clock for service in services]
            made["activity"] = activity(parts, clocks, as_of, known)
        whole = np.concatenate([made[name] for name in self.columns], axis=1)
        whole[np.sum([histories.lengths for histories, _ in parts], axis=0) == 0] = 0
        return whole

    def _contrastive(self, parts: Sequence[Part], texts: torch.Tensor) -> np.ndarray:
        model = self.model.contrastive
        made: list[tuple[np.ndarray, np.ndarray]] = []
        for histories, _ in parts:
            some = np.flatnonzero(histories.lengths > 0)
            newest = histories.take(some).last(model.config.user.max_events)
            made.append((some, user_vectors(model, texts, newest).numpy()))
        return pool_services(made, len(parts[0][0]))

    def _aligned(
        self, parts: Sequence[Part], items: ItemInputs, services: Sequence[Service]
    ) -> np.ndarray:
        nothing = np.zeros((0, self.model.factors.aligned), np.float32)
        made: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), nothing)]
        for (histories, _), service in zip(parts, services, strict=True):
            if service.row >= 0:
                some = np.flatnonzero(histories.lengths > 0)
                made.append((some, self._documents(items, histories.take(some), service.row)))
        return pool_services(made, len(parts[0][0]))

    def _documents(self, items: ItemInputs, histories: Ragged, service: int) -> np.ndarray:
        """Return the unit vectors (n, width) of histories by the maps of a service of the model."""
        documents = documents_of(items.tokens, histories, self._alignment, items.rows)
        return normalised(self._alignment.vectors(documents, service))

    def _predictive(self, parts: Sequence[Part], items: torch.Tensor) -> np.ndarray:
        total = np.zeros((len(parts[0][0]), items.shape[1]), np.float32)
        services = np.zeros(len(total))
        for histories, _ in parts:
            total += predictive_states(self.model.predictive, items, histories).numpy()
            services += histories.lengths > 0
        return total / np.maximum(services, 1)[:, None].astype(np.float32)


def bags(parts: Sequence[Part], items: int) -> tuple[Matrix, Matrix]:
    """Return two matrices (n, items) of users' bags: all items alike, and the newest foremost.

    In the first an item met c times has 1 + log c over the root of the number of distinct items.
    In the second the events of a service weigh 1, 1/2, 1/3 … from the newest, over the root of the
    sum of their squares.
    """
    users = len(parts[0][0])
    row = np.concatenate([np.repeat(np.arange(users), each.lengths) for each, _ in parts])
    item = np.concatenate([each.values for each, _ in parts])
    rank = np.concatenate(
        [np.repeat(e.offsets[1:], e.lengths) - np.arange(len(e.values)) for e, _ in parts]
    )
    uniform: Matrix = csr_matrix((np.ones(len(row)), (row, item)), (users, items))
    uniform.data = 1 + np.log(uniform.data)
    distinct = np.diff(uniform.indptr)
    uniform.data /= np.repeat(np.sqrt(distinct), distinct)
    recent: Matrix = csr_matrix((1 / rank, (row, item)), (users, items))
    norms = np.sqrt(np.asarray(recent.multiply(recent).sum(1)).ravel())
    recent.data /= np.repeat(norms, distinct)
    return uniform.astype(np.float32), recent.astype(np.float32)
