"""What a synthetic world knows of its users and items, as the reference that no model can pass.

The files are those of clue/synthetic/labels.py. N users and I items of the corpus, Q topics.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import logsumexp

from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot
from clue.atomic import sha256
from clue.config import load
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.synthetic.labels import OutcomesConfig, latents_at, places, shares_of

ORACLE = "oracle"  # the row that the tables measure a model's share of the attainable by


class Oracle:
    """The laws of the world in `directory`, by the users and items of a corpus made from it.

    `first` and `last` (N, Q) are the users' latents; `topic`, `popularity` (I,) those of the items.
    """

    def __init__(self, directory: Path, corpus: Corpus) -> None:
        """Read them. FileNotFoundError without a world, ValueError for a corpus of another one."""
        file = directory / "world.yaml"
        if not file.is_file():
            raise FileNotFoundError(
                f"no {file}; python -m clue.synthetic.labels world.out={directory} writes it"
            )
        self.directory, self.corpus = directory, corpus
        self.config = load(OutcomesConfig, file, raw=True)
        users, items = self.table("users"), self.table("items")
        rows = self.rows(users["user_id"], corpus.user_ids)
        self.first, self.last = (shares_of(users, c)[rows] for c in ("first_latents", "latents"))
        rows = self.rows(items["item_id"], corpus.item_ids)
        self.topic = items["topic"].to_numpy()[rows]
        self.popularity = items["popularity"].to_numpy()[rows]
        names = ("users", "items", "outcomes", "impressions")
        self.fingerprint = "-".join(sha256(directory / f"{n}.parquet")[:8] for n in names)

    def table(self, name: str) -> pa.Table:
        """Return one of the world's tables."""
        return pq.read_table(self.directory / f"{name}.parquet")

    def rows(self, known: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
        """Return where each of `asked` stands in `known`. ValueError for one that is not there."""
        rows = places(known, ids)
        if (rows < 0).any():
            stranger = ids[int(np.flatnonzero(rows < 0)[0])]
            raise ValueError(
                f"{self.corpus.path}: {stranger} is not of the world in {self.directory}; prepare "
                "the corpus from its events"
            )
        return rows

    def item_vectors(self) -> np.ndarray:
        """Return (I, Q + 1): their product with a user's latents and a 1 is the item's probability.

        Among the items of its service, and times a million: ranks know no difference below 1e-6.
        """
        service, topics = self.corpus.item_service, self.first.shape[1]
        of_topic = np.bincount(service * topics + self.topic, self.popularity)
        of_service = np.bincount(service, self.popularity)
        noise, items = self.config.world.noise, np.arange(len(service))
        vectors = np.zeros((len(service), topics + 1))
        its_share = self.popularity / of_topic[service * topics + self.topic]
        vectors[items, self.topic] = (1 - noise) * its_share
        vectors[:, -1] = noise * self.popularity / of_service[service]
        return 1e6 * vectors

    def likelihood(self, users: np.ndarray, service: int) -> np.ndarray:
        """Return how likely each of `users` (n,) does what each did in a service, (n, n) in nats.

        Row q holds log P(the items of user q at their times | the latents of user c), less what is
        the same for every c. How many events there are counts for nothing.
        """
        items = self.corpus.items_of(service).take(users)
        times = self.corpus.timestamps_of(service).take(users)
        here = self.corpus.item_service == service
        topics, noise = self.first.shape[1], self.config.world.noise
        by_chance = np.bincount(self.topic[here], self.popularity[here], topics)
        by_chance *= noise / by_chance.sum()
        first, last = self.first[users], self.last[users]
        likelihood = np.empty((len(users), len(users)))
        for row in range(len(users)):
            topic = self.topic[items[row]]
            moment = self.config.moments(times[row])
            share = latents_at(first[:, topic], last[:, topic], moment)
            likelihood[row] = np.log((1 - noise) * share + by_chance[topic] + 1e-12).sum(axis=1)
        return likelihood


class TrueLatents:
    """The oracle of the next item: the true latents of a user at the moment that is asked for."""

    name, seed, similarity = ORACLE, 0, slice(None)

    def __init__(self, truth: Oracle) -> None:
        """Read nothing more."""
        self.truth, self.fingerprint = truth, f"latents-{truth.fingerprint}"
        self.blocks = one_block(truth.first.shape[1] + 1)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return (n, Q + 1), the latents at `past.cutoff` and a 1."""
        moments = self.truth.config.moments(past.cutoff)[:, None]
        latents = latents_at(self.truth.first[past.users], self.truth.last[past.users], moments)
        return np.concatenate([latents, np.ones((len(past), 1))], axis=1)

    def items(self) -> np.ndarray:
        """Return the items' vectors (I, Q + 1)."""
        return self.truth.item_vectors()


def entropy(likelihood: np.ndarray) -> np.ndarray:
    """Return what the truth pays for each query (n,), in nats: -log of its own user's posterior."""
    return logsumexp(likelihood, axis=1) - np.diag(likelihood)


def last_events(corpus: Corpus, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return service, item and time of the newest event of each of `users` (n,), who have some."""
    newest = np.full((len(corpus.services), len(users)), -np.inf)
    item = np.zeros(newest.shape, np.int64)
    for number in range(len(corpus.services)):
        items, times = (
            c.take(users) for c in (corpus.items_of(number), corpus.timestamps_of(number))
        )
        some = np.flatnonzero(items.lengths > 0)
        newest[number, some] = times.values[_ends(times)[some]]
        item[number, some] = items.values[_ends(items)[some]]
    service, rows = newest.argmax(axis=0), np.arange(len(users))
    return service, item[service, rows], newest[service, rows]


def _ends(rows: Ragged) -> np.ndarray:
    return rows.offsets[1:] - 1
