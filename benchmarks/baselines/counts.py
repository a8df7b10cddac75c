"""What is counted of a user before there is any model: events, and events with common items."""

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus


class ItemCounts:
    """The logarithms of how often a user met each of the most common items, and of all."""

    name, seed, similarity = "item counts", 0, slice(None)

    def __init__(self, corpus: Corpus, users: np.ndarray, count: int) -> None:
        """Choose the `count` items that `users` met most."""
        events = np.zeros(corpus.num_items, np.int64)
        for service in range(len(corpus.services)):
            values = corpus.items_of(service).take(users).values
            events += np.bincount(values, minlength=corpus.num_items)
        self.counted = np.argsort(-events, kind="stable")[: min(count, int((events > 0).sum()))]
        self.blocks = one_block(len(self.counted) + 1)
        self.fingerprint = f"item-counts-{count}-{len(users)}-{corpus.fingerprint}"

    def users(self, past: Snapshot) -> np.ndarray:
        """Return (n, count + 1)."""
        shape = (len(past), past.corpus.num_items)
        bag = csr_matrix(shape)
        for items, _ in past.parts:
            bag += csr_matrix((np.ones(len(items.values)), items.values, items.offsets), shape)
        counts = bag.tocsc()[:, self.counted].toarray()
        return np.log1p(np.c_[counts, past.lengths]).astype(np.float32)


class LogCounts:
    """The logarithms of a user's numbers of events: how much was done, and nothing of what."""

    name, seed, fingerprint, similarity = "log counts", 0, "log-counts", slice(None)

    def __init__(self, corpus: Corpus) -> None:
        """Every service of the corpus has a column."""
        self.blocks = one_block(len(corpus.services) + 1)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return a column (n, S + 1) for each service and for all together."""
        counts = [*(items.lengths for items, _ in past.parts), past.lengths]
        return np.log1p(np.stack(counts, axis=1))


class LogAmounts:
    """The logarithms of how much there is of each numeric field, beside those of `LogCounts`."""

    name, seed, similarity = "log counts + amounts", 0, slice(None)

    def __init__(self, corpus: Corpus) -> None:
        """Every numeric field of a service has a column."""
        self.counts = LogCounts(corpus)
        self.fingerprint = f"log-amounts-{corpus.fingerprint}"
        fields = [each for n in range(len(corpus.services)) for each in corpus.fields_of(n)]
        amounts = sum(field.kind == "numeric" for field in fields)
        self.blocks = one_block(len(corpus.services) + 1 + amounts)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return (n, S + 1 + the numeric fields of all services); a missing number adds nothing."""
        sums = [
            np.bincount(
                np.repeat(np.arange(len(past)), values.lengths),
                np.nan_to_num(values.values),
                len(past),
            )
            for named in past.amounts
            for values in named.values()
        ]
        # the sign of a sum stays: money may come back
        logs = [np.sign(each) * np.log1p(np.abs(each)) for each in sums]
        return np.column_stack([self.counts.users(past), *logs])
