"""Next-item models as the benchmarks read them: states of histories, and a table of items.

The score of item j after a history is state . table[j]: raw, not of unit vectors, as trained.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch

from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.sequences import Catalogue, EvalQueries, Sequences, SequencesConfig
from clue.evaluation.encode import last_states
from clue.monitor.read_log import read_log
from clue.nn.decoder import NextItemDecoder
from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint


class ItemModel(Protocol):
    """What scores a catalogue of V items: its `table` (V, D)."""

    table: np.ndarray

    def states(self, histories: Ragged) -> np.ndarray:
        """Return the state (n, D) after each history of catalogue rows, newest last."""
        ...


class Popularity:
    """The control: everybody gets what was trained on most; scores are logs of shares."""

    def __init__(self, counts: np.ndarray) -> None:
        """`counts` (V,) is how often each item is trained on; one is added to each."""
        self.table = np.log((counts + 1) / (counts + 1).sum())[:, None]

    def states(self, histories: Ragged) -> np.ndarray:
        """Return ones (n, 1)."""
        return np.ones((len(histories), 1))


class TrainedItems:
    """The next-item model of a checkpoint, on the accelerator where there is one."""

    def __init__(self, found: Checkpoint, catalogue: Catalogue) -> None:
        """Raises ValueError where `found` is another kind of model, or of another catalogue."""
        config = found.config
        if config.objective != "next_item":
            raise ValueError(
                f"{found.path} is a {config.objective} model; this benchmark takes runs of "
                "objective: next_item"
            )
        check_catalogue(found, catalogue)
        self.checkpoint, self.sequences = found, config.sequences
        self.model = NextItemDecoder(config.decoder, len(catalogue))
        self.model.load_state_dict(found.weights())
        self.table: np.ndarray = self.model.decoder.item.weight.detach().numpy().copy()
        self.parameters = sum(weight.numel() for weight in self.model.parameters())
        if torch.accelerator.is_available():
            self.model.to(torch.accelerator.current_accelerator())

    @classmethod
    def open(cls, path: Path, corpus: Corpus) -> "TrainedItems":
        """Return model at `path`, a run or one of its checkpoints, for a corpus of its items."""
        found = checkpoint.find(path)
        return cls(found, Catalogue(corpus, found.config.sequences.services))

    def states(self, histories: Ragged) -> np.ndarray:
        """Return the state (n, D) after each history; of an empty one it is zero."""
        return last_states(self.model, histories).numpy()


def check_catalogue(found: Checkpoint, catalogue: Catalogue) -> None:
    """Raises ValueError where row i is not the same item in the checkpoint and the corpus."""
    file = found.path / "catalogue.arrow"
    with pa.memory_map(str(file)) as source:
        theirs = pa.ipc.open_file(source).read_all()
        for name, ours in catalogue.columns().items():
            column = theirs[name].combine_chunks()
            if not column.cast(ours.type).equals(ours):
                raise ValueError(
                    f"{file} ({len(theirs):,} items) is not the catalogue of "
                    f"{catalogue.corpus.path} ({len(catalogue):,} items): {name} differs; evaluate "
                    "on the corpus that it was trained on, or train again"
                )


def training_seconds(found: Checkpoint) -> float:
    """Return the seconds of the steps up to the checkpoint, by its run's log; validation is extra.

    A logged line holds the mean of its steps since the line before. NaN where there is no log.
    """
    try:
        history = read_log(found.path.parents[1])
    except FileNotFoundError:
        return float("nan")
    total, before = 0.0, 0
    for line in history.train:
        total += line["seconds"] * max(0, min(line["step"], found.step) - before)
        before = line["step"]
    return total


def same_questions(models: Sequence[TrainedItems]) -> SequencesConfig:
    """Return the sequences that all of the models were trained on.

    Raises ValueError, naming the first that differs: other sequences are other questions.
    """
    first = models[0]
    for model in models[1:]:
        if model.sequences != first.sequences:
            raise ValueError(
                f"{model.checkpoint.path} was trained on {model.sequences}, "
                f"{first.checkpoint.path} on {first.sequences}; compare models of equal sequences"
            )
    return first.sequences


def asked_of(sequences: Sequences, most: int) -> EvalQueries:
    """Return at most so many of the test items, of users who have one.

    Raises ValueError where there is none.
    """
    asked = sequences.questions("test").some(most)
    if not len(asked.targets):
        raise ValueError(
            f"{sequences.catalogue.corpus.path}: no sequence has a test item; give longer histories"
        )
    return asked
