"""Does a user take up an offer, such as redeem a coupon of a campaign that they were sent?

Each offer is one query, as of the moment it was sent: the past holds what the user bought before,
and of earlier offers only what had been sent and taken up by then is counted. Users of the training
split fit the probe, valid ones choose it, those of test are scored. What kind of offer it is stands
beside every vector, since the rate differs by kind.

    linear        the user's vector, the kind of the offer, a penalty for each block
    vector alone  the user's vector
    lightgbm      the rival of counts, tuned on the valid users
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.baselines.feature_rows import FeatureRows, answers, beside, supports
from benchmarks.baselines.interactions import bounded
from benchmarks.baselines.rates import Timeline
from benchmarks.baselines.representations import FixedScores
from benchmarks.baselines.transactions import Aggregates, read_sales, top_items
from benchmarks.datasets.label_tables import check_times, read_table, rows_of
from benchmarks.metrics.calibration import class_losses
from benchmarks.protocols import Model, Probe, Scored, TaskBaseline
from benchmarks.query_columns import history_slice, take
from benchmarks.snapshot import Snapshot, snapshot_at
from benchmarks.tasks.returns import MEASURES
from clue.atomic import sha256
from clue.data.corpus import Corpus

COUNTS = ("kind", "earlier offers", "aggregates")


@dataclass(frozen=True, kw_only=True)
class OffersConfig:
    """`offers` of a table: user_id, kind, timestamp, redeemed (0 or 1), redeemed_at.

    `sales` is the table of a `service`'s sales, whose aggregates are a rival, with the lines of the
    `products` most bought ones among them.
    """

    name: str
    offers: Path
    sales: Path
    service: str
    products: int = 50

    def build(self, corpus: Corpus) -> "OffersTask":
        """Return the task. ValueError where a split has no offer of either kind."""
        return OffersTask(self, corpus)


@dataclass(frozen=True)
class Offers:
    """Offers (n,): rows of the corpus' users, when sent, codes of kinds, 0 or 1, and when taken."""

    users: np.ndarray
    times: np.ndarray
    kinds: np.ndarray
    redeemed: np.ndarray
    redeemed_at: np.ndarray


def read_offers(corpus: Corpus, config: OffersConfig) -> Offers:
    """Return the offers to known users. Raises as `read_table` and `check_times`.

    ValueError for an offer that was taken up before it was sent.
    """
    file = config.offers
    table = read_table(
        file,
        {
            "user_id": "id",
            "kind": "text",
            "timestamp": "time",
            "redeemed": "number",
            "redeemed_at": "number",
        },
    )
    users = rows_of(table["user_id"], corpus.user_ids.to_pylist(), f"{file}: user_id", corpus)
    times = table["timestamp"].to_numpy()
    check_times(corpus, config.service, times, f"{file}: timestamp")
    offers = Offers(
        users=users,
        times=times,
        kinds=table["kind"].combine_chunks().dictionary_encode().indices.to_numpy(),
        redeemed=table["redeemed"].to_numpy().astype(np.int64),
        redeemed_at=table["redeemed_at"].to_numpy(),
    )
    early = np.flatnonzero((offers.redeemed > 0) & (offers.redeemed_at < offers.times))
    if len(early):
        raise ValueError(
            f"{file}: row {early[0] + 1} was redeemed at {offers.redeemed_at[early[0]]:.0f}, "
            f"before it was sent at {offers.times[early[0]]:.0f}; both are epoch seconds"
        )
    return take(offers, users >= 0)


class OffersTask:
    """Offers to held-out users; see `OffersConfig`."""

    version, family = 1, "offer"
    probes: tuple[Probe, ...] = ("linear", "vector alone", "lightgbm")

    def __init__(self, config: OffersConfig, corpus: Corpus) -> None:
        """Read the offers and the sales."""
        self.name, self.config, self.corpus = config.name, config, corpus
        self.offers = read_offers(corpus, config)
        split = corpus.split[self.offers.users]
        self.parts = [take(self.offers, split == number) for number in range(3)]
        for part, called in zip(self.parts, ("training", "valid", "test"), strict=True):
            if not 0 < part.redeemed.sum() < len(part.redeemed):
                raise ValueError(
                    f"{config.name}: the {called} users have {len(part.redeemed)} offers, "
                    f"{part.redeemed.sum()} of them redeemed; both kinds are needed"
                )
        self.sales = read_sales(corpus, config.sales)
        self.recipe: Mapping[str, Any] = {
            "corpus": corpus.fingerprint,
            "offers": sha256(config.offers),
            "sales": self.sales.source,
            "products": config.products,
            "counts": [len(part.users) for part in self.parts],
            "base_rate_of_test": float(self.parts[2].redeemed.mean()),
        }
        self._vectors = lru_cache(maxsize=1)(self._read)

    def baselines(self, models: Sequence[Model]) -> Sequence[Model | TaskBaseline]:
        """Return the prior, each group of counts, all by a line and by trees, and beside CLUE."""
        share, test = self.parts[0].redeemed.mean(), self.parts[2]
        prior = np.tile([1 - share, share], (len(test.users), 1))
        return [
            FixedScores("prior", prior, self.recipe["offers"][:8]),
            FeatureRows("offer kind", COUNTS[:1], "linear"),
            FeatureRows("earlier offers", COUNTS[:2], "linear"),
            FeatureRows("aggregates", COUNTS, "linear"),
            FeatureRows("aggregates (trees)", COUNTS, "lightgbm"),
            *beside(models, COUNTS),
        ]

    def supports(self, model: Model | TaskBaseline, probe: Probe) -> bool:
        """Return whether a vector is asked, or a rival by its own probe."""
        return supports(model, probe)

    @cached_property
    def pasts(self) -> list[Snapshot]:
        """What each user bought before the offer was sent, of each part."""
        services = [self.config.service]
        return [snapshot_at(self.corpus, p.users, p.times, services) for p in self.parts]

    @cached_property
    def columns(self) -> list[dict[str, np.ndarray]]:
        """The columns of each of COUNTS for the offers of each part, (n, k)."""
        offers = self.offers
        first = float(offers.times.min())
        aggregates = Aggregates(self.sales, top_items(self.sales, first, self.config.products))
        sent = Timeline(offers.users, offers.times, offers.redeemed)
        taken = take(offers, offers.redeemed > 0)
        redeemed = Timeline(taken.users, taken.redeemed_at, taken.redeemed)
        return [
            {
                "kind": np.eye(int(offers.kinds.max()) + 1)[part.kinds],
                "earlier offers": np.log1p(
                    np.stack(
                        [each.before(part.users, part.times)[0] for each in (sent, redeemed)],
                        axis=1,
                    )
                ),
                "aggregates": aggregates.users(past),
            }
            for part, past in zip(self.parts, self.pasts, strict=True)
        ]

    def _read(self, model: Model) -> tuple[list[np.ndarray], Mapping[str, slice]]:
        vectors = [model.users(past) for past in self.pasts]
        return vectors, bounded(model.blocks, vectors[0].shape[1])

    def score(self, model: Model | TaskBaseline, probe: Probe) -> Scored:
        """Return a query for each offer to a user of the test split."""
        labels = self.parts[0].redeemed, self.parts[1].redeemed
        predicted = answers(model, probe, ("kind",), self.columns, self._vectors, labels)
        return self._scored(predicted.values, predicted.chosen)

    def _scored(self, values: np.ndarray, chosen: Mapping[str, Any]) -> Scored:
        test = self.parts[2]
        columns = {
            "user_id": self.corpus.user_ids.take(pa.array(test.users)),
            "score": values[:, 1],
            "label": test.redeemed,
            "loss": class_losses(values, test.redeemed),
            "slice history": history_slice(self.pasts[2].lengths),
        }
        return Scored(pa.table(columns), MEASURES, chosen)
