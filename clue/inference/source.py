"""Where a model comes from: a run, one of its checkpoints, an exported folder, the Hub."""

from pathlib import Path
from typing import Any, Protocol

import torch

from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig


class ModelSource(Protocol):
    """What an encoder is made of; `path` is the folder with tokenizer.json and, if any, catalogue.

    `metrics` are the held-out figures after `step` steps, and `sha256` the sums of the files.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def metrics(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def sha256(self) -> dict[str, str]: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def config(self) -> PretrainConfig: ...  # noqa: D102
    @property
    def corpus(self) -> dict[str, Any]: ...  # noqa: D102

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the model's parameters by name, on the CPU."""
        ...


def find_source(path: Path | str) -> ModelSource:
    """Return the model at `path`.

    Raises FileNotFoundError where there is none and ValueError where it is damaged.
    """
    return checkpoint.find(Path(path))
