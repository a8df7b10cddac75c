"""Cross-service matching: does a user's vector in one service find the same user in another?

Gallery and queries are the same held-out users, everyone ranked, both directions. A corpus of one
service is matched between the older and the newer half of each history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.baselines.tfidf import Counts, documents, fit_cca
from benchmarks.entropy import refit_scale
from benchmarks.metrics.bootstrap import Statistic, mean_of, median_of
from benchmarks.models import Vectors
from benchmarks.results import Outcome, Slice, Table, measure_rows, per_user_rows
from clue.data.corpus import Corpus
from clue.evaluation.matching import (
    MatchingPairs,
    contrastive_entropy,
    matching_pairs,
)
from clue.evaluation.ranking import Ranks, concatenated, rank

EVERY = 1_000_000_000  # events to read and users to learn from: all; an encoder reads its newest
NOTE = (
    "Gallery = queries = these users; entropy in nats over the whole gallery at a scale refitted "
    "on the valid users, chance {chance:.2f}; median rank as a share of the gallery; {floor}"
    "intervals of 95 % over resampled users."
)


@dataclass(frozen=True)
class Matched:
    """One row on one gallery of n users: both directions' ranks and each user's entropy in nats.

    `loss` (n,) is at the refitted `scale`, `own_loss` at the model's own where it has one.
    """

    forward: Ranks
    backward: Ranks
    loss: np.ndarray
    own_loss: np.ndarray | None
    scale: float


@dataclass(frozen=True)
class Gallery:
    """One pair of services and n users who have both, with every row's standing.

    `floor` says how the linear floor was tuned, empty where there is none.
    """

    pairs: MatchingPairs
    users: np.ndarray
    rows: dict[str, Matched]
    floor: str = ""


def evaluate_matching(
    corpus: Corpus,
    models: Mapping[str, Vectors],
    terms: Counts,
    *,
    dims: int,
    resamples: int,
    seed: int,
) -> Outcome:
    """Return a table per pair of services, and over all pairs; valid + test, then test alone.

    Rows are the models, the linear floor (`dims` of SVD on the catalogue's `terms`) and popularity.
    Raises ValueError where no two held-out users can be matched.
    """
    held_out = np.flatnonzero(corpus.split > 0)
    train, valid = (
        {p.name: p for p in matching_pairs(corpus, users, max_events=EVERY, most=EVERY)}
        for users in (corpus.users_in("train"), corpus.users_in("valid"))
    )
    both: dict[str, list[Gallery]] = {"valid + test": [], "test alone": []}
    for pairs in matching_pairs(corpus, held_out, max_events=EVERY):
        vectors = {row: _views(model, pairs) for row, model in models.items()}
        tuned = ""
        if pairs.name in train and pairs.name in valid:
            floor = fit_cca(train[pairs.name], valid[pairs.name], terms, dims=dims, seed=seed)
            texts = documents(pairs.a, terms), documents(pairs.b, terms)
            vectors["floor"] = floor.vectors_a(texts[0]), floor.vectors_b(texts[1])
            tuned = f"CCA of {pairs.name}: ridge {floor.ridge:g}, power {floor.power:g}; "
        constant = np.zeros((len(pairs.users), 1))  # Popularity says the same of every user.
        vectors["popularity"] = constant, constant
        split = corpus.split[pairs.users]
        # Only a tiny log has fewer than two valid users; its scalar is fitted on everyone.
        fit_on = np.flatnonzero(split == 1) if (split == 1).sum() > 1 else None
        scales = {row: refit_scale(a, b, fit_on) for row, (a, b) in vectors.items()}
        for users, mine in (("valid + test", split > 0), ("test alone", split == 2)):
            if mine.sum() > 1:
                rows = {
                    row: match(a[mine], b[mine], scales[row], _own_scale(models, row))
                    for row, (a, b) in vectors.items()
                }
                both[users].append(Gallery(pairs, pairs.users[mine], rows, tuned))
    if not both["valid + test"]:
        raise ValueError(
            f"{corpus.path}: no two valid or test users have two views to match; give more users, "
            "longer histories or a larger valid and test share"
        )
    tables = [t for users, found in both.items() for t in _tables(users, found, resamples, seed)]
    return Outcome(tables, _per_user(corpus, both["valid + test"]))


def match(a: np.ndarray, b: np.ndarray, scale: float, own_scale: float | None) -> Matched:
    """Return ranks and entropies of the gallery whose row i is one user in a and in b (n, E)."""
    same = np.arange(len(a))
    own = None if own_scale is None else contrastive_entropy(a, b, own_scale)
    return Matched(rank(a, b, same), rank(b, a, same), contrastive_entropy(a, b, scale), own, scale)


def _own_scale(models: Mapping[str, Vectors], row: str) -> float | None:
    return models[row].scale if row in models else None


def _views(model: Vectors, pairs: MatchingPairs) -> tuple[np.ndarray, np.ndarray]:
    return model.histories(pairs.service_a, pairs.a), model.histories(pairs.service_b, pairs.b)


def _tables(users: str, found: Sequence[Gallery], resamples: int, seed: int) -> list[Table]:
    """One table over all pairs of services where there are several, then one per pair."""
    groups = [[gallery] for gallery in found]
    if len(found) > 1:
        groups.insert(0, list(found))
    tables: list[Table] = []
    for group in groups:
        names = _direction_names(group[0].pairs) if len(group) == 1 else None
        slices = [_both_ways(group), *(_one_way(group[0], names) if names else [])]
        weights = [len(gallery.users) for gallery in group]
        entropy = float(np.average(np.log(weights), weights=weights))
        tenth = float(np.average(np.minimum(1, 10 / np.array(weights)), weights=weights))
        chance = {"R@10": tenth, "contrastive entropy": entropy, "median rank": 0.5}
        chance |= {f"R@10 {name}": tenth for name in names or ()}
        tables.append(
            Table(
                task="matching",
                part="all pairs of services" if names is None else group[0].pairs.name,
                users=users,
                main=len(group) == len(found),
                count=len(np.unique(np.concatenate([g.users for g in group]))),
                headline=_headline(names),
                chance=chance,
                note=NOTE.format(chance=entropy, floor="".join(g.floor for g in group)),
                rows=measure_rows(slices, resamples=resamples, seed=seed),
            )
        )
    return tables


def _headline(names: tuple[str, str] | None) -> tuple[str, ...]:
    if names is None:
        return "R@10", "contrastive entropy"
    ways = [f"R@{k} {name}" for k in (10, 1) for name in names]
    return *ways, "median rank", "contrastive entropy"


def _direction_names(pairs: MatchingPairs) -> tuple[str, str]:
    one, other = pairs.service_a, pairs.service_b
    if one == other:
        one, other = "older half", "newer half"
    return f"{one} → {other}", f"{other} → {one}"


def _both_ways(group: Sequence[Gallery]) -> Slice:
    """The measures over both directions of all galleries: 2n queries each."""
    users = np.concatenate([u for g in group for u in (g.users, g.users)])
    statistics: dict[str, dict[str, Statistic]] = {}
    for row in group[0].rows:
        mine = [g.rows[row] for g in group if row in g.rows]
        if len(mine) < len(group):
            continue  # A floor that some pair had too few users for has no figure over all pairs.
        ranks = concatenated([r for m in mine for r in (m.forward, m.backward)])
        statistics[row] = {
            **_rank_statistics(ranks, ""),
            "contrastive entropy": mean_of(
                np.concatenate([x for m in mine for x in (m.loss, m.loss)])
            ),
        }
        own = [m.own_loss for m in mine if m.own_loss is not None]
        if own:
            both = np.concatenate([x for loss in own for x in (loss, loss)])
            statistics[row]["entropy at own scale"] = mean_of(both)
    return Slice(users, statistics)


def _one_way(gallery: Gallery, names: tuple[str, str]) -> list[Slice]:
    forward = {r: _rank_statistics(m.forward, f" {names[0]}") for r, m in gallery.rows.items()}
    backward = {r: _rank_statistics(m.backward, f" {names[1]}") for r, m in gallery.rows.items()}
    return [Slice(gallery.users, forward), Slice(gallery.users, backward)]


def _rank_statistics(ranks: Ranks, suffix: str) -> dict[str, Statistic]:
    return {
        f"R@1{suffix}": mean_of(ranks.hit(1)),
        f"R@10{suffix}": mean_of(ranks.hit(10)),
        f"MRR{suffix}": mean_of(ranks.reciprocal()),
        f"median rank{suffix}": median_of(ranks.share()),
    }


def _per_user(corpus: Corpus, found: Sequence[Gallery]) -> pa.Table:
    parts = [
        per_user_rows(
            ("matching", direction, row),
            corpus.user_ids.take(pa.array(gallery.users)),
            better=ranks.better,
            equal=ranks.equal,
            candidates=ranks.of,
            loss=matched.loss,
        )
        for gallery in found
        for row, matched in gallery.rows.items()
        for direction, ranks in zip(
            _direction_names(gallery.pairs), (matched.forward, matched.backward), strict=True
        )
    ]
    return pa.concat_tables(parts)
