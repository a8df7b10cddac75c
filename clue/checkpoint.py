"""Checkpoints: everything a run needs to go on and a service needs to serve, without a pickle.

    RUN/checkpoints/step_00000600/
        model.safetensors  optimizer.safetensors  config.yaml  corpus.json  tokenizer.json
        trained.safetensors  where the model is an average: the weights that training goes on from
        checkpoint.json    step, metrics, sha256 of every other file
    RUN/last, RUN/best     text files, each naming one of the directories

A checkpoint is written beside its place and renamed, so that a killed run leaves only whole ones.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clue.config import PretrainConfig
from clue.data.corpus import Corpus
from clue.durable import sha256, sync
from clue.settings import load, to_yaml

KEEP = 2  # newest checkpoints that stay, beside the best: one may be damaged


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint directory: the step it was written after and what it scored."""

    path: Path
    step: int
    metrics: dict[str, Any]
    sha256: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Names the model: equal weights and tokenizer give equal vectors for equal texts."""
        both = self.sha256["model.safetensors"] + self.sha256["tokenizer.json"]
        return hashlib.sha256(both.encode()).hexdigest()

    @property
    def config(self) -> PretrainConfig:
        """The resolved config of the run."""
        return load(PretrainConfig, self.path / "config.yaml")

    @property
    def corpus(self) -> dict[str, Any]:
        """The manifest of the corpus that the run read."""
        return json.loads((self.path / "corpus.json").read_text(encoding="utf-8"))

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's parameters by name, on the CPU."""
        return load_file(self.path / "model.safetensors")

    def trained(self) -> dict[str, torch.Tensor]:
        """The parameters that training goes on from: others than the model's where it averages."""
        file = self.path / "trained.safetensors"
        return load_file(file) if file.is_file() else self.weights()


@dataclass(frozen=True)
class State:
    """What a run has learnt after `step` steps, and what it scored there (empty: not measured).

    `trained` are the weights behind a model that holds their average, empty without one.
    """

    model: torch.nn.Module
    trained: dict[str, torch.Tensor]
    optimizers: Sequence[torch.optim.Optimizer]
    step: int
    metrics: dict[str, Any]


def save(config: PretrainConfig, corpus: Corpus, state: State, *, best: bool) -> Checkpoint:
    """Writes `state` into the run's directory, points `last` (and `best`) at it, deletes old ones.

    The newest KEEP, the best and the last stay.
    """
    folder = config.run / "checkpoints"
    place = folder / f"step_{state.step:08d}"
    beside = folder / f".writing-{place.name}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in state.model.state_dict().items()}
    save_file(weights, beside / "model.safetensors")
    if state.trained:
        save_file(state.trained, beside / "trained.safetensors")
    save_file(_flatten(state.optimizers), beside / "optimizer.safetensors")
    (beside / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    (beside / "corpus.json").write_text(json.dumps(asdict(corpus.manifest)), encoding="utf-8")
    shutil.copyfile(corpus.tokenizer_path, beside / "tokenizer.json")
    sums = {file.name: sha256(file) for file in sorted(beside.iterdir())}
    record = {"step": state.step, "metrics": state.metrics, "sha256": sums}
    (beside / "checkpoint.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    for file in beside.iterdir():
        sync(file)
    shutil.rmtree(place, ignore_errors=True)  # there only where a run went on from an older one
    beside.rename(place)
    sync(folder)
    _point(config.run, "last", place)
    if best:
        _point(config.run, "best", place)
    _prune(config.run)
    return Checkpoint(place, state.step, state.metrics, sums)


def _prune(run: Path) -> None:
    named = {_pointed(run, name) for name in ("best", "last")}
    for old in sorted((run / "checkpoints").glob("step_*"))[:-KEEP]:
        if old not in named:
            shutil.rmtree(old)


def find(path: Path) -> Checkpoint:
    """Gives the checkpoint at `path`: a run directory (its best, else its last) or a checkpoint's.

    Raises FileNotFoundError where there is none and ValueError where a file is damaged.
    """
    if (path / "checkpoint.json").is_file():
        return _verified(path)
    for name in ("best", "last"):
        pointed = _pointed(path, name)
        if pointed is not None and pointed.is_dir():
            return _verified(pointed)
    raise FileNotFoundError(
        f"no checkpoint in {path}; give a run directory (runs/NAME) or one of its checkpoints"
    )


def find_last(run: Path) -> Checkpoint | None:
    """Gives the newest checkpoint of a run, or None before the first."""
    pointed = _pointed(run, "last")
    return _verified(pointed) if pointed is not None else None


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], checkpoint: Checkpoint) -> None:
    """Puts the saved states into `optimizers`, which must be made over the same parameters."""
    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    for key, tensor in load_file(checkpoint.path / "optimizer.safetensors").items():
        which, index, name = key.split(".")
        states[int(which)].setdefault(int(index), {})[name] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _flatten(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    return {
        f"{which}.{index}.{name}": tensor.contiguous()
        for which, optimizer in enumerate(optimizers)
        for index, slot in optimizer.state_dict()["state"].items()
        for name, tensor in slot.items()
    }


def _verified(path: Path) -> Checkpoint:
    state = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
    for name, expected in state["sha256"].items():
        if not (path / name).is_file() or sha256(path / name) != expected:
            raise ValueError(
                f"{path / name} is damaged: its sha256 is not the recorded one; delete {path} and "
                "resume, or use another checkpoint"
            )
    return Checkpoint(path, state["step"], state["metrics"], state["sha256"])


def _point(run: Path, name: str, place: Path) -> None:
    beside = run / f".writing-{name}"
    beside.write_text(place.name + "\n", encoding="utf-8")
    sync(beside)
    beside.replace(run / name)
    sync(run)


def _pointed(run: Path, name: str) -> Path | None:
    file = run / name
    if not file.is_file():
        return None
    return run / "checkpoints" / file.read_text(encoding="utf-8").strip()
