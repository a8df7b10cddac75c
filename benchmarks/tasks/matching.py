"""M1, cross-service matching: does the vector of one service find the same user in another?

The gallery and the queries are the held-out users who have both; everybody is ranked, both ways,
with no probe. The CCA baseline is canonical correlation between TF-IDF + SVD of both services, the
ridge and the weights chosen on valid users (benchmarks/baselines/tfidf.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.oracle import Oracle, TrueLatents, entropy
from benchmarks.baselines.representations import RandomModel
from benchmarks.baselines.tfidf import documents, fit_cca, item_terms, unit
from benchmarks.metrics.calibration import refit_scale
from benchmarks.protocols import Measure, Model, Probe, Scored, TaskBaseline, has_vectors, model_of
from benchmarks.query_columns import history_slice
from benchmarks.snapshot import views
from clue.data.corpus import Corpus
from clue.evaluation.matching import MatchingPairs, contrastive_entropy, matching_pairs
from clue.evaluation.ranking import Ranks, rank

EVERY = 1_000_000_000  # events to read and users to take: all; an encoder reads its newest
MEASURES = {
    "R@10": Measure("mean", ("hit_10",)),
    "R@1": Measure("mean", ("hit_1",)),
    "MRR": Measure("mean", ("reciprocal",)),
    "median rank": Measure("median", ("share",), lower_is_better=True),
    "contrastive entropy": Measure("mean", ("entropy",), lower_is_better=True),
}


@dataclass(frozen=True)
class Matched:
    """One gallery of n users: the ranks of both directions, each user's entropy in nats (n,)."""

    forward: Ranks
    backward: Ranks
    loss: np.ndarray


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """A matching task over `pairs` of services, each [service, service]; all there are where empty.

    A corpus of one service is matched between the older and the newer half of each history. With
    several pairs each has its own gallery and the figures are over all queries. `cca_dims`
    is the width of the CCA baseline's SVD, 0 for none. `world` is the directory of the
    synthetic world that the corpus is of: its oracle knows the latents of the whole gallery and
    ranks by the likelihood of what was done; a model that reads the histories stays below.
    """

    name: str
    pairs: list[list[str]] = field(default_factory=list[list[str]])
    cca_dims: int = 512
    world: Path | None = None

    def build(self, corpus: Corpus) -> "MatchingTask":
        """Return the task. ValueError for a service that the corpus lacks, and for no users."""
        return MatchingTask(self, corpus)


class CcaBaseline:
    """The canonical correlations of each pair of services, tuned; it has no vector of a user."""

    name, seed = "CCA baseline", 0

    def __init__(self, config: MatchingConfig, corpus: Corpus) -> None:
        """Fit nothing: `MatchingTask` does, on the training users of each pair."""
        self.config, self.corpus = config, corpus
        self.fingerprint = f"cca-{config.cca_dims}-{corpus.fingerprint}"


class MatchingTask:
    """Held-out users with both services of a pair; see `MatchingConfig`."""

    version, family = 1, "matching"
    probes: tuple[Probe, ...] = ("zero-shot",)

    def __init__(self, config: MatchingConfig, corpus: Corpus) -> None:
        """Find the galleries."""
        self.name, self.config, self.corpus = config.name, config, corpus
        wanted = {"-".join(sorted(pair, key=corpus.services.index)) for pair in config.pairs}
        held_out = np.flatnonzero(corpus.split > 0)
        by_name = {p.name: p for p in matching_pairs(corpus, held_out, max_events=EVERY)}
        wanted = wanted or set(by_name)
        missing = wanted - by_name.keys()
        if missing or not wanted:
            raise ValueError(
                f"{config.name}: no two held-out users of {corpus.path} are in both services of "
                f"{', '.join(sorted(missing)) or 'any pair'}; pairs there are {', '.join(by_name)}"
            )
        self.oracle = config.world and TrueLatents(Oracle(config.world, corpus))
        self.galleries = [pairs for name, pairs in by_name.items() if name in wanted]
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "pairs": sorted(wanted),
            "gallery": [len(pairs.users) for pairs in self.galleries],
        }
        if self.oracle:
            self.recipe = {**self.recipe, "oracle": self.oracle.fingerprint}

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the oracle of a synthetic world, and the CCA baseline."""
        oracle = [self.oracle] if self.oracle else []
        cca = self.config.cca_dims and self._can_fit()
        return [*oracle, *([CcaBaseline(self.config, self.corpus)] if cca else [])]

    def _can_fit(self) -> bool:
        """Return whether training and valid users have every pair: a tiny log may lack them."""
        names = {pairs.name for pairs in self.galleries}
        parts = (self.corpus.users_in("train"), self.corpus.users_in("valid"))
        return all(
            names <= {p.name for p in matching_pairs(self.corpus, users, max_events=1)}
            for users in parts
        )

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether it has vectors of users, or is the CCA baseline.

        Not to a vector drawn for each user: it is the same from either service and matches itself.
        """
        if isinstance(model, RandomModel):
            return False
        return has_vectors(model) or isinstance(model, CcaBaseline)

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return two queries for each user of each pair: from either service to the other."""
        parts: list[pa.Table] = []
        chosen: dict[str, Any] = {}
        for pairs in self.galleries:
            if isinstance(model, TrueLatents):
                parts.append(self.queries(pairs, _true_ranks(model.truth, pairs)))
                continue
            if isinstance(model, CcaBaseline):
                a, b, chosen[pairs.name] = self._cca(pairs)
            else:
                given = model_of(model)
                a, b = (
                    unit(given.users(views(self.corpus, pairs.users, service, items))[:, columns])
                    for columns in [given.similarity]
                    for service, items in ((pairs.service_a, pairs.a), (pairs.service_b, pairs.b))
                )
            valid = np.flatnonzero(self.corpus.split[pairs.users] == 1)
            scale = refit_scale(a, b, valid if len(valid) > 1 else None)
            parts.append(self.queries(pairs, match(a, b, scale)))
        return Scored(pa.concat_tables(parts), MEASURES, chosen)

    def queries(self, pairs: MatchingPairs, matched: Matched) -> pa.Table:
        """Return the lines of one gallery: from either service to the other."""
        ids = self.corpus.user_ids.take(pa.array(pairs.users))
        tables: list[pa.Table] = []
        one, other = pairs.service_a, pairs.service_b
        if one == other:
            one, other = "older half", "newer half"
        for ranks, read, service, to in (
            (matched.forward, pairs.a, one, other),
            (matched.backward, pairs.b, other, one),
        ):
            columns = {
                "user_id": ids,
                "hit_10": ranks.hit(10),
                "hit_1": ranks.hit(1),
                "reciprocal": ranks.reciprocal(),
                "share": ranks.share(),
                "entropy": matched.loss,
                "slice direction": pa.array([f"{service} → {to}"] * len(ids)),
                "slice history": history_slice(read.lengths),
            }
            tables.append(pa.table(columns))
        return pa.concat_tables(tables)

    def _cca(self, pairs: MatchingPairs) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        corpus, terms = self.corpus, item_terms(self.corpus)
        train, valid = (
            next(
                p
                for p in matching_pairs(corpus, corpus.users_in(part), max_events=EVERY, most=EVERY)
                if p.name == pairs.name
            )
            for part in ("train", "valid")
        )
        maps = fit_cca(train, valid, terms, dims=self.config.cca_dims, seed=0)
        texts = documents(pairs.a, terms), documents(pairs.b, terms)
        chosen = {"ridge": maps.ridge, "power": maps.power}
        return maps.vectors_a(texts[0]), maps.vectors_b(texts[1]), chosen


def _true_ranks(truth: Oracle, pairs: MatchingPairs) -> Matched:
    """Return where each user stands by the likelihood of the events of either service."""
    services = truth.corpus.services
    likely = [
        truth.likelihood(pairs.users, services.index(service))
        for service in (pairs.service_a, pairs.service_b)
    ]
    same = np.arange(len(pairs.users))
    # A product with the identity: the score matrix itself goes through the same ranks.
    forward, backward = (rank(each, np.eye(len(same)), same) for each in likely)
    loss = (entropy(likely[0]) + entropy(likely[1])) / 2
    return Matched(forward, backward, loss)


def match(a: np.ndarray, b: np.ndarray, scale: float) -> Matched:
    """Return the standing of the gallery whose row i is one user in a and in b (n, E)."""
    same = np.arange(len(a))
    return Matched(rank(a, b, same), rank(b, a, same), contrastive_entropy(a, b, scale))
