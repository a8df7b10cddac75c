"""Attention over packed sequences: no padding on either device.

On CUDA in half precision one variable-length kernel reads the offsets, in shapes that never change,
so that a compiled encoder is compiled once. Elsewhere the sequences lie sorted by length, so that
each run of equal lengths is a dense block: one unmasked call a run, zero padding and zero masks,
4.2 times faster on a CPU than nested-tensor attention.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn


@dataclass(frozen=True)
class Layout:
    """How N sequences lie in one flat axis of T positions.

    `offsets` (N+1,) int32 are the starts, `places` (T,) int64 each position's place in its own
    sequence from 0, `ages` (T,) its distance to the sequence's end. `runs` are the (length, count)
    of each run of equal lengths, shortest first; a layout of fixed shapes has none, and `longest`
    is then the longest sequence there may be.
    """

    offsets: Tensor
    places: Tensor
    ages: Tensor
    runs: tuple[tuple[int, int], ...]
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
        every = np.concatenate([lengths, padding, np.zeros(empty, np.int64)])
        return _layout(every, (), shape.longest, device)

    @property
    def count(self) -> int:
        """N, the number of sequences."""
        return len(self.offsets) - 1

    def means(self, flat: Float[Tensor, "T D"]) -> Float[Tensor, "N D"]:
        """Return the mean of each sequence's rows; zeros where it is empty."""
        if self.runs:
            blocks = zip(self.split(flat), self.runs, strict=True)
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
        return flat.split([length * count for length, count in self.runs])


@dataclass(frozen=True)
class FixedShape:
    """The shape of every chunk of a compiled encoder: T positions, N sequences, the longest one."""

    positions: int
    sequences: int
    longest: int


def _layout(
    lengths: np.ndarray, runs: tuple[tuple[int, int], ...], longest: int, device: torch.device | str
) -> Layout:
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    ages = np.repeat(lengths, lengths) - 1 - places

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return Layout(tensor(offsets.astype(np.int32)), tensor(places), tensor(ages), runs, longest)


class Attention(nn.Module):
    """Multi-head self-attention within each packed sequence, in both directions or `causal`."""

    def __init__(
        self, width: int, heads: int, *, causal: bool = False, rotary: bool = False
    ) -> None:
        """`width` D must be a multiple of `heads`; with `rotary`, of twice as many.

        `rotary` turns queries and keys by their places (Su et al. 2021, arXiv 2104.09864), so that
        a score depends on the distance alone.
        """
        super().__init__()
        if width % heads or (rotary and width // heads % 2):
            of = f"{heads} heads of an even width" if rotary else f"heads {heads}"
            raise ValueError(f"width {width} is no multiple of {of}; change one of them")
        self.heads, self.causal, self.rotary = heads, causal, rotary
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "T D"], layout: Layout) -> Float[Tensor, "T D"]:
        """Return each position the mixture of its own sequence's values."""
        qkv = self.qkv(x).view(x.shape[0], 3, self.heads, -1)
        if self.rotary:
            qkv = torch.cat([rotated(qkv[:, :2], layout.places), qkv[:, 2:]], dim=1)
        if layout.runs:
            mixed = attend_by_runs(qkv, layout, causal=self.causal)
        else:
            q, k, v = qkv.unbind(1)
            cu, longest = layout.offsets, layout.longest
            window = (-1, 0) if self.causal else (-1, -1)  # of keys before and after a query
            mixed = varlen_attn(q, k, v, cu, cu, longest, longest, window_size=window)
            assert isinstance(mixed, Tensor)  # a tuple only where its log-sum-exps are asked for
        return self.out(mixed.reshape(x.shape))


def rotated(x: Float[Tensor, "T n H d"], places: Int[Tensor, " T"]) -> Float[Tensor, "T n H d"]:
    """Turns each pair (x_i, x_(i + d/2)) by its place times 10,000^(-2i/d), in fp32."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = (places[:, None] * rates)[:, None, None, :]
    one, other = x.float().split(half, dim=-1)
    turned = (one * angles.cos() - other * angles.sin(), one * angles.sin() + other * angles.cos())
    return torch.cat(turned, dim=-1).type_as(x)


def attend_by_runs(
    qkv: Float[Tensor, "T 3 H d"], layout: Layout, *, causal: bool = False
) -> Float[Tensor, "T H d"]:
    """Return softmax(q k / sqrt d) v within each sequence, a dense call for each distinct length.

    Where `causal`, a query reads no key of a later place.
    """
    pieces: list[Tensor] = []
    for block, (length, count) in zip(layout.split(qkv), layout.runs, strict=True):
        if length == 1:  # a softmax over one key is 1
            pieces.append(block[:, 2])
            continue
        q, k, v = block.view(count, length, *block.shape[1:]).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        pieces.append(mixed.transpose(1, 2).reshape(length * count, *block.shape[2:]))
    return torch.cat(pieces)
