"""Next item: does a user's vector lie nearest to the item that came next?

Leave-last-out: the last event of every held-out user in a service is the target; the history is
what came before it in the same service, or in the other services alone, as for a newcomer. The
whole catalogue of the service is ranked by the dot product of user and item. The probe is
zero-shot: no head is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from benchmarks.baselines.tfidf import popularity, unit
from benchmarks.metrics.bootstrap import Statistic, mean_of
from benchmarks.models import Vectors
from benchmarks.results import Outcome, Slice, Table, measure_rows, per_user_rows
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.evaluation.ranking import Ranks, concatenated, rank

Past: TypeAlias = Literal["same", "other"]
NOTE = (
    "Target = last event, history = earlier events of {past}, the whole catalogue of "
    "{items} ranked, items seen before {seen}; popularity counts training users' events; intervals "
    "of 95 % over resampled users."
)


@dataclass(frozen=True)
class Questions:
    """The queries of one service: n users, their `past`, and the item that came next.

    `catalogue` (m,) are the item indices of the service, `targets` (n,) rows of it; `past` holds
    the item indices of the history by service, `seen` the rows of the user's earlier events in
    this one.
    """

    service: str
    users: np.ndarray
    past: Mapping[str, Ragged]
    seen: Ragged
    targets: np.ndarray
    catalogue: np.ndarray


def questions(corpus: Corpus, service: int, users: np.ndarray, past: Past = "same") -> Questions:
    """Return the questions of those `users` who have a history and an event after it."""
    history, times = corpus.items_of(service), corpus.timestamps_of(service)
    asked = users[history.lengths[users] >= (2 if past == "same" else 1)]
    last = history.offsets[asked + 1] - 1
    pasts: dict[str, Ragged] = {}
    if past == "other":
        others = [number for number in range(len(corpus.services)) if number != service]
        before = [_before(corpus, other, asked, times.values[last]) for other in others]
        some = np.flatnonzero(sum(part.lengths for part in before))
        asked, last = asked[some], last[some]
        pasts = {
            corpus.services[other]: part.take(some)
            for other, part in zip(others, before, strict=True)
        }
    size = history.lengths[asked] - 1
    places = Ragged.slices(history.offsets[asked], size)
    earlier = Ragged(history.values[places.values], places.offsets)
    catalogue = np.flatnonzero(corpus.item_service == service)
    row = np.full(corpus.num_items, -1)
    row[catalogue] = np.arange(len(catalogue))
    seen = Ragged(row[earlier.values], earlier.offsets)
    name = corpus.services[service]
    targets = row[history.values[last]]
    return Questions(name, asked, pasts or {name: earlier}, seen, targets, catalogue)


def _before(corpus: Corpus, service: int, users: np.ndarray, times: np.ndarray) -> Ragged:
    """Return each user's items in `service` from before her entry of `times` (users,)."""
    theirs = corpus.timestamps_of(service).take(users)
    early = theirs.values < np.repeat(times, theirs.lengths)
    return corpus.items_of(service).take(users).mask(early)


def _vectors(model: Vectors, asked: Questions) -> np.ndarray:
    """Return the users' vectors (n, E): the unit mean over the services of their history."""
    parts = [
        np.where(past.lengths[:, None] > 0, model.histories(service, past), 0)
        for service, past in asked.past.items()
    ]
    return unit(np.sum(parts, axis=0))


def standings(
    corpus: Corpus, asked: Questions, models: Mapping[str, Vectors], *, filter_seen: bool
) -> dict[str, Ranks]:
    """Return every row's ranks of the targets: the models, then popularity."""
    seen = asked.seen if filter_seen else None
    found = {
        row: rank(
            _vectors(model, asked),
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
    corpus: Corpus,
    models: Mapping[str, Vectors],
    *,
    filter_seen: bool,
    resamples: int,
    seed: int,
    past: Past = "same",
) -> Outcome:
    """Return a table per service, and over all services; valid + test, then test alone.

    Raises ValueError where no held-out user has a history and an event after it.
    """
    held_out = np.flatnonzero(corpus.split > 0)
    services = range(len(corpus.services))
    asked = [questions(corpus, service, held_out, past) for service in services]
    asked = [q for q in asked if len(q.users)]
    if not asked:
        raise ValueError(
            f"{corpus.path}: no valid or test user has a history in the {past} service and an "
            "event after it; give longer histories"
        )
    found = [(q, standings(corpus, q, models, filter_seen=filter_seen)) for q in asked]
    words = {"same": "the same service", "other": "the other services alone"}
    note = {"past": words[past], "seen": "left out" if filter_seen else "kept"}
    tables: list[Table] = []
    for users, lowest in (("valid + test", 1), ("test alone", 2)):
        mine = [(q, ranks, corpus.split[q.users] >= lowest) for q, ranks in found]
        mine = [part for part in mine if part[2].any()]
        groups = [mine, *([part] for part in mine)] if len(mine) > 1 else [mine]
        for group in groups if mine else []:
            main = len(group) == len(mine)
            tables.append(_table(group, users, note, main, resamples, seed))
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
    note: Mapping[str, str],
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
        note=NOTE.format(items=items, **note),
        rows=measure_rows([Slice(whose, statistics)], resamples=resamples, seed=seed),
    )


def _where(ranks: Ranks, mask: np.ndarray) -> Ranks:
    return Ranks(ranks.better[mask], ranks.equal[mask], ranks.of[mask])
