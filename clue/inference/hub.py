"""A model as a folder of the Hugging Face Hub's shape: written, uploaded, downloaded, read.

    FOLDER/
        model.safetensors  tokenizer.json   the checkpoint's own files, byte for byte
        catalogue.arrow                     of a next-item model: service and item id of each row
        config.json                         the run's config, its corpus, its held-out figures
        README.md                           the model card

The files that make a vector are the checkpoint's, so the folder keeps its fingerprint. Where the
corpus and the run lay on the disk stays at home.
"""

import dataclasses
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import HfApi, snapshot_download
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file

from clue.atomic import sha256
from clue.inference.model_card import model_card
from clue.run.checkpoint import fingerprint_of
from clue.run.pretrain_config import PretrainConfig

FORMAT = 1
FILES = ("model.safetensors", "tokenizer.json", "catalogue.arrow")
NAME = re.compile(r"[\w.-]+/[\w.-]+")  # of a repository: OWNER/MODEL


class ModelSource(Protocol):
    """What an encoder is made of: a checkpoint of a run, or a folder as above.

    `path` is the folder with its files, `sha256` their sums; `metrics` are the held-out figures
    after `step` steps, and `corpus` is the manifest of what the run read.
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


@dataclass(frozen=True)
class ModelFolder:
    """A folder that `write_folder` wrote, its files as they were then."""

    path: Path
    step: int
    metrics: dict[str, Any]
    sha256: dict[str, str]
    config: PretrainConfig
    corpus: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The name of the model: equal weights, tokenizer and catalogue give equal vectors."""
        return fingerprint_of(self.sha256)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the model's parameters by name, on the CPU."""
        return load_file(self.path / "model.safetensors")


def name_of(source: ModelSource, seed: int | None = None) -> str:
    """Return the fingerprint of a source's model; with a `seed`, of fresh weights drawn by it."""
    return source.fingerprint if seed is None else f"untrained-{seed}-{source.fingerprint}"


def trained(source: ModelSource, fingerprint: str) -> ModelSource:
    """Return `source`, whose weights a model with this fingerprint has; ValueError for others."""
    if source.fingerprint != fingerprint:
        raise ValueError(
            f"{fingerprint} has fresh weights, which a seed draws again; export the trained model"
        )
    return source


def write_folder(
    source: ModelSource, folder: Path, *, license: str, name: str | None = None
) -> Path:
    """Write the model of `source` into `folder` and return it; `name` is that of its repository.

    Raises ValueError where the folder holds anything but such a model, which is replaced.
    """
    if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
        raise ValueError(f"{folder} holds something else than an exported model; give another")
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (folder / file).unlink(missing_ok=True)
        if file in source.sha256:
            shutil.copyfile(source.path / file, folder / file)
    sums = {file: source.sha256[file] for file in FILES if file in source.sha256}
    config = dataclasses.replace(
        source.config,
        corpus=Path(source.corpus["name"]),
        runs=PretrainConfig().runs,
        trunk=None,
        warm_start=None,
    )
    corpus = {key: value for key, value in source.corpus.items() if key != "source"}
    record = {
        "model_type": "clue",
        "format": FORMAT,
        "step": source.step,
        "metrics": source.metrics,
        "sha256": sums,
        "config": TypeAdapter(PretrainConfig).dump_python(config, mode="json"),
        "corpus": corpus,
    }
    (folder / "config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    card = model_card(record, source.fingerprint, license=license, name=name or str(folder))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def read_folder(path: Path) -> ModelFolder:
    """Return the model in a folder that `write_folder` wrote.

    Raises ValueError where a file is missing or damaged, or of a newer CLUE.
    """
    file = path / "config.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["model_type"] != "clue" or record["format"] != FORMAT:
            raise ValueError(f"model_type {record['model_type']}, format {record['format']}")
        config = TypeAdapter(PretrainConfig).validate_python(record["config"])
        folder = ModelFolder(
            path, record["step"], record["metrics"], record["sha256"], config, record["corpus"]
        )
        _ = folder.fingerprint
    except (OSError, KeyError, TypeError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{file} describes no model that this version of CLUE reads ({reason}); export the "
            "model again, or bring CLUE to the version that wrote it"
        ) from None
    for name, expected in folder.sha256.items():
        if not (path / name).is_file() or sha256(path / name) != expected:
            raise ValueError(
                f"{path / name} is damaged: its sha256 is not the recorded one; export or download "
                "the model again"
            )
    return folder


def download(name: str) -> Path:
    """Return the local copy of the repository `name` of the Hub, downloaded where it is missing.

    Raises FileNotFoundError where the Hub has no such model or cannot be reached.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=[*FILES, "config.json", "README.md"]))
    except Exception as error:  # the client's errors of the network have no common class
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"no model {name!r}: there is no such folder here, and the Hugging Face Hub did not "
            f"give it ({reason}); give the path of a run, or check the name and the network"
        ) from None


def upload(source: ModelSource, name: str, *, private: bool, license: str) -> str:
    """Upload the model to the repository `name` of the Hub, made where it is missing.

    Returns the address of the commit. Raises OSError where the Hub refuses or cannot be reached.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a repository; write OWNER/MODEL")
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_folder(source, Path(scratch) / "model", license=license, name=name)
        api = HfApi()
        try:
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=name, folder_path=folder)
        except Exception as error:  # the client's errors of the network have no common class
            reason = " ".join(str(error).split())
            raise OSError(
                f"the Hugging Face Hub did not take {name!r} ({reason}); log in with `hf auth "
                "login`, check the network, or keep the folder that save_pretrained writes"
            ) from None
    return str(commit)


def _is_ours(folder: Path) -> bool:
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("model_type") == "clue"
