"""The users whom the report shows: a map of held-out users, and three of them with their items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.manifold import TSNE

from benchmarks.attribute import read_labels
from benchmarks.models import Vectors, user_vectors
from clue.data.corpus import Corpus

MOST = 2000  # users on the map: t-SNE of more takes longer than the rest of the report
SHOWN = 6  # behaviours and neighbours per service
GROUPS = 8


@dataclass(frozen=True)
class Groups:
    """Users (n,) with the group (n,) each belongs to; `names` of the groups, the largest first."""

    users: np.ndarray
    number: np.ndarray
    names: list[str]
    meaning: str


@dataclass(frozen=True)
class Shelf:
    """One service of one user: her newest behaviours first, and the nearest unseen items."""

    service: str
    events: int
    newest: list[str]
    nearest: list[str]


@dataclass(frozen=True)
class Person:
    """One user: her id, her group's name, and a shelf per service."""

    user_id: str
    group: str
    shelves: list[Shelf]


def groups_of(corpus: Corpus, table: Path | None, label: str | None) -> Groups:
    """Return the held-out users (at most MOST) in groups: by the label where a table knows it.

    Without a table the group is the service that a user uses most. Beyond GROUPS groups the
    smallest are one, "other".
    """
    held_out = np.flatnonzero(corpus.split > 0)
    if table is not None and label is not None:
        labelled = read_labels(corpus, table, label)
        mine = np.isin(labelled.users, held_out)
        users, number = labelled.users[mine], labelled.labels[mine]
        names, meaning = labelled.classes, f"true {label}"
    else:
        events = np.stack([corpus.items_of(s).lengths for s in range(len(corpus.services))])
        users, number = held_out, events[:, held_out].argmax(0)
        names, meaning = list(corpus.services), "most used service"
    some = np.sort(np.random.default_rng(0).permutation(len(users))[:MOST])
    users, number = users[some], number[some]
    by_size = np.argsort(-np.bincount(number, minlength=len(names)), kind="stable")
    rank = np.empty(len(names), int)
    rank[by_size] = np.arange(len(names))
    kept = [names[place] for place in by_size]
    if len(kept) > GROUPS:
        kept = [*kept[: GROUPS - 1], "other"]
    return Groups(users, np.minimum(rank[number], len(kept) - 1), kept, meaning)


def flat_map(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return two coordinates (n, 2) of unit vectors (n, E): t-SNE from a PCA, or PCA of few."""
    if len(vectors) < 50 or vectors.shape[1] < 3:
        return _principal(vectors)
    start = _principal(vectors)
    width = float(start[:, 0].std())
    if width < 1e-6:
        return start
    place: Any = start * (1e-4 / width)  # scikit-learn's types know only the names of ways to start
    return TSNE(perplexity=30, init=place, random_state=seed).fit_transform(vectors)


def _principal(vectors: np.ndarray) -> np.ndarray:
    left, strength, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    found = np.zeros((len(vectors), 2))
    width = min(2, len(strength))
    found[:, :width] = left[:, :width] * strength[:width]
    return found


def three_people(corpus: Corpus, groups: Groups, model: Vectors) -> list[Person]:
    """Return three held-out users of different groups, of many services and with enough to see.

    Nearest items are those of the largest dot product with the user's vector over all services,
    without the items she has met, and no title twice.
    """
    users = np.array([groups.users[row] for row in _telling(corpus, groups)], dtype=np.int64)
    vectors, items = user_vectors(model, corpus, users), model.items()
    people: list[Person] = []
    for user, vector in zip(users, vectors, strict=True):
        scores = items @ vector
        shelves: list[Shelf] = []
        for number, service in enumerate(corpus.services):
            history = corpus.items_of(number).take(np.array([user]))[0]
            order = np.argsort(-np.where(corpus.item_service == number, scores, -np.inf))
            unseen = order[: SHOWN * 20][~np.isin(order[: SHOWN * 20], history)]
            here = unseen[corpus.item_service[unseen] == number]
            nearest = list(dict.fromkeys(_texts(corpus, here)))[:SHOWN]
            newest = _texts(corpus, history[::-1][:SHOWN])
            shelves.append(Shelf(service, len(history), newest, nearest))
        group = groups.names[groups.number[groups.users == user][0]]
        people.append(Person(str(corpus.user_ids[int(user)]), group, shelves))
    return people


def _telling(corpus: Corpus, groups: Groups) -> list[int]:
    """Rows of three users of different groups, those in most services and nearest to 12 events."""
    events = np.stack(
        [corpus.items_of(s).lengths[groups.users] for s in range(len(corpus.services))]
    )
    in_services, fewest = (events > 0).sum(0), np.abs(events.min(0) - 12)
    order = np.lexsort((fewest, -in_services))
    chosen: list[int] = []
    for distinct in (True, False):
        taken = {int(groups.number[row]) for row in chosen}
        for row in order.tolist():
            new = int(groups.number[row]) not in taken
            if len(chosen) < 3 and row not in chosen and (new or not distinct):
                chosen.append(row)
                taken.add(int(groups.number[row]))
    return chosen


def _texts(corpus: Corpus, items: np.ndarray | Sequence[int]) -> list[str]:
    return [str(corpus.item_texts[int(item)]) for item in items]
