# pyright: standard, reportMissingImports=false
"""The rival's side of `benchmarks.external.coles`: pytorch-lifestream's CoLES.

    python -m benchmarks.external.coles_worker train SPEC
    python -m benchmarks.external.coles_worker embed SPEC

SPEC is JSON. `train` reads WORK/histories.npz and leaves WORK/model.pt, the encoder with the number
that it gives each item; `embed` reads a file of histories and writes a row of numbers for
each. Imports nothing of this project.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

REST = 2  # the lowest number of an item with a vector of its own: 0 is padding, 1 any other item
PADDED = 65_536  # events of a batch to embed, padding included: 67 MB of states at width 256


def read_histories(file: Path) -> dict[str, np.ndarray]:
    """Return `item`, `service` and `event_time` (events,), and `offsets` (histories + 1,).

    Items and services are rows of the corpus that is learnt from, -1 for what it does not have.
    """
    with np.load(file) as kept:
        return {name: kept[name] for name in ("item", "service", "event_time", "offsets")}


def vocabulary(item: np.ndarray, catalogue: int, most: int) -> np.ndarray:
    """Return each of `catalogue` items its number: the `most` most common ones have their own.

    They count from `REST` on, the most common first and equal ones by row; all others share 1.
    """
    counts = np.bincount(item[item >= 0], minlength=catalogue)
    common = np.argsort(-counts, kind="stable")[: min(most, np.count_nonzero(counts))]
    numbers = np.ones(catalogue, np.int64)
    numbers[common] = REST + np.arange(len(common))
    return numbers


def numbered(log: dict[str, np.ndarray], numbers: np.ndarray) -> dict[str, torch.Tensor]:
    """Return the features of all events: an unknown service is 0, whose vector stays zero."""
    item = np.where(log["item"] < 0, 1, numbers[log["item"]])
    features = {"item": item, "service": log["service"].astype(np.int64) + 1}
    return {name: torch.from_numpy(column) for name, column in features.items()}


def encoder_of(spec: dict[str, Any], items: int, services: int) -> Any:
    """Return the untrained encoder: the published GRU over vectors of the item and the service."""
    from ptls.nn import RnnSeqEncoder, TrxEncoder

    events = TrxEncoder(
        embeddings={
            "item": {"in": items, "out": spec["item_width"]},
            "service": {"in": services, "out": spec["service_width"]},
        },
        numeric_values={},
        embeddings_noise=0.003,
    )
    return RnnSeqEncoder(
        trx_encoder=events, hidden_size=spec["width"], type="gru", trainable_starter="static"
    )


def data_of(spec: dict[str, Any], log: dict[str, np.ndarray], numbers: np.ndarray) -> Any:
    """Return the batches: `slices` random slices of each of `batch` histories, collated by ptls."""
    from ptls.data_load.datasets import MemoryMapDataset
    from ptls.frames import PtlsDataModule
    from ptls.frames.coles import ColesDataset
    from ptls.frames.coles.split_strategy import SampleSlices

    columns = numbered(log, numbers) | {"event_time": torch.from_numpy(log["event_time"])}
    cuts = log["offsets"].tolist()
    # A history of no more events than the shortest slice would be its own positive, five times.
    histories = [
        {name: column[start:stop] for name, column in columns.items()}
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True)
        if stop - start > spec["shortest"]
    ]
    splitter = SampleSlices(
        split_count=spec["slices"], cnt_min=spec["shortest"], cnt_max=spec["longest"]
    )
    return PtlsDataModule(
        train_data=ColesDataset(MemoryMapDataset(histories), splitter),
        train_batch_size=spec["batch"],
        train_num_workers=0,
        train_drop_last=True,
    )


def budget_of(spec: dict[str, Any]) -> Any:
    """Return the callback that ends training with the batch that passes `minutes`, and says so."""
    from pytorch_lightning import Callback

    class Budget(Callback):
        """Prints a line every twentieth of the budget."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.began, self.twentieths = time.process_time(), 0

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            minutes = (time.process_time() - self.began) / 60
            trainer.should_stop = minutes >= spec["minutes"]
            if not trainer.should_stop and 20 * minutes < (self.twentieths + 1) * spec["minutes"]:
                return
            self.twentieths = int(20 * minutes / spec["minutes"])
            sys.stdout.write(
                f"{minutes:.1f} of {spec['minutes']:g} processor minutes, step "
                f"{trainer.global_step:,}, epoch "
                f"{trainer.global_step / trainer.num_training_batches:.2f}, "
                f"loss {float(outputs['loss']):.1f}\n"
            )
            sys.stdout.flush()

    return Budget()


def train(spec: dict[str, Any]) -> None:
    """Train until the budget is spent; nothing is chosen by a validation set, as published."""
    from ptls.frames.coles import CoLESModule
    from ptls.frames.coles.losses import ContrastiveLoss
    from ptls.frames.coles.sampling_strategies import HardNegativePairSelector
    from ptls.nn import Head
    from pytorch_lightning import Trainer, seed_everything

    torch.set_num_threads(spec["threads"])
    seed_everything(spec["seed"])
    work = Path(spec["work"])
    log = read_histories(work / "histories.npz")
    numbers = vocabulary(log["item"], spec["catalogue"], spec["items"])
    sizes = {"items": int(numbers.max()) + 1, "services": spec["services"] + 1}
    encoder = encoder_of(spec, **sizes)
    # The margin, the hard negatives and the decay are those of the published settings.
    module = CoLESModule(
        seq_encoder=encoder,
        head=Head(use_norm_encoder=True, input_size=spec["width"]),
        loss=ContrastiveLoss(margin=0.5, sampling_strategy=HardNegativePairSelector(neg_count=5)),
        optimizer_partial=partial(torch.optim.Adam, lr=spec["rate"]),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=30, gamma=0.9025),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1_000_000,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[budget_of(spec)],
    )
    trainer.fit(module, data_of(spec, log, numbers))
    kept = {"spec": spec, "sizes": sizes, "numbers": torch.from_numpy(numbers)}
    partly = work / "model.pt.partial"
    torch.save({**kept, "state": encoder.state_dict()}, partly)
    partly.replace(work / "model.pt")


def embed(spec: dict[str, Any]) -> None:
    """Write float32 (histories, width): the state after the last event, zeros without any."""
    from ptls.data_load.padded_batch import PaddedBatch

    torch.set_num_threads(spec["threads"])
    kept: dict[str, Any] = torch.load(Path(spec["work"]) / "model.pt", weights_only=True)
    encoder = encoder_of(kept["spec"], **kept["sizes"])
    encoder.load_state_dict(kept["state"])
    encoder.eval()
    log = read_histories(Path(spec["histories"]))
    columns = numbered(log, kept["numbers"].numpy())
    starts, lengths = (
        torch.from_numpy(log["offsets"][:-1]),
        torch.from_numpy(np.diff(log["offsets"])),
    )
    states = torch.zeros(len(lengths), kept["spec"]["width"])
    with torch.inference_mode():
        for rows in batches(lengths):
            position = torch.arange(int(lengths[rows].max()))
            inside = position < lengths[rows, None]
            where = torch.where(inside, starts[rows, None] + position, 0)
            padded = {name: column[where] * inside for name, column in columns.items()}
            states[rows] = encoder(PaddedBatch(padded, lengths[rows]))
    partly = Path(spec["out"]).with_suffix(".partial.npy")
    np.save(partly, states.numpy())
    partly.replace(spec["out"])


def batches(lengths: torch.Tensor) -> list[torch.Tensor]:
    """Return the rows that have events, alike in length, in batches of at most `PADDED` events."""
    order = torch.argsort(lengths, stable=True)
    order = order[lengths[order] > 0]
    cut: list[torch.Tensor] = []
    while len(order):
        size = max(1, PADDED // int(lengths[order[-1]]))
        cut.append(order[-size:])
        order = order[:-size]
    return cut


if __name__ == "__main__":
    {"train": train, "embed": embed}[sys.argv[1]](json.loads(sys.argv[2]))
