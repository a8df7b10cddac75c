"""The blocks of a universal vector: what is computed of users and of items, by name.

    contrastive   which user is this? the mean of the services' unit vectors, at unit length
    predictive    what comes next? the mean of the services' last states
    pooled        what was met, all of it alike: factors of the items, sum / sqrt(distinct items)
    recent        the same, the newest event of a service weighing 1, the one before 1/2, then 1/3
    lexical       the words of what was met: factors of the tokens, pooled as `pooled`
    activity      how much and when, as of a moment (clue/data/activity.py)

The blocks keep their own scales: unit length would lose how much a user did.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from clue.data.activity import activity, activity_names
from clue.data.ragged import Ragged
from clue.evaluation.encode import (
    item_vectors,
    predictive_items,
    predictive_states,
    user_vectors,
)
from clue.inference.pooling import Amounts, Part, pool_services
from clue.nn.universal import UniversalEncoder

Matrix = Any  # a csr_matrix, whose data SciPy's types do not know
BLOCKS = ("contrastive", "predictive", "pooled", "recent", "lexical", "activity")
KINDS = ("contrastive", "predictive", "pooled", "lexical")  # of an item's inputs, in order


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
        widths = {
            "contrastive": model.contrastive.config.user.embedding,
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

    def item_inputs(self, tokens: Ragged, rows: np.ndarray) -> torch.Tensor:
        """Return the inputs (I, D) of items with these tokens and catalogue rows, -1 for none."""
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

    def part(self, inputs: torch.Tensor, name: str) -> torch.Tensor:
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

    def of_items(self, inputs: torch.Tensor) -> np.ndarray:
        """Return the vectors (I, E) of items: what a user's are compared with.

        `contrastive` is that of a user who did just that, `activity` is zero, and the rest are the
        item's own, whose inner product with the user's block says how it fits.
        """
        single = Ragged(np.arange(len(inputs)), np.arange(len(inputs) + 1))
        made: dict[str, np.ndarray] = {
            "activity": np.zeros((len(inputs), len(activity_names(self.amounts))), np.float32)
        }
        for name in set(self.columns) - {"activity", "contrastive"}:
            made[name] = self.part(inputs, "pooled" if name == "recent" else name).numpy()
        if "contrastive" in self.columns:
            texts = self.part(inputs, "contrastive")
            made["contrastive"] = user_vectors(self.model.contrastive, texts, single).numpy()
        return np.concatenate([made[name] for name in self.columns], axis=1)

    def of_users(
        self,
        parts: Sequence[Part],
        inputs: torch.Tensor,
        clocks: Sequence[bool],
        as_of: np.ndarray | None,
        amounts: Sequence[Amounts] = (),
    ) -> np.ndarray:
        """Return the chosen blocks of users, (n, E), from (items, times) of each service."""
        made: dict[str, np.ndarray] = {}
        if "contrastive" in self.columns:
            made["contrastive"] = self._contrastive(parts, self.part(inputs, "contrastive"))
        if "predictive" in self.columns:
            made["predictive"] = self._predictive(parts, self.part(inputs, "predictive"))
        uniform, recent = bags(parts, len(inputs))
        for name, bag in (("pooled", uniform), ("recent", recent), ("lexical", uniform)):
            if name in self.columns:
                vectors = self.part(inputs, "lexical" if name == "lexical" else "pooled")
                made[name] = np.asarray(bag @ vectors.numpy(), np.float32)
        if "activity" in self.columns:
            each = list(amounts) or [{} for _ in parts]
            known = {n: [f[n].values if n in f else None for f in each] for n in self.amounts}
            made["activity"] = activity(parts, clocks, as_of, known)
        whole = np.concatenate([made[name] for name in self.columns], axis=1)
        whole[np.sum([items.lengths for items, _ in parts], axis=0) == 0] = 0
        return whole

    def _contrastive(self, parts: Sequence[Part], texts: torch.Tensor) -> np.ndarray:
        model, users = self.model.contrastive, len(parts[0][0])

        def unit_vectors() -> "list[tuple[np.ndarray, np.ndarray]]":
            made: list[tuple[np.ndarray, np.ndarray]] = []
            for items, _ in parts:
                some = np.flatnonzero(items.lengths > 0)
                newest = items.take(some).last(model.config.user.max_events)
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
