"""The users whom a page shows: a map of held-out users, and three of them with their items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.manifold import TSNE

from benchmarks.datasets.label_tables import read_labels
from benchmarks.protocols import Model, items_of
from benchmarks.snapshot import snapshot_at
from clue.data.corpus import Corpus

MAX_USERS = 2000  # on the map: t-SNE of more takes longer than the rest of the page
MAX_GROUPS = 8
SHOWN = 6  # behaviours and neighbours per service
EXAMPLES = 3  # users


@dataclass(frozen=True)
class Groups:
    """Users (n,) with the group (n,) each belongs to; `names` of the groups, the largest first."""

    users: np.ndarray
    number: np.ndarray
    names: list[str]
    meaning: str


@dataclass(frozen=True)
class ServiceHistory:
    """One service of one user: how many events, the newest first, and the nearest unseen items."""

    service: str
    events: int
    newest: list[str]
    nearest: list[str]


@dataclass(frozen=True)
class ExampleUser:
    """One user: their id, their group, an index into `Groups.names`, and what they did where."""

    user_id: str
    group: int
    services: list[ServiceHistory]


def groups_of(corpus: Corpus, table: Path | None, label: str | None) -> Groups:
    """Return the held-out users (at most MAX_USERS) in groups: by the label where a table has it.

    Without a table the group is the service that a user uses most. Beyond MAX_GROUPS groups the
    smallest are one, "other".
    """
    held_out = np.flatnonzero(corpus.split > 0)
    if table is not None and label is not None:
        labelled = read_labels(corpus, table, label)
        known = np.isin(labelled.users, held_out)
        users, number = labelled.users[known], labelled.labels[known]
        names, meaning = labelled.classes, f"true {label}"
    else:
        events = np.stack([corpus.items_of(s).lengths for s in range(len(corpus.services))])
        users, number = held_out, events[:, held_out].argmax(0)
        names, meaning = list(corpus.services), "most used service"
    sample = np.sort(np.random.default_rng(0).permutation(len(users))[:MAX_USERS])
    users, number = users[sample], number[sample]
    by_size = np.argsort(-np.bincount(number, minlength=len(names)), kind="stable")
    rank = np.empty(len(names), int)
    rank[by_size] = np.arange(len(names))
    kept = [names[index] for index in by_size]
    if len(kept) > MAX_GROUPS:
        kept = [*kept[: MAX_GROUPS - 1], "other"]
    return Groups(users, np.minimum(rank[number], len(kept) - 1), kept, meaning)


def flat_map(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return two coordinates (n, 2) of unit vectors (n, E): t-SNE from a PCA, or PCA of few."""
    start = _principal(vectors)
    width = float(start[:, 0].std())
    if len(vectors) < 50 or vectors.shape[1] < 3 or width < 1e-6:
        return start
    init: Any = start * (1e-4 / width)  # scikit-learn's types know only the names of ways to start
    return TSNE(perplexity=30, init=init, random_state=seed).fit_transform(vectors)


def _principal(vectors: np.ndarray) -> np.ndarray:
    left, strength, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    points = np.zeros((len(vectors), 2))
    width = min(2, len(strength))
    points[:, :width] = left[:, :width] * strength[:width]
    return points


def example_users(corpus: Corpus, groups: Groups, model: Model) -> list[ExampleUser]:
    """Return three held-out users of different groups, of many services and with enough to see.

    Nearest items are those of the largest dot product with the user's vector over all services,
    without the items they have interacted with, and no title twice. Raises ValueError for a model
    without vectors of items.
    """
    rows = _informative(corpus, groups)
    users = groups.users[rows]
    vectors, items = model.users(snapshot_at(corpus, users)), items_of(model)
    examples: list[ExampleUser] = []
    for row, user, vector in zip(rows, users, vectors, strict=True):
        scores = items @ vector
        services: list[ServiceHistory] = []
        for number, service in enumerate(corpus.services):
            history = corpus.items_of(number).take(np.array([user]))[0]
            of_service = np.flatnonzero(corpus.item_service == number)
            unseen = of_service[~np.isin(of_service, history)]
            ranked = unseen[np.argsort(-scores[unseen], kind="stable")][: SHOWN * 20]
            nearest = list(dict.fromkeys(_texts(corpus, ranked)))[:SHOWN]
            newest = _texts(corpus, history[::-1][:SHOWN])
            services.append(ServiceHistory(service, len(history), newest, nearest))
        group = int(groups.number[row])
        examples.append(ExampleUser(str(corpus.user_ids[int(user)]), group, services))
    return examples


def _informative(corpus: Corpus, groups: Groups) -> list[int]:
    """Rows of users of different groups, those in most services and nearest to 12 events."""
    events = np.stack(
        [corpus.items_of(s).lengths[groups.users] for s in range(len(corpus.services))]
    )
    in_services, fewest = (events > 0).sum(0), np.abs(events.min(0) - 12)
    order: list[int] = np.lexsort((fewest, -in_services)).tolist()
    of_group: dict[int, int] = {}
    for row in order:
        of_group.setdefault(int(groups.number[row]), row)
    first = sorted(of_group.values(), key=order.index)
    return [*first, *(row for row in order if row not in first)][:EXAMPLES]


def _texts(corpus: Corpus, items: Sequence[int] | np.ndarray) -> list[str]:
    return [str(corpus.item_texts[int(item)]) for item in items]
