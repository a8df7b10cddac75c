"""The blocks of a universal vector: what is computed of users and of items, by name.

    contrastive   which user is this? the mean of the services' unit vectors, at unit length
    aligned       the same by linear maps of each service's words and items (alignment.py)
    predictive    what comes next? the last state, of services that are read apart the mean
    pooled        what was met, all of it alike: a bag of the items' factors (bags.py)
    recent        the same, the newest foremost
    lexical       the words of what was met: factors of the tokens, in a bag like `pooled`
    activity      how much and when, as of a moment (clue/data/activity.py)

The blocks keep their own scales: unit length would lose how much a user did. A history is encoded
once: all blocks but activity join what was made of the services.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.sparse import csr_matrix

from clue.data.activity import activity, activity_names, moments
from clue.data.marks import MarkTable
from clue.data.ragged import Ragged
from clue.evaluation.encode import (
    entered_items,
    entered_users,
    normalised,
    predictive_items,
)
from clue.inference.bags import Bag, recent_bag, uniform_bag
from clue.inference.item_cache import ItemsRead
from clue.inference.pooling import Amounts, Part, Service
from clue.inference.predicted import joined_states
from clue.nn.universal import UniversalEncoder
from clue.train.alignment import Alignment, documents_of

BAGS = {"pooled": uniform_bag, "recent": recent_bag, "lexical": uniform_bag}
BLOCKS = ("contrastive", "aligned", "predictive", "pooled", "recent", "lexical", "activity")


@dataclass(frozen=True)
class ItemInputs:
    """What blocks read of I items: `tokens`, `rows` of the catalogue, -1 for one outside it,
    `services` (I,) of the model, `vectors` by block.
    """

    tokens: Ragged
    rows: np.ndarray
    services: np.ndarray
    vectors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class InService:
    """The vectors (m, E) of `users` (m,) in a service, and the `norms` (m,) of bags by block."""

    users: np.ndarray
    vectors: np.ndarray
    norms: Mapping[str, np.ndarray]


class BlockVectors:
    """The chosen blocks of one model; `columns` are those of each in a vector, by name."""

    def __init__(
        self,
        model: UniversalEncoder,
        amounts: Sequence[str],
        blocks: Sequence[str],
        marks: MarkTable,
    ) -> None:
        """`amounts` are the numeric fields that activity reads, `marks` those of events.

        Raises ValueError for a block that there is not, or none.
        """
        unknown = [name for name in blocks if name not in BLOCKS]
        if unknown or not blocks:
            raise ValueError(
                f"blocks={list(blocks)} names {unknown or 'none'}; there are {', '.join(BLOCKS)}"
            )
        self.model, self.amounts, self.marks = model, tuple(amounts), marks
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

    def read_items(self, tokens: Ragged, rows: np.ndarray) -> ItemsRead:
        """Return what each item alone is made of: by its `tokens` and `rows` of the catalogue (I,).

        A row is -1 for an item outside the catalogue.
        """
        model = self.model
        made: dict[str, torch.Tensor] = {}
        if "contrastive" in self.columns:
            made["contrastive"] = entered_items(model.contrastive, tokens)
        if "predictive" in self.columns:
            made["predictive"] = predictive_items(model.predictive, tokens, rows)
        if "lexical" in self.columns:
            ones = (np.ones(len(tokens.values), np.float32), tokens.values, tokens.offsets)
            words = csr_matrix(ones, (len(tokens), len(model.token_factors)))
            made["lexical"] = torch.from_numpy(words @ model.token_factors.detach().cpu().numpy())
        return ItemsRead(tokens, rows, made)

    def item_inputs(self, read: ItemsRead, services: np.ndarray) -> ItemInputs:
        """Return what the chosen blocks read of items of these `services` (I,), -1 for none."""
        inputs = dict(read.vectors)
        if {"pooled", "recent"} & self.columns.keys():
            factors = self.model.item_factors
            known = torch.from_numpy(np.flatnonzero(read.rows >= 0))
            own = torch.zeros(len(read.rows), factors.shape[1])
            own[known] = factors.detach().cpu()[torch.from_numpy(read.rows)[known]]
            inputs["pooled"] = inputs["recent"] = own
        return ItemInputs(read.tokens, read.rows, services, inputs)

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
            made["contrastive"] = entered_users(self.model.contrastive, texts, single).numpy()
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
        joint = self._joint(parts, items, services, as_of, amounts)
        made = self._in_services(parts, items, services, as_of, amounts, set(joint))
        return self._over_all(made, joint, len(parts[0][0]))

    def of_services(
        self,
        parts: Sequence[Part],
        items: ItemInputs,
        services: Sequence[Service],
        as_of: np.ndarray | None,
        amounts: Sequence[Amounts] = (),
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the blocks (n, E) in each service alone, and what `of_users` does."""
        made = self._in_services(parts, items, services, as_of, amounts, set())
        joint = self._joint(parts, items, services, as_of, amounts)
        whole = self._over_all(made, joint, len(parts[0][0]))
        each = [np.zeros(whole.shape, np.float32) for _ in parts]
        for one, vectors in zip(made, each, strict=True):
            vectors[one.users] = one.vectors
        return each, whole

    def _joint(
        self,
        parts: Sequence[Part],
        items: ItemInputs,
        services: Sequence[Service],
        as_of: np.ndarray | None,
        amounts: Sequence[Amounts],
    ) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """Return the blocks, of users by their numbers, that read all services at once."""
        made = {"activity": partial(self._activity, parts, services, as_of, amounts)}
        if self.model.predictive.config.join == "time":
            made["predictive"] = partial(self._predicted, parts, items, services, amounts)
        return made

    def _predicted(
        self,
        parts: Sequence[Part],
        items: ItemInputs,
        services: Sequence[Service],
        amounts: Sequence[Amounts],
        users: np.ndarray,
    ) -> np.ndarray:
        """Return the predictive block of the `users` with these numbers."""
        taken = [(histories.take(users), times.take(users)) for histories, times in parts]
        named = [{name: each.take(users) for name, each in of.items()} for of in amounts]
        vectors = items.vectors["predictive"]
        return joined_states(self.model.predictive, vectors, self.marks, taken, services, named)

    def _in_services(
        self,
        parts: Sequence[Part],
        items: ItemInputs,
        services: Sequence[Service],
        as_of: np.ndarray | None,
        amounts: Sequence[Amounts],
        joint: Set[str],
    ) -> list[InService]:
        """Return the vectors in each service of the users who have events there.

        Of blocks that are `joint`, made of all services at once, those of users of one service.
        """
        moments(parts, [service.clock for service in services], as_of)  # refuses later events
        filled = np.stack([histories.lengths > 0 for histories, _ in parts])
        one_service = filled.sum(0) == 1
        users_of = [np.flatnonzero(each) for each in filled]
        each = [part[0].take(users) for part, users in zip(parts, users_of, strict=True)]
        contrastive = self._contrastive(each, items)
        made: list[InService] = []
        for n, (histories, users, service) in enumerate(zip(each, users_of, services, strict=True)):
            one = slice(n, n + 1)
            distinct, number = np.unique(histories.values, return_inverse=True)
            vectors = np.zeros((len(users), self.width), np.float32)
            norms: dict[str, np.ndarray] = {}
            bags: dict[Callable[[Ragged, int], Bag], Bag] = {}
            for name, columns in self.columns.items():
                rows = np.flatnonzero(one_service[users] | (name not in joint))
                if not len(rows):
                    continue
                if name == "activity":
                    vectors[rows, columns] = self._activity(
                        parts[one], services[one], as_of, amounts[one], users[rows]
                    )
                elif name == "predictive":
                    vectors[rows, columns] = self._predicted(
                        parts[one], items, services[one], amounts[one], users[rows]
                    )
                elif name in BAGS:
                    rule = BAGS[name]
                    if rule not in bags:
                        bags[rule] = rule(Ragged(number, histories.offsets), len(distinct))
                    bag = bags[rule]
                    # float64: sums of texts' items and of a corpus's differ by their order
                    vectors[:, columns] = (
                        bag.weights @ items.vectors[name][distinct].double().numpy()
                    )
                    norms[name] = bag.norm
                elif name == "contrastive":
                    vectors[:, columns] = contrastive[n]
                elif service.row >= 0:
                    vectors[:, columns] = self._documents(items, histories, service.row)
            made.append(InService(users, vectors, norms))
        return made

    def _contrastive(self, histories: Sequence[Ragged], items: ItemInputs) -> list[np.ndarray]:
        """Return that block of each service's histories, all in one go: the encoder is theirs."""
        if "contrastive" not in self.columns:
            return []
        model = self.model.contrastive
        newest = Ragged.concat(histories).last(model.config.user.max_events)
        vectors = entered_users(model, items.vectors["contrastive"], newest).numpy()
        return np.split(vectors, np.cumsum([len(each) for each in histories])[:-1])

    def _activity(
        self,
        parts: Sequence[Part],
        services: Sequence[Service],
        as_of: np.ndarray | None,
        amounts: Sequence[Amounts],
        users: np.ndarray,
    ) -> np.ndarray:
        """Return the activity block of the `users` with these numbers."""
        taken = [(items.take(users), times.take(users)) for items, times in parts]
        each = amounts or [{} for _ in parts]
        known = {
            n: [f[n].take(users).values if n in f else None for f in each] for n in self.amounts
        }
        clocks = [service.clock for service in services]
        return activity(taken, clocks, None if as_of is None else as_of[users], known)

    def _over_all(
        self,
        made: Sequence[InService],
        joint: Mapping[str, Callable[[np.ndarray], np.ndarray]],
        users: int,
    ) -> np.ndarray:
        """Return the vectors (n, E) of so many `users` over all services; without events, zero."""
        count = np.zeros(users, np.int64)
        for one in made:
            count[one.users] += 1
        whole = np.zeros((users, self.width), np.float32)
        squares = {name: np.zeros(users) for name in BAGS}
        for one in made:
            several = count[one.users] > 1
            whole[one.users[~several]] = one.vectors[~several]
            rows, vectors = one.users[several], one.vectors[several]
            for name, norm in one.norms.items():
                vectors[:, self.columns[name]] *= norm[several, None]
                squares[name][rows] += norm[several] ** 2
            whole[rows] += vectors
        rows = np.flatnonzero(count > 1)
        joined = whole[rows]
        for name, columns in self.columns.items():
            if name in joint:
                joined[:, columns] = joint[name](rows)
            elif name in BAGS:
                joined[:, columns] /= np.sqrt(squares[name][rows, None])
            elif name == "predictive":
                joined[:, columns] /= count[rows, None]
            else:
                length = self.model.factors.aligned_length if name == "aligned" else 1.0
                joined[:, columns] = normalised(joined[:, columns]) * length
        whole[rows] = joined
        return whole

    def _documents(self, items: ItemInputs, histories: Ragged, service: int) -> np.ndarray:
        """Return the vectors (n, width) of histories by the maps of a service of the model."""
        documents = documents_of(items.tokens, histories, self._alignment, items.rows)
        vectors = normalised(self._alignment.vectors(documents, service))
        return vectors * self.model.factors.aligned_length
