"""Next-item models as the benchmarks read them: states of histories, and a table of items.

The score of item j after a history is state . table[j]: raw, not of unit vectors, as trained.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import torch

from clue.data.ragged import Ragged
from clue.data.sequences import Catalogue, SequencesConfig
from clue.evaluation.encode import last_states
from clue.monitor.read_log import FILE as LOG
from clue.monitor.read_log import RunHistory, read_log
from clue.nn.decoder import NextItemDecoder
from clue.run import checkpoint
from clue.run.checkpoint import Checkpoint

CLOCK: Literal["processor_seconds"] = "processor_seconds"
# how a held-out line of a run's log calls the figures of a learning curve
LOGGED = {
    "loss": "cross_entropy",
    "HR@10 seen kept": "recall_at_10",
    "NDCG@10 seen kept": "ndcg_at_10",
}


class ItemModel(Protocol):
    """What scores a catalogue of V items."""

    @property
    def table(self) -> np.ndarray:
        """The items (V, D)."""
        ...

    def states(self, histories: Ragged) -> np.ndarray:
        """Return the state (n, D) after each history of catalogue rows, newest last."""
        ...


class ItemPopularity:
    """The control: every user gets what was trained on most; scores are logs of shares."""

    name, seed, fingerprint = "popularity", 0, "item-popularity"

    def __init__(self, counts: np.ndarray) -> None:
        """Take how often each item is trained on, `counts` (V,); one is added to each."""
        self.chosen: dict[str, Any] = {}
        self.table: np.ndarray = np.log((counts + 1) / (counts + 1).sum())[:, None]

    def states(self, histories: Ragged) -> np.ndarray:
        """Return ones (n, 1)."""
        return np.ones((len(histories), 1))


class TrainedItems:
    """The next-item model of a checkpoint, on the accelerator where there is one."""

    def __init__(self, name: str, source: Checkpoint, *, seed: int) -> None:
        """Raise ValueError where `source` is another kind of model."""
        config = source.config
        if config.objective != "next_item":
            raise ValueError(
                f"{source.path} is a {config.objective} model; this benchmark takes runs of "
                "objective: next_item"
            )
        self.name, self.seed, self.fingerprint = name, seed, source.fingerprint
        self.checkpoint, self.sequences = source, config.sequences
        with pa.memory_map(str(source.path / "catalogue.arrow")) as file:
            known = pa.ipc.open_file(file).read_all()
        keys = zip(known["service"].to_pylist(), known["item_id"].to_pylist(), strict=True)
        self._row = {key: row for row, key in enumerate(keys)}
        self.services = set(known["service"].to_pylist())
        self.model = NextItemDecoder(config.decoder, len(self._row))
        self.model.load_state_dict(source.weights())
        self.table: np.ndarray = self.model.decoder.item.weight.detach().numpy().copy()
        if torch.accelerator.is_available():
            self.model.to(torch.accelerator.current_accelerator())

    @classmethod
    def open(cls, path: Path, name: str = "", *, seed: int = 0) -> "TrainedItems":
        """Return the model at `path`, a run or one of its checkpoints, by default by its name."""
        source = checkpoint.find(path)
        return cls(name or source.config.name, source, seed=seed)

    def states(self, histories: Ragged) -> np.ndarray:
        """Return the state (n, D) after each history; of an empty one it is zero."""
        return last_states(self.model, histories).numpy()

    def rows(self, catalogue: Catalogue) -> np.ndarray:
        """Return the model's row of each item of a catalogue (V,), ValueError for a new item."""
        columns = catalogue.columns()
        keys = list(
            zip(columns["service"].to_pylist(), columns["item_id"].to_pylist(), strict=True)
        )
        missing = [key for key in keys if key not in self._row]
        if missing:
            raise ValueError(
                f"{self.checkpoint.path} does not know {len(missing)} of {len(keys)} items of "
                f"{', '.join(sorted({service for service, _ in keys}))}, {missing[0][1]} among "
                "them; train it on a corpus that holds them"
            )
        return np.array([self._row[key] for key in keys])

    def check_held_out(self, asked: SequencesConfig, services: set[str]) -> None:
        """Raise ValueError where its training may have read what sequences `asked` hold out.

        They are either its own, or those of one service, of which only leave-one-out over sequences
        of one service each holds out the last event.
        """
        own, path = self.sequences, self.checkpoint.path
        if services == self.services and own == asked:
            return
        apart = len(self.services) == 1 or own.join == "service"
        if {own.split, asked.split} != {"leave_one_out"} or not apart:
            raise ValueError(
                f"{path} was trained with sequences.split={own.split} and sequences.join="
                f"{own.join}, which may hold the answers for {', '.join(sorted(services))}; train "
                "it with sequences.split=leave_one_out and sequences.join=service"
            )
        if own.held_out != asked.held_out:
            raise ValueError(
                f"{path} was trained with sequences.held_out={own.held_out} and is asked with "
                f"{asked.held_out}; compare models of equal sequences"
            )

    def about(self) -> dict[str, Any]:
        """Return what it is, the seconds of its training, and its learning curve."""
        config, run = self.checkpoint.config, self.checkpoint.path.parents[1]
        return {
            "step": self.checkpoint.step,
            "pretraining_seed": config.seed,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "non_embedding": config.decoder.non_embedding,
            "decoder": asdict(config.decoder),
            "training_seconds": training_seconds(run, self.checkpoint.step),
            "curve": learning_curve(run),
        }


class ServiceItems:
    """A trained model as a model of the items of one catalogue, which may be part of its own."""

    def __init__(self, model: ItemModel, rows: np.ndarray) -> None:
        """`rows` (V,) are the model's rows of the catalogue's items."""
        self.model, self.rows = model, rows
        self.table: np.ndarray = model.table[rows]

    def states(self, histories: Ragged) -> np.ndarray:
        """Return the state (n, D) after each history of the catalogue's rows."""
        return self.model.states(Ragged(self.rows[histories.values], histories.offsets))


def _history(run: Path) -> RunHistory:
    """Return the log; a checkpoint that was moved away from its log has no lines."""
    return read_log(run) if (run / LOG).is_file() else RunHistory()


def _spent(history: RunHistory, clock: Literal["seconds", "processor_seconds"], step: int) -> float:
    """Return the seconds of the steps up to `step`: a line is the mean of those since the last."""
    total, before = 0.0, 0
    for line in history.train:
        total += line[clock] * max(0, min(line["step"], step) - before)
        before = line["step"]
    return total


def training_seconds(run: Path, step: int) -> float:
    """Return the seconds of the steps up to `step` by the log of a run, validation left out.

    NaN where there is no log.
    """
    history = _history(run)
    return _spent(history, "seconds", step) if history.train else float("nan")


def learning_curve(run: Path) -> list[dict[str, float]]:
    """Return a line per held-out measurement of a run's log: processor seconds so far, figures.

    Only steps count, as in the curve of the external model.
    """
    history, curve = _history(run), list[dict[str, float]]()
    for line in history.valid:
        (figures,) = line.get("next_item", {}).values()
        spent = _spent(history, CLOCK, line["step"])
        curve.append({CLOCK: spent, **{name: figures[key] for name, key in LOGGED.items()}})
    return curve
