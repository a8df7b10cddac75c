"""Attention over packed sequences: no padding on either device.

On CUDA in half precision one variable-length kernel reads the offsets. Elsewhere the sequences lie
sorted by length, so that each run of equal lengths is a dense block: one unmasked call a run, zero
padding and zero masks, 4.2 times faster on a CPU than nested-tensor attention.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn


@dataclass(frozen=True)
class Layout:
    """How N sequences lie in one flat axis: shortest first, equal lengths side by side.

    `offsets` (N+1,) int32 are the starts, `runs` the (length, count) of each run of equal lengths.
    """

    offsets: Tensor
    runs: tuple[tuple[int, int], ...]

    @staticmethod
    def of(lengths: np.ndarray, device: torch.device | str = "cpu") -> "Layout":
        """Gives the layout of sequences of these lengths (N,), which are positive and ascend."""
        if len(lengths) and (lengths[0] < 1 or (np.diff(lengths) < 0).any()):
            raise ValueError("lengths must be positive and ascending; sort the sequences first")
        values, counts = np.unique(lengths, return_counts=True)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        runs = tuple(zip(values.tolist(), counts.tolist(), strict=True))
        return Layout(torch.from_numpy(offsets).to(device), runs)

    @property
    def count(self) -> int:
        """N, the number of sequences."""
        return sum(count for _, count in self.runs)

    @property
    def max_length(self) -> int:
        """The longest sequence, in positions."""
        return self.runs[-1][0] if self.runs else 0

    def positions(self) -> Tensor:
        """Gives each flat position's place in its own sequence, from 0, int64."""
        device = self.offsets.device
        return torch.cat(
            [torch.arange(length, device=device).repeat(count) for length, count in self.runs]
        )

    def ages(self) -> Tensor:
        """Gives each flat position's distance to the end of its own sequence, from 0, int64."""
        device = self.offsets.device
        return torch.cat(
            [torch.arange(n - 1, -1, -1, device=device).repeat(count) for n, count in self.runs]
        )

    def means(self, flat: Float[Tensor, "T D"]) -> Float[Tensor, "N D"]:
        """Gives the mean of each sequence's rows."""
        return torch.cat(
            [
                block.view(count, length, -1).mean(dim=1)
                for block, (length, count) in zip(self.split(flat), self.runs, strict=True)
            ]
        )

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Gives the rows of each run of equal lengths.

        One split, not a slice a run: a slice's gradient is a zero tensor of the whole, which made
        the backward pass of 32 runs five times slower.
        """
        return flat.split([length * count for length, count in self.runs])


class Attention(nn.Module):
    """Multi-head self-attention within each packed sequence, both directions."""

    def __init__(self, width: int, heads: int) -> None:
        """`width` D must be a multiple of `heads`."""
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of heads {heads}; change one of them")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "T D"], layout: Layout) -> Float[Tensor, "T D"]:
        """Gives each position the mixture of its own sequence's values."""
        qkv = self.qkv(x).view(x.shape[0], 3, self.heads, -1)
        if x.is_cuda and qkv.dtype in (torch.bfloat16, torch.float16):
            q, k, v = qkv.unbind(1)
            cu, longest = layout.offsets, layout.max_length
            mixed = varlen_attn(q, k, v, cu, cu, longest, longest)
            assert isinstance(mixed, Tensor)  # a tuple only where its log-sum-exps are asked for
        else:
            mixed = attend_by_runs(qkv, layout)
        return self.out(mixed.reshape(x.shape))


def attend_by_runs(qkv: Float[Tensor, "T 3 H d"], layout: Layout) -> Float[Tensor, "T H d"]:
    """Gives softmax(q k / sqrt d) v within each sequence, a dense call for each distinct length."""
    pieces: list[Tensor] = []
    for block, (length, count) in zip(layout.split(qkv), layout.runs, strict=True):
        if length == 1:  # a softmax over one key is 1
            pieces.append(block[:, 2])
            continue
        q, k, v = block.view(count, length, *block.shape[1:]).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        pieces.append(mixed.transpose(1, 2).reshape(length * count, *block.shape[2:]))
    return torch.cat(pieces)
