"""Next item: does a user's vector lie nearest to the item that came next?

Leave-last-out: the last event of every held-out user in a service is the target, the earlier ones
are the history; the whole catalogue of the service is ranked by the dot product of user and item.
The probe is zero-shot: no head is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.baselines import popularity
from benchmarks.models import Vectors
from benchmarks.ranking import Ranks, concatenated, rank
from benchmarks.results import Outcome, Slice, Table, measure_rows, per_user_rows
from benchmarks.statistics import Statistic, mean_of
from clue.data.corpus import Corpus, Ragged
from clue.data.views import spans

NOTE = (
    "Target = last event, history = earlier events of the same service, the whole catalogue of "
    "{items} ranked, items seen before {seen}; popularity counts training users' events; intervals "
    "of 95 % over resampled users."
)


@dataclass(frozen=True)
class Questions:
    """The queries of one service: n users, their `past`, and the item that came next.

    `catalogue` (m,) are the item indices of the service, `targets` (n,) rows of it; `seen` holds
    the rows of the past, what `past` holds as item indices.
    """

    service: str
    users: np.ndarray
    past: Ragged
    seen: Ragged
    targets: np.ndarray
    catalogue: np.ndarray


def questions(corpus: Corpus, service: int, users: np.ndarray) -> Questions:
    """Gives the questions of those `users` who have two events or more in the service."""
    history = corpus.items_of(service)
    asked = users[history.lengths[users] >= 2]
    size = history.lengths[asked] - 1
    places = spans(history.offsets[asked], size)
    catalogue = np.flatnonzero(corpus.item_service == service)
    row = np.full(corpus.num_items, -1)
    row[catalogue] = np.arange(len(catalogue))
    past = Ragged(history.values[places.values], places.offsets)
    last = history.values[history.offsets[asked] + size]
    seen = Ragged(row[past.values], past.offsets)
    return Questions(corpus.services[service], asked, past, seen, row[last], catalogue)


def standings(
    corpus: Corpus, asked: Questions, models: Mapping[str, Vectors], *, filter_seen: bool
) -> dict[str, Ranks]:
    """Gives every row's ranks of the targets: the models, then popularity."""
    seen = asked.seen if filter_seen else None
    found = {
        row: rank(
            model.histories(asked.service, asked.past),
            model.items()[asked.catalogue],
            asked.targets,
            seen,
        )
        for row, model in models.items()
    }
    counts = popularity(corpus, corpus.services.index(asked.service))[asked.catalogue, None]
    ones = np.ones((len(asked.users), 1))
    return {**found, "popularity": rank(ones, counts, asked.targets, seen)}


def evaluate_next_item(
    corpus: Corpus, models: Mapping[str, Vectors], *, filter_seen: bool, resamples: int, seed: int
) -> Outcome:
    """Gives a table per service, and over all services; valid + test, then test alone.

    Raises ValueError where no held-out user has two events in a service.
    """
    held_out = np.flatnonzero(corpus.split > 0)
    asked = [questions(corpus, service, held_out) for service in range(len(corpus.services))]
    asked = [q for q in asked if len(q.users)]
    if not asked:
        raise ValueError(
            f"{corpus.path}: no valid or test user has two events in a service; "
            "give longer histories"
        )
    found = [(q, standings(corpus, q, models, filter_seen=filter_seen)) for q in asked]
    seen = "left out" if filter_seen else "kept"
    tables: list[Table] = []
    for users, lowest in (("valid + test", 1), ("test alone", 2)):
        mine = [(q, ranks, corpus.split[q.users] >= lowest) for q, ranks in found]
        mine = [part for part in mine if part[2].any()]
        groups = [mine, *([part] for part in mine)] if len(mine) > 1 else [mine]
        for group in groups if mine else []:
            main = len(group) == len(mine)
            tables.append(_table(group, users, seen, main, resamples, seed))
    parts = [
        per_user_rows(
            ("next item", q.service, row),
            corpus.user_ids.take(pa.array(q.users)),
            better=ranks.better,
            equal=ranks.equal,
            candidates=ranks.of,
        )
        for q, named in found
        for row, ranks in named.items()
    ]
    return Outcome(tables, pa.concat_tables(parts))


def _table(
    group: Sequence[tuple[Questions, dict[str, Ranks], np.ndarray]],
    users: str,
    seen: str,
    main: bool,
    resamples: int,
    seed: int,
) -> Table:
    whose = np.concatenate([q.users[mask] for q, _, mask in group])
    statistics: dict[str, dict[str, Statistic]] = {}
    for row in group[0][1]:
        ranks = concatenated([_where(named[row], mask) for _, named, mask in group])
        statistics[row] = {
            "HR@10": mean_of(ranks.hit(10)),
            "NDCG@10": mean_of(ranks.ndcg(10)),
            "MRR": mean_of(ranks.reciprocal()),
        }
    sizes = [len(q.catalogue) for q, _, _ in group]
    items = f"{sizes[0]:,} items" if len(group) == 1 else f"each service ({sum(sizes):,} items)"
    hits = [min(1, 10 / size) for size in sizes]
    chance = float(np.average(hits, weights=[mask.sum() for _, _, mask in group]))
    return Table(
        task="next item",
        part=group[0][0].service if len(group) == 1 else "all services",
        users=users,
        main=main,
        count=len(np.unique(whose)),
        headline=("HR@10", "NDCG@10"),
        chance={"HR@10": chance},
        note=NOTE.format(items=items, seen=seen),
        rows=measure_rows([Slice(whose, statistics)], resamples=resamples, seed=seed),
    )


def _where(ranks: Ranks, mask: np.ndarray) -> Ranks:
    return Ranks(ranks.better[mask], ranks.equal[mask], ranks.of[mask])
