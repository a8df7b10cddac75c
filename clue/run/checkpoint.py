"""Checkpoints: everything a run needs to go on and a service needs to serve, without a pickle.

    RUN/checkpoints/step_00000600/
        model.safetensors       what is evaluated and served
        trained.safetensors     the weights in training, only where model.safetensors averages them
        optimizer.safetensors   "PARAMETER/NAME", of any number of optimisers
        config.yaml  corpus.json  tokenizer.json
        catalogue.arrow         of a next-item model: service and item_id of each row
        checkpoint.json         step, metrics, phase, sha256 of every other file
    RUN/last, RUN/best          text files, each naming one of the directories, for people to read

A checkpoint is written beside its place and renamed, and renamed before it is deleted: every
directory step_* was once whole, whenever a kill came. Which is the newest and which the best is
read from the directories themselves.

What stays: the newest KEEP, the best by held-out entropy (or as `best_by` says), and those whose
step is a multiple of `keep_every` (the trunk of a warm-up-stable-decay run), where that is not 0.
Nothing is deleted before a newer one is whole on the disk.
"""

import hashlib
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from clue.atomic import sha256, sync, write_text
from clue.config import load, to_yaml
from clue.data.columns import write_columns
from clue.data.corpus import Corpus
from clue.data.sequences import Catalogue
from clue.evaluation.matching import mean_entropy, selection_score
from clue.run.pretrain_config import PretrainConfig
from clue.train.phases import Progress
from clue.train.state_dict import StateDict

BEGINNING = Progress()
KEEP = 2  # newest checkpoints that stay, beside the best: one may be damaged


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory: the step it was written after, what it scored, the run's phase."""

    path: Path
    step: int
    metrics: dict[str, Any]
    sha256: dict[str, str]
    progress: Progress
    best_by: Literal["loss", "ndcg"] = "loss"

    @property
    def entropy(self) -> float:
        """The mean held-out entropy in nats; infinite where it was not measured."""
        return mean_entropy(self.metrics)

    @property
    def selection_score(self) -> float:
        """What the best checkpoint of a run has least of; infinite where it was not measured."""
        return selection_score(self.metrics, self.best_by)

    @property
    def fingerprint(self) -> str:
        """The name of the model: equal weights, tokenizer and catalogue give equal vectors."""
        return fingerprint_of(self.sha256)

    @property
    def config(self) -> PretrainConfig:
        """The resolved config of the run."""
        return load(PretrainConfig, self.path / "config.yaml", raw=True)

    @property
    def corpus(self) -> dict[str, Any]:
        """The manifest of the corpus that the run read."""
        return json.loads((self.path / "corpus.json").read_text(encoding="utf-8"))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the model's parameters by name, on the CPU, as they are evaluated and served."""
        return load_file(self.path / "model.safetensors")

    def trained(self) -> dict[str, torch.Tensor]:
        """Return the parameters to go on from: those of `weights`, where no average was kept."""
        trained = self.path / "trained.safetensors"
        return load_file(trained) if trained.is_file() else self.weights()

    def optimizer(self) -> dict[str, torch.Tensor | float]:
        """Return what the optimisers kept, as StateDict.optimizer."""
        with safe_open(self.path / "optimizer.safetensors", framework="pt") as opened:  # pyright: ignore[reportGeneralTypeIssues]
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return {**tensors, **json.loads((opened.metadata() or {}).get("numbers", "{}"))}


def fingerprint_of(sha256: dict[str, str]) -> str:
    """Return the name of the model whose files have these sums."""
    both = sha256["model.safetensors"] + sha256["tokenizer.json"]
    both += sha256.get("catalogue.arrow", "")
    return hashlib.sha256(both.encode()).hexdigest()


def save(
    config: PretrainConfig,
    corpus: Corpus,
    state: StateDict,
    step: int,
    metrics: dict[str, Any],
    progress: Progress = BEGINNING,
) -> Checkpoint:
    """Write what was learnt after `step` steps, and delete what need not stay.

    Raises OSError where the disk refuses it; the checkpoints before it are then as they were.
    """
    folder = config.run / "checkpoints"
    path = folder / f"step_{step:08d}"
    beside = folder / f".writing-{path.name}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for leftover in [*folder.glob(".writing-*"), *folder.glob(".pruned-*")]:  # of a kill
            shutil.rmtree(leftover)
        _write(beside, config, corpus, state)
        sums = {file.name: sha256(file) for file in sorted(beside.iterdir())}
        record = {"step": step, "metrics": metrics, "sha256": sums}
        record |= {"progress": asdict(progress), "best_by": config.best_by}
        (beside / "checkpoint.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        for file in beside.iterdir():
            sync(file)
        beside.rename(path)
        sync(folder)
        _settle(config)
    except (OSError, SafetensorError) as error:  # safetensors gives a full disk its own error
        shutil.rmtree(beside, ignore_errors=True)
        raise _refused(config.run, path, state, error) from error
    return Checkpoint(path, step, metrics, sums, progress, config.best_by)


def find(path: Path) -> Checkpoint:
    """Return the checkpoint at `path`: a run directory (its best, else its last) or a checkpoint's.

    Raises FileNotFoundError where there is none and ValueError where it is damaged: vectors of
    other weights than the ones asked for would look as good.
    """
    if (path / "checkpoint.json").is_file():
        return _verified(path)
    places = _places(path)
    if not places:
        raise FileNotFoundError(
            f"no checkpoint in {path}; give a run directory (runs/NAME) or one of its checkpoints"
        )
    return _verified(_best([_record(each) for each in places]).path)


def find_last(run: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run, or None before the first.

    Newer damaged ones are renamed to damaged-step_* and named on stderr. Raises ValueError where
    there are checkpoints and none is whole. Not for two processes at the same time.
    """
    damaged: list[tuple[Path, ValueError]] = []
    for path in _places(run):
        try:
            verified = _verified(path)
        except ValueError as error:
            damaged.append((path, error))
            continue
        for broken, reason in damaged:
            aside = broken.with_name(f"damaged-{broken.name}")
            shutil.rmtree(aside, ignore_errors=True)
            broken.rename(aside)
            sys.stderr.write(f"{reason}; it is {aside} now, going on from {path.name}\n")
        return verified
    if damaged:
        raise ValueError(
            f"none of the {len(damaged)} checkpoints in {run / 'checkpoints'} is whole "
            f"({damaged[0][1]}); restore one from a copy, or choose another name= to begin again"
        )
    return None


def best_score(run: Path) -> float:
    """Return that of the run's best checkpoint, infinite without any."""
    return min((record.selection_score for record in _records(run)), default=float("inf"))


def _write(beside: Path, config: PretrainConfig, corpus: Corpus, state: StateDict) -> None:
    beside.mkdir()
    save_file(state.weights, beside / "model.safetensors")
    if state.trained is not None:
        save_file(state.trained, beside / "trained.safetensors")
    tensors = {k: v for k, v in state.optimizer.items() if isinstance(v, torch.Tensor)}
    numbers = {k: v for k, v in state.optimizer.items() if not isinstance(v, torch.Tensor)}
    file = beside / "optimizer.safetensors"
    save_file(tensors, file, metadata={"numbers": json.dumps(numbers)})
    (beside / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    (beside / "corpus.json").write_text(json.dumps(asdict(corpus.manifest)), encoding="utf-8")
    shutil.copyfile(corpus.tokenizer_path, beside / "tokenizer.json")
    if config.objective != "contrastive":
        catalogue = Catalogue(corpus, config.sequences.services)
        columns = catalogue.columns()
        if config.objective == "universal":  # which also knows an item by its text
            columns["content"] = pa.array(corpus.item_content[catalogue.items])
        write_columns(beside / "catalogue.arrow", columns)


def _settle(config: PretrainConfig) -> None:
    """Point `last` and `best` at their checkpoints and delete those that need not stay."""
    records = _records(config.run)
    best = _best(records)
    write_text(config.run / "last", records[0].path.name + "\n")
    write_text(config.run / "best", best.path.name + "\n")
    for old in records[KEEP:]:
        if old != best and not (config.keep_every and old.step % config.keep_every == 0):
            gone = old.path.with_name(f".pruned-{old.path.name}")
            old.path.rename(gone)
            shutil.rmtree(gone)


def _refused(run: Path, path: Path, state: StateDict, error: Exception) -> OSError:
    """Return error of a checkpoint that the disk refused: what it needs, has, and what to do."""
    slots = [value for value in state.optimizer.values() if isinstance(value, torch.Tensor)]
    tensors = [*state.weights.values(), *(state.trained or {}).values(), *slots]
    needed, free = sum(tensor.nbytes for tensor in tensors), shutil.disk_usage(run).free
    before = _places(run)
    return OSError(
        f"{path} could not be written: {error}; it needs {needed:,} bytes and {free:,} are free; "
        "free some space, then the same command "
        + (f"goes on from {before[0].name}" if before else "begins again: there is none before it")
    )


def _places(run: Path) -> list[Path]:
    """Return the checkpoint directories of a run, newest first."""
    return sorted((run / "checkpoints").glob("step_*"), reverse=True)


def _records(run: Path) -> list[Checkpoint]:
    """Return what the readable checkpoints of a run say of themselves, newest first, unverified."""
    records: list[Checkpoint] = []
    for path in _places(run):
        try:
            records.append(_record(path))
        except ValueError:  # damaged: it stays, for find_last to name
            continue
    return records


def _best(records: list[Checkpoint]) -> Checkpoint:
    """Return the least bad one, the earliest of equals; unmeasured, the newest."""
    return min(records, key=lambda c: (c.selection_score, c.step if c.metrics else -c.step))


def _record(path: Path) -> Checkpoint:
    """Return what checkpoint.json says of the checkpoint. Raises ValueError where it is torn."""
    try:
        read = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
        progress = Progress(**read.get("progress", {}))  # of before there were phases: the first
        by = read.get("best_by", "loss")
        record = Checkpoint(path, read["step"], read["metrics"], read["sha256"], progress, by)
        _ = record.fingerprint, record.selection_score
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path / 'checkpoint.json'} is damaged ({error!r}); delete {path} and resume, or use "
            "another checkpoint"
        ) from error
    return record


def _verified(path: Path) -> Checkpoint:
    record = _record(path)
    for name, expected in record.sha256.items():
        if not (path / name).is_file() or sha256(path / name) != expected:
            raise ValueError(
                f"{path / name} is damaged: its sha256 is not the recorded one; delete {path} and "
                "resume, or use another checkpoint"
            )
    return record
