"""From a batch to tensors: chunks of bounded memory, and which of them are computed twice.

Items and histories go through their encoders in chunks of at most `chunk_tokens` positions, so that
memory does not grow with the batch but for the vectors themselves. What fits into the budget keeps
its activations until the backward pass; only the chunks that do not fit are recomputed there
(gradient caching, Gao et al. 2021, arXiv 2101.06983, by activation checkpointing: the gradients are
the same to the last bit). The first chunks are recomputed and the last kept: the backward pass runs
from the last to the first, so that what was kept is free again when recomputing begins.
"""

from dataclasses import dataclass

import numpy as np
import torch

from clue.data.batches import Batch
from clue.data.sequences import SequenceBatch
from clue.data.windows import WindowBatch
from clue.nn.decoder import PackedSequences
from clue.nn.dual_encoder import PackedViews
from clue.nn.layout import Chunk, FixedShape, Layout, ranges
from clue.nn.predictive import PackedWindows
from clue.train.losses.contrastive import Identity


@dataclass(frozen=True)
class Budget:
    """What a step may hold: `tokens` positions of a chunk, and `kept` bytes of activations.

    `item_bytes` and `event_bytes` are what one position of an item and of a history leaves for the
    backward pass. With `fixed` shapes, every chunk has the same: that of items, that of histories.
    """

    tokens: int
    kept: float = float("inf")
    item_bytes: float = 0.0
    event_bytes: float = 0.0
    fixed: tuple[FixedShape, FixedShape] | None = None


def pack(
    batch: Batch, budget: Budget, device: torch.device | str = "cpu"
) -> tuple[PackedViews, Identity]:
    """Return this process's part of a batch as the model and the loss read it, on `device`."""
    parts = _parts(batch, budget)
    items, histories = _packed(batch, parts, device)
    rows = _rows(parts.histories, parts.shapes[1])[batch.rows]
    views = PackedViews(items, histories, _tensor(rows, device))
    ids = (_tensor(x, device) for x in (batch.user, batch.content_a, batch.content_b))
    return views, Identity(*ids, log_q=torch.from_numpy(batch.log_q).to(device))


def pack_windows(
    batch: WindowBatch, budget: Budget, device: torch.device | str = "cpu"
) -> PackedWindows:
    """Return this process's windows as the predictive encoder reads them, on `device`.

    Where chunks have fixed shapes, the items' padding has row -1 and is no candidate.
    """
    parts = _parts(batch, budget)
    items, histories = _packed(batch, parts, device)
    where = _rows(parts.items, parts.shapes[0])
    slots = sum(chunk.layout.count for chunk in items)
    rows = np.full(slots, -1)
    rows[where] = batch.rows
    sizes = [int(batch.event_lengths[a:b].sum()) for a, b in parts.histories]
    marks: list[torch.Tensor] = []
    if batch.marks is not None:
        for chunk, part in zip(
            histories, np.split(batch.marks, np.cumsum(sizes)[:-1]), strict=True
        ):
            padding = len(chunk.values) - len(part)
            marks.append(_tensor(np.pad(part, ((0, padding), (0, 0))), device))
    return PackedWindows(
        items,
        _tensor(rows, device),
        histories,
        tuple(sizes),
        _tensor(where[batch.targets], device),
        _tensor(where[batch.candidates], device),
        tuple(marks),
    )


@dataclass(frozen=True)
class _Parts:
    """How a batch is cut: (start, stop) of each chunk, which are computed twice, their shapes."""

    items: list[tuple[int, int]]
    histories: list[tuple[int, int]]
    recompute_items: list[bool]
    recompute_histories: list[bool]
    shapes: tuple[FixedShape | None, FixedShape | None]


def _parts(batch: Batch | WindowBatch, budget: Budget) -> _Parts:
    shapes = budget.fixed or (None, None)
    items = ranges(batch.token_lengths, budget.tokens, shapes[0])
    histories = ranges(batch.event_lengths, budget.tokens, shapes[1])
    kept = budget.kept
    recompute: list[bool] = []  # of all chunks, the last first
    for lengths, parts, cost in (
        (batch.event_lengths, histories, budget.event_bytes),
        (batch.token_lengths, items, budget.item_bytes),
    ):
        for start, stop in reversed(parts):
            kept -= cost * int(lengths[start:stop].sum())
            recompute.append(kept < 0)
    again = recompute[::-1]
    return _Parts(items, histories, again[: len(items)], again[len(items) :], shapes)


def _packed(
    batch: Batch | WindowBatch, parts: _Parts, device: torch.device | str
) -> tuple[tuple[Chunk, ...], tuple[Chunk, ...]]:
    """Return the chunks of items and those of histories, whose values index the items' vectors."""
    item_shape, history_shape = parts.shapes
    events = _rows(parts.items, item_shape)[batch.events]
    return (
        _chunks(
            batch.tokens,
            batch.token_lengths,
            parts.items,
            parts.recompute_items,
            (item_shape, device),
        ),
        _chunks(
            events,
            batch.event_lengths,
            parts.histories,
            parts.recompute_histories,
            (history_shape, device),
        ),
    )


def pack_sequences(
    batch: SequenceBatch, budget: Budget, device: torch.device | str = "cpu"
) -> PackedSequences:
    """Return this process's windows as the next-item model reads them, on `device`."""
    shape = budget.fixed[1] if budget.fixed else None
    parts = ranges(batch.lengths, budget.tokens, shape)
    sizes = [int(batch.lengths[start:stop].sum()) for start, stop in parts]
    left = budget.kept - budget.event_bytes * np.cumsum(sizes[::-1])[::-1]
    chunks = _chunks(batch.items, batch.lengths, parts, (left < 0).tolist(), (shape, device))
    return PackedSequences(
        chunks,
        tuple(sizes),
        _tensor(batch.targets, device),
        None if batch.drawn is None else _tensor(batch.drawn, device),
    )


def _rows(parts: list[tuple[int, int]], shape: FixedShape | None) -> np.ndarray:
    """Return where each sequence's vector lies among those of all chunks, padding included."""
    if not parts:
        return np.zeros(0, np.int64)
    firsts = [start if shape is None else n * shape.sequences for n, (start, _) in enumerate(parts)]
    sizes = [np.arange(stop - start) for start, stop in parts]
    return np.concatenate([first + size for first, size in zip(firsts, sizes, strict=True)])


def _chunks(
    values: np.ndarray,
    lengths: np.ndarray,
    parts: list[tuple[int, int]],
    recompute: list[bool],
    shape_and_device: tuple[FixedShape | None, torch.device | str],
) -> tuple[Chunk, ...]:
    shape, device = shape_and_device
    ends = np.concatenate([[0], np.cumsum(lengths)])
    chunks: list[Chunk] = []
    for (start, stop), again in zip(parts, recompute, strict=True):
        chunk_values, chunk_lengths = values[ends[start] : ends[stop]], lengths[start:stop]
        if shape is None:
            layout = Layout.of(chunk_lengths, device)
        else:
            layout = Layout.fixed(chunk_lengths, shape, device)
            chunk_values = np.pad(chunk_values, (0, shape.positions - len(chunk_values)))
        chunks.append(Chunk(_tensor(chunk_values, device), layout, again))
    return tuple(chunks)


def _tensor(values: np.ndarray, device: torch.device | str) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device, non_blocking=True)
