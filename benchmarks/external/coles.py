"""The contrastive rival of every task: CoLES of pytorch-lifestream, which knows events by their id.

It learns from the training users' histories of the learnable corpus, a user's services as one
sequence by time, and gives vectors of users' pasts, none of items. The rival works in a process of
its own in the environment .rivals/coles, and files go to and fro: the histories there, the model
and the vectors back. All lie in WORK/DIGEST, a folder for each setting, corpus and seed.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.tfidf import unit
from benchmarks.external.environments import LIFESTREAM, run_worker, worker_command
from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot, snapshot_at
from clue.atomic import sha256
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class ColesConfig:
    """The rival's setting; training ends with the batch that passes `minutes` of processor time.

    Processor time of all `threads` together, so that a busy machine does not cut it short. `items`
    is how many of the most common items have a vector of their own; the others share one. `slices`
    of `shortest` to `longest` events of each of `batch` histories are contrasted. Published are 5
    slices, batches of 64 to 256 and rates of 1e-3 and 2e-3; but slices of 15 to 200 events, where
    half of our users have no more than 6, and widths of 800 and 1,024. A model for each of `seeds`.
    """

    minutes: float = 20.0
    items: int = 20_000
    item_width: int = 64  # Width of an item's vector.
    service_width: int = 16  # Width of a service's vector.
    width: int = 256  # Width of the recurrent state, which is the user's vector.
    slices: int = 5
    shortest: int = 2
    longest: int = 16
    batch: int = 128
    rate: float = 1e-3  # Adam's learning rate.
    threads: int = 1
    seeds: list[int] = field(default_factory=lambda: [0])
    work: Path = Path("runs/coles")  # Where its data and vectors are kept.

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.minutes <= 0 or self.items < 1:
            raise ValueError(f"minutes {self.minutes} and items {self.items}: give more than 0")
        if not 1 <= self.shortest < self.longest or self.slices < 2:
            raise ValueError(
                f"{self.slices} slices of shortest {self.shortest} to longest {self.longest}: give "
                "2 slices or more, and a longest above a shortest of 1 or more"
            )


class ColesModel:
    """CoLES, trained where `work` does not hold it yet."""

    name, similarity = "CoLES", slice(None)

    def __init__(self, config: ColesConfig, learn: Corpus, corpus: Corpus, *, seed: int) -> None:
        """Learn from `learn` and read pasts of `corpus`.

        Raises FileNotFoundError where the rival cannot be installed, ArmFailed where it fails.
        """
        self.config, self.corpus, self.seed = config, corpus, seed
        self.blocks = one_block(config.width)
        self._items, self._services = known(learn, corpus)
        self.work = trained(config, learn, seed)
        identity = f"{sha256(self.work / 'model.pt')} {learn.fingerprint} {corpus.fingerprint}"
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:16]

    def users(self, past: Snapshot) -> np.ndarray:
        """Return unit vectors (n, width), as the loss reads them, each embedded once."""
        log = exported(past, self._items, self._services)
        hashed = hashlib.sha256()
        for column in log.values():
            hashed.update(column.tobytes())
        kept = self.work / "vectors" / f"{hashed.hexdigest()[:32]}.npy"
        if not kept.is_file():
            kept.parent.mkdir(exist_ok=True)
            histories = kept.with_suffix(".npz")
            np.savez(histories, **log)  # pyright: ignore[reportArgumentType]
            places = {"work": self.work, "histories": histories, "out": kept}
            spec = {name: str(path.resolve()) for name, path in places.items()}
            work_on("embed", {**spec, "threads": self.config.threads}, self.work)
            histories.unlink()
        vectors = np.load(kept)
        if vectors.shape[:1] != (len(past),) or not np.isfinite(vectors).all():
            raise ValueError(
                f"{kept} holds {vectors.shape} for {len(past)} users, or NaN; delete it and run "
                "again"
            )
        return unit(vectors).astype(np.float32)


def known(learn: Corpus, corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Return the row in `learn` of each item and each service of `corpus`, -1 for a new one."""
    items = {key: row for row, key in enumerate(_keys(learn))}
    services = {name: row for row, name in enumerate(learn.services)}
    return (
        np.array([items.get(key, -1) for key in _keys(corpus)]),
        np.array([services.get(name, -1) for name in corpus.services]),
    )


def _keys(corpus: Corpus) -> list[tuple[str, str]]:
    services = [corpus.services[number] for number in corpus.item_service]
    return list(zip(services, corpus.item_ids.to_pylist(), strict=True))


def exported(past: Snapshot, items: np.ndarray, services: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the arm reads of a past, its services merged by time.

    `item`, `service` and `event_time` (events,), the place in the history, and `offsets` (n + 1,).
    `items` and `services` are the rows that the rival knows them by.
    """
    histories = Ragged.merge_by_time(list(past.parts))[0]
    owner = past.corpus.item_service[histories.values]
    position = np.arange(len(histories.values)) - np.repeat(
        histories.offsets[:-1], histories.lengths
    )
    return {
        "item": items[histories.values].astype(np.int32),
        "service": services[owner].astype(np.int32),
        "event_time": position.astype(np.int32),
        "offsets": histories.offsets.astype(np.int64),
    }


def trained(config: ColesConfig, learn: Corpus, seed: int) -> Path:
    """Return the folder of the model of this setting, corpus and seed, trained if need be.

    Users of valid and test are left out, as CLUE's pretraining leaves them out.
    """
    spec: dict[str, Any] = {**asdict(config), "seed": seed, "learn": learn.fingerprint}
    del spec["work"], spec["seeds"]
    identity = json.dumps([spec, *LIFESTREAM.packages], sort_keys=True)
    work = config.work / hashlib.sha256(identity.encode()).hexdigest()[:12]
    if (work / "model.pt").is_file():
        return work
    work.mkdir(parents=True, exist_ok=True)
    (work / "config.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    past = snapshot_at(learn, learn.users_in("train"))
    log = exported(past, np.arange(learn.num_items), np.arange(len(learn.services)))
    np.savez(work / "histories.npz", **log)  # pyright: ignore[reportArgumentType]
    spec |= {"work": str(work.resolve()), "catalogue": learn.num_items}
    work_on("train", {**spec, "services": len(learn.services)}, work)
    return work


def command_of() -> list[str]:
    """Return the command of the worker."""
    return worker_command(LIFESTREAM, "benchmarks.external.coles_worker", "coles")


def work_on(mode: str, spec: dict[str, Any], work: Path) -> None:
    """Let the worker train or embed; its log is WORK/MODE.log."""
    run_worker([*command_of(), mode], spec, work / f"{mode}.log", f"CoLES, {mode}")
