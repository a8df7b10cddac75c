"""The supervised oracle: a next-item model of this project, trained for the service it ranks."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.next_item_models import ServiceItems, TrainedItems
from benchmarks.baselines.popularity import columns
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus
from clue.data.sequences import Catalogue, SequencesConfig
from clue.evaluation.ranking import products
from clue.run import checkpoint


class SupervisedItems:
    """The model of a next-item run, whose corpus may be another that holds the same items."""

    name = "SASRec (own, supervised)"

    def __init__(self, run: Path, corpus: Corpus, service: str) -> None:
        """Read what the run is; raise FileNotFoundError where there is none, and see `_opened`."""
        self.source, self.corpus, self.service = checkpoint.find(run), corpus, service
        self.seed, self.fingerprint = self.source.config.seed, self.source.fingerprint
        self.chosen: dict[str, Any] = {"step": self.source.step}

    @cached_property
    def _opened(self) -> ServiceItems:
        """The model of the service's items.

        ValueError for a model whose training may have seen the items that are asked for, and, by
        name, for an item that it does not know.
        """
        model = TrainedItems(self.name, self.source, seed=self.seed)
        own = SequencesConfig(services=[self.service], join="service")
        model.check_held_out(own, {self.service})
        return ServiceItems(model, model.rows(Catalogue(self.corpus, [self.service])))

    def fit(self, train: Snapshot, valid: Snapshot, targets: np.ndarray, service: str) -> None:
        """Do nothing: it was trained beforehand, its own run chose on the valid items."""

    def scores(self, past: Snapshot, items: np.ndarray) -> Iterator[np.ndarray]:
        """Yield scores (b, m) of the whole catalogue of its service."""
        model = self._opened
        yield from products(model.states(columns(past, self.service, items)), model.table)
