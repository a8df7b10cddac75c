"""One arm of the benchmark `loader`: views drawn and made into tensors, without a model."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.measure import run_arm

Views = Iterator[tuple[int, int]]  # of each batch: its views, their events


def arm(spec: dict[str, Any]) -> dict[str, Any]:
    """Return views a second over `spec["steps"]` batches; the first batch counts as warm-up.

    The clock also covers the start of an epoch, which a loader that shuffles has to pay.
    """
    began = time.perf_counter()
    batches = IMPLEMENTATIONS[spec["impl"]](spec)
    next(batches)
    warm = time.perf_counter()
    counted = list(islice(batches, spec["steps"]))
    seconds = time.perf_counter() - warm
    views, events = (sum(column) for column in zip(*counted, strict=True))
    return {"warmup_seconds": warm - began, "seconds": seconds, "views": views, "events": events}


def ours(spec: dict[str, Any]) -> Views:
    """The trainer's sampler, with distinct items and their tokens packed, as torch tensors."""
    from benchmarks.speed.zipf_corpus import WorldConfig, open_world
    from clue.data.batches import PairSampler
    from clue.data.views import ViewsConfig
    from clue.train.packing import Budget, pack

    corpus = open_world(WorldConfig(**spec["world"]), Path(spec["worlds"]))
    limit = spec["max_events"]
    views = ViewsConfig(cross_service=0.0, past_future=0.5, slices=0.5, max_events=limit)
    sampler = PairSampler(corpus, views, batch=spec["batch"], seed=0)
    step = 0
    while True:
        packed, _ = pack(sampler.at(step), Budget(4096))
        yield len(packed.rows), sum(len(chunk.values) for chunk in packed.histories)
        step += 1


def lifestream(spec: dict[str, Any]) -> Views:
    """pytorch-lifestream as its documentation shows CoLES: two random slices of each history.

    Items and times of the same histories, in memory, its own collation into padded tensors.
    """
    from ptls.data_load.datasets import MemoryMapDataset  # pyright: ignore
    from ptls.frames import PtlsDataModule  # pyright: ignore
    from ptls.frames.coles import ColesDataset  # pyright: ignore
    from ptls.frames.coles.split_strategy import SampleSlices  # pyright: ignore

    log = np.load(spec["log"])
    columns = {name: torch.from_numpy(log[name]) for name in ("event_time", "item")}
    cuts = log["offsets"].tolist()
    histories = [
        {name: column[start:stop] for name, column in columns.items()}
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True)
    ]
    splitter = SampleSlices(split_count=2, cnt_min=1, cnt_max=spec["max_events"])
    module = PtlsDataModule(
        train_data=ColesDataset(MemoryMapDataset(histories), splitter),
        train_batch_size=spec["batch"],
        train_num_workers=spec["workers"],
        train_drop_last=True,
    )
    while True:
        for padded, _ in module.train_dataloader():
            yield len(padded.seq_lens), int(padded.seq_lens.sum())


IMPLEMENTATIONS: dict[str, Callable[[dict[str, Any]], Views]] = {
    "ours": ours,
    "pytorch-lifestream": lifestream,
}

if __name__ == "__main__":
    run_arm(arm)
