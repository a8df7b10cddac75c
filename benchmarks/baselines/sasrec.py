"""The supervised oracle: a next-item model of this project, trained for the service it ranks."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.next_item_models import TrainedItems
from benchmarks.baselines.popularity import columns
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import Catalogue
from clue.evaluation.ranking import products
from clue.run import checkpoint


class SupervisedItems:
    """The model of a next-item run, whose corpus may be another that holds the same items."""

    name = "SASRec (own, supervised)"

    def __init__(self, run: Path, corpus: Corpus, service: str) -> None:
        """Reads what the run is; FileNotFoundError where there is none, and see `_opened`."""
        self.source, self.corpus, self.service = checkpoint.find(run), corpus, service
        self.seed, self.fingerprint = self.source.config.seed, self.source.fingerprint
        self.chosen: dict[str, Any] = {"step": self.source.step}

    @cached_property
    def _opened(self) -> tuple[TrainedItems, np.ndarray]:
        """The model, and its row of each item of the service (m,).

        ValueError for a model whose training may have seen the items that are asked for, and, by
        name, for an item that it does not know.
        """
        config = self.source.config
        theirs = Catalogue(Corpus.open(config.corpus), config.sequences.services)
        one = len(theirs.services) == 1 or config.sequences.join == "service"
        if config.sequences.split != "leave_one_out" or not one:
            raise ValueError(
                f"{self.source.path} was trained with sequences.split={config.sequences.split} "
                f"and sequences.join={config.sequences.join}, which may hold the answers for "
                f"{self.service}; train it with leave_one_out and join=service"
            )
        known = theirs.columns()
        pairs = zip(known["service"].to_pylist(), known["item_id"].to_pylist(), strict=True)
        row = {pair: number for number, pair in enumerate(pairs)}
        ours = Catalogue(self.corpus, [self.service]).columns()["item_id"].to_pylist()
        missing = [item for item in ours if (self.service, item) not in row]
        if missing:
            raise ValueError(
                f"{self.source.path} does not know {len(missing)} of {len(ours)} items of "
                f"{self.service}, {missing[0]} among them; train it on a corpus that holds them"
            )
        rows = np.array([row[self.service, item] for item in ours])
        return TrainedItems(self.source, theirs), rows

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Does nothing: it was trained beforehand, its own run chose on the valid items."""

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Yields scores (b, m) of the whole catalogue of its service."""
        model, rows = self._opened
        met = columns(past, self.service, items)
        states = model.states(Ragged(rows[met.values], met.offsets))
        yield from products(states, model.table[rows])
