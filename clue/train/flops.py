"""FLOPs of a training step by formula, and the peak of the processor that they are held against.

A multiply-add is two FLOPs. Matrix products alone are counted: norms, softmax, GELU, embeddings and
the optimiser (Muon's products too) are not.

    model FLOPs     3 x forward of the real, distinct tokens and events, and 6 B^2 E for the logits
    hardware FLOPs  model FLOPs, and what the machine computes beyond them: chunks encoded again in
                    backward, padding, attention scores and logits computed again (8 B^2 E)
    MFU, HFU        model, hardware FLOPs / (seconds x peak x processes)

(Chowdhery et al. 2022, arXiv 2204.02311, appendix B; backward is twice forward.) An item that
occurs n times in a batch is encoded once and counted once: de-duplication shows in pairs/s, not as
FLOPs.
"""

import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from clue.data.batches import Batch
from clue.data.sequences import SequenceBatch
from clue.data.windows import WindowBatch
from clue.nn.decoder import DecoderConfig, PackedSequences
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig, PackedViews
from clue.nn.layout import Chunk
from clue.nn.predictive import PackedWindows, PredictiveConfig

# Dense bf16 FLOP/s as published (the data sheets' figures with sparsity, halved), by a part of the
# name that CUDA gives the device; the first that fits. H200 has the H100 SXM's processor.
#   nvidia.com: h100-tensor-core-gpu-datasheet, h200, a100-80gb-datasheet, l4, l40s, b200
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one process computes in a step, in counts.

    `pairs` of views; `items` distinct items of `tokens` in all, `token_squares` the sum of their
    squared lengths; `events` and `event_squares` the same of the views; `logits` compared. Then
    what is computed beyond: `token_padding` and `event_padding` positions that hold nothing, and
    the shares of the items' and the users' forward pass that backward repeats.
    """

    pairs: int
    items: int
    tokens: int
    token_squares: int
    events: int
    event_squares: int
    logits: int
    token_padding: int = 0
    event_padding: int = 0
    items_recomputed: float = 0.0
    users_recomputed: float = 0.0

    @staticmethod
    def of(batch: Batch, processes: int = 1, views: PackedViews | None = None) -> "Work":
        """Return the work of this process's part of a batch that `processes` share equally.

        How it was packed says what is computed beyond.
        """
        pairs = len(batch.user)
        slots_t, again_t = _beyond(views.items) if views else (len(batch.tokens), 0.0)
        slots_e, again_e = _beyond(views.histories) if views else (len(batch.events), 0.0)
        return Work(
            pairs=pairs,
            items=len(batch.token_lengths),
            tokens=len(batch.tokens),
            token_squares=_squares(batch.token_lengths),
            events=len(batch.events),
            event_squares=_squares(batch.event_lengths),
            logits=pairs * pairs * processes,
            token_padding=slots_t - len(batch.tokens),
            event_padding=slots_e - len(batch.events),
            items_recomputed=again_t,
            users_recomputed=again_e,
        )


def _beyond(chunks: tuple[Chunk, ...]) -> tuple[int, float]:
    """Return the positions of all chunks, and the share of them in chunks computed twice."""
    positions = [len(chunk.values) for chunk in chunks]
    again = sum(n for n, chunk in zip(positions, chunks, strict=True) if chunk.recompute)
    return sum(positions), again / max(1, sum(positions))


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of a step, forward and backward."""

    model: float
    hardware: float


def step_flops(config: DualEncoderConfig, work: Work) -> StepFlops:
    """Return the FLOPs of one process in one step."""
    item, user = config.item, config.user
    per_token = 24 * item.layers * item.width**2  # qkv 6, out 2, MLP 16
    per_event = 24 * user.layers * user.width**2
    per_event += 2 * item.width * (user.width + user.bag)  # `enter` and `bag`
    item_scores = 4 * item.layers * item.width * work.token_squares  # q k, and the sum over values
    user_scores = 4 * user.layers * user.width * work.event_squares
    items = per_token * work.tokens + item_scores
    users = per_event * work.events + user_scores
    users += 2 * user.width * (user.embedding - user.bag) * 2 * work.pairs  # `leave`, both views
    model = 3.0 * (items + users) + 6 * work.logits * user.embedding
    again = work.items_recomputed * items + work.users_recomputed * users
    # A padded position passes through the linear layers and attends to nothing.
    again += (3 + work.items_recomputed) * per_token * work.token_padding
    again += (3 + work.users_recomputed) * per_event * work.event_padding
    # Fused attention keeps no scores: backward makes q k again (Dao et al. 2022, arXiv 2205.14135).
    again += (item_scores + user_scores) / 2
    return StepFlops(model=model, hardware=model + again + 2 * work.logits * user.embedding)


def sequence_work(batch: SequenceBatch, views: PackedSequences, catalogue: int) -> Work:
    """Return the work of this process's windows: pairs are windows, events their places."""
    slots, again = _beyond(views.chunks)
    return Work(
        pairs=len(batch.lengths),
        items=len(np.unique(batch.items)),
        tokens=0,
        token_squares=0,
        events=len(batch.items),
        event_squares=_squares(batch.lengths),
        logits=len(batch.items) * (catalogue if batch.drawn is None else len(batch.drawn) + 1),
        event_padding=slots - len(batch.items),
        users_recomputed=again,
    )


def sequence_flops(config: DecoderConfig, work: Work) -> StepFlops:
    """Return the FLOPs of one process in one step of the next-item model.

    A causal score is computed for half of the pairs of places.
    """
    per_event = 2 * config.non_embedding
    scores = 4 * config.layers * config.width * work.event_squares / 2
    forward = per_event * work.events + scores
    model = 3.0 * forward + 6 * work.logits * config.width
    again = work.users_recomputed * forward + scores / 2
    again += (3 + work.users_recomputed) * per_event * work.event_padding
    return StepFlops(model=model, hardware=model + again)


def window_work(batch: WindowBatch, packed: PackedWindows) -> Work:
    """Return the work of this process's windows of the predictive part, which has no pairs."""
    slots, again = _beyond(packed.histories)
    item_slots, items_again = _beyond(packed.items)
    return Work(
        pairs=0,
        items=len(batch.rows),
        tokens=len(batch.tokens),
        token_squares=_squares(batch.token_lengths),
        events=len(batch.events),
        event_squares=_squares(batch.event_lengths),
        logits=len(batch.events) * (len(batch.candidates) + 1),
        token_padding=item_slots - len(batch.tokens),
        event_padding=slots - len(batch.events),
        items_recomputed=items_again,
        users_recomputed=again,
    )


def predictive_flops(config: PredictiveConfig, work: Work) -> StepFlops:
    """Return the FLOPs of one process in one step of the predictive part."""
    per_event = 24 * config.layers * config.width**2
    scores = 4 * config.layers * config.width * work.event_squares / 2
    forward = per_event * work.events + scores
    forward += 2 * config.text_width * config.width * work.items
    model = 3.0 * forward + 6 * work.logits * config.width
    again = work.users_recomputed * forward + scores / 2
    again += (3 + work.users_recomputed) * per_event * work.event_padding
    return StepFlops(model=model, hardware=model + again)


def flops_per_pair(
    config: DualEncoderConfig, *, batch: int, events: float, tokens: float, events_per_item: float
) -> float:
    """Return the model FLOPs of a pair in a batch B whose views hold `events` L of `tokens` W each.

    `events_per_item` is the de-duplication ratio: events in the batch / distinct items in it.
    """
    items = round(2 * batch * events / events_per_item)
    work = Work(
        pairs=batch,
        items=items,
        tokens=round(items * tokens),
        token_squares=round(items * tokens**2),
        events=round(2 * batch * events),
        event_squares=round(2 * batch * events**2),
        logits=batch**2,
    )
    return step_flops(config, work).model / batch


def count_parameters(config: DualEncoderConfig, vocab_size: int) -> int:
    """Return the number of parameters of the model of this shape, without making its weights."""
    with torch.device("meta"):
        model = DualEncoder(config, vocab_size)
    return sum(weight.numel() for weight in model.parameters())


@dataclass(frozen=True)
class Peak:
    """FLOP/s that one process's processor can reach, and where the figure is from."""

    flops: float
    source: str


@cache
def peak_flops(device: torch.device, precision: str) -> Peak:
    """Return the peak of `device` for "bf16" or "fp32": published for a known GPU, else measured.

    A slice of a GPU (MIG) bears the GPU's name and is measured. Measuring takes .3 s, once
    a process, and uses the threads that torch has.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = published_peak(name) if precision == "bf16" else None
        return Peak(known, f"published, {name}") if known else _measured(device, precision, name)
    name = f"{device.type}, {torch.get_num_threads()} threads"
    return _measured(device, precision, name)


def published_peak(name: str) -> float | None:
    """Return the published dense bf16 FLOP/s of the GPU with this name; None where unknown."""
    if "MIG" in name.split():
        return None
    padded = f" {name.replace('-', ' ')} "
    return next((peak for part, peak in PEAKS.items() if f" {part} " in padded), None)


def _measured(device: torch.device, precision: str, name: str, seconds: float = 0.3) -> Peak:
    """Time square products, 1,024 wide on a CPU and 8,192 on a GPU: the best of what fits."""
    width = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one = torch.ones(width, width, dtype=kind, device=device)
    ended = time.perf_counter() + seconds
    best = float("inf")
    while best == float("inf") or time.perf_counter() < ended:
        began = time.perf_counter()
        (one @ one)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return Peak(2 * width**3 / best, f"measured, {width}-wide {precision} products on {name}")


def _squares(lengths: np.ndarray) -> int:
    return int((lengths.astype(np.int64) ** 2).sum())
