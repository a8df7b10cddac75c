"""How sequences lie packed in one flat axis, and how many of them go through an encoder at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Layout:
    """How N sequences lie in one flat axis of T positions.

    `offsets` (N+1,) int32 are the starts, `positions` (T,) int64 number each sequence's own from 0,
    `recency` (T,) is the distance to the sequence's end. `length_groups` are the (length, count) of
    each run of equal lengths, shortest first; a layout of fixed shapes has none, and `longest` is
    then the longest sequence there may be.
    """

    offsets: Tensor
    positions: Tensor
    recency: Tensor
    length_groups: tuple[tuple[int, int], ...]
    longest: int

    @staticmethod
    def of(lengths: np.ndarray, device: torch.device | str = "cpu") -> "Layout":
        """Return the layout of sequences of these lengths (N,), which are positive and ascend."""
        if len(lengths) and (lengths[0] < 1 or (np.diff(lengths) < 0).any()):
            raise ValueError("lengths must be positive and ascending; sort the sequences first")
        values, counts = np.unique(lengths, return_counts=True)
        runs = tuple(zip(values.tolist(), counts.tolist(), strict=True))
        return _layout(lengths, runs, int(values[-1]) if len(values) else 0, device)

    @staticmethod
    def fixed(
        lengths: np.ndarray, shape: "FixedShape", device: torch.device | str = "cpu"
    ) -> "Layout":
        """Return a layout of exactly `shape` that begins with sequences of these lengths (N,).

        The rest of the positions are sequences of padding and the rest of the sequences are empty:
        an attention kernel leaves positions of no sequence unwritten, and what lies there times a
        zero gradient may be no number. Raises ValueError where the sequences do not fit.
        """
        longest = int(lengths.max(initial=0))
        spare = shape.positions - int(lengths.sum())
        padding = np.full(-(-spare // shape.longest), shape.longest)
        if len(padding):
            padding[-1] = spare - shape.longest * (len(padding) - 1)
        empty = shape.sequences - len(lengths) - len(padding)
        if spare < 0 or empty < 0 or longest > shape.longest:
            raise ValueError(
                f"{len(lengths)} sequences of {int(lengths.sum())} positions, the longest {longest}"
                f", do not fit {shape}; give the chunk fewer"
            )
        all_lengths = np.concatenate([lengths, padding, np.zeros(empty, np.int64)])
        return _layout(all_lengths, (), shape.longest, device)

    @property
    def count(self) -> int:
        """N, the number of sequences."""
        return len(self.offsets) - 1

    def means(self, flat: Float[Tensor, "T D"]) -> Float[Tensor, "N D"]:
        """Return the mean of each sequence's rows; zeros where it is empty."""
        if self.length_groups:
            blocks = zip(self.split(flat), self.length_groups, strict=True)
            return torch.cat([x.view(count, length, -1).mean(1) for x, (length, count) in blocks])
        # deterministic, where index_add on CUDA is not
        sums = torch.segment_reduce(
            flat.float(), "sum", offsets=self.offsets, unsafe=True, initial=0
        )
        return sums / self.offsets.diff().clamp_min(1)[:, None]

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of each run of equal lengths.

        One split, not a slice a run: a slice's gradient is a zero tensor of the whole, which made
        the backward pass of 32 runs five times slower.
        """
        return flat.split([length * count for length, count in self.length_groups])


@dataclass(frozen=True)
class FixedShape:
    """The shape of every chunk of a compiled encoder: T positions, N sequences, the longest one."""

    positions: int
    sequences: int
    longest: int

    @property
    def padding(self) -> int:
        """The most sequences that padding makes of a chunk."""
        return -(-self.positions // self.longest)


@dataclass(frozen=True)
class Chunk:
    """Some sequences that go through an encoder at once: `values` (T,) laid out by `layout`.

    Where `recompute`, their activations are not kept but computed again in the backward pass.
    """

    values: Tensor
    layout: Layout
    recompute: bool = False


def encode_chunk(encode: Callable[[Tensor, Layout], Tensor], chunk: Chunk) -> Tensor:
    """Return a chunk's vectors; where it says so, nothing else stays for the backward pass."""
    if not chunk.recompute:
        return encode(chunk.values, chunk.layout)
    return checkpoint(encode, chunk.values, chunk.layout, use_reentrant=False)


def ranges(
    lengths: np.ndarray, tokens: int, shape: FixedShape | None = None
) -> list[tuple[int, int]]:
    """Return (start, stop) of groups of neighbouring sequences with at most `tokens` positions.

    A single longer sequence is a group of its own. With a `shape`, a group and its padding fit it.
    """
    most = len(lengths)
    if shape is not None:
        tokens, most = shape.positions, shape.sequences - shape.padding
    ends = np.cumsum(lengths)
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < len(lengths):
        used = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, used + tokens, side="right")))
        stop = min(stop, start + most)
        cuts.append((start, stop))
        start = stop
    return cuts


def fixed_shape(tokens: int, longest: int) -> FixedShape:
    """Return the shape of chunks of `tokens` positions whose sequences have at most `longest`.

    Half as many sequences as positions: shorter ones on average would leave positions unused.
    """
    shape = FixedShape(max(tokens, longest), 0, longest)
    return FixedShape(shape.positions, shape.positions // 2 + shape.padding, longest)


def _layout(
    lengths: np.ndarray,
    groups: tuple[tuple[int, int], ...],
    longest: int,
    device: torch.device | str,
) -> Layout:
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    recency = np.repeat(lengths, lengths) - 1 - positions

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return Layout(
        tensor(offsets.astype(np.int32)), tensor(positions), tensor(recency), groups, longest
    )
