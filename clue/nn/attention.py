"""Attention over packed sequences: no padding on either device.

On CUDA in half precision one variable-length kernel reads the offsets, in shapes that never change,
so that a compiled encoder is compiled once. Elsewhere the sequences lie sorted by length, so that
each run of equal lengths is a dense block: one unmasked call a run, zero padding and zero masks,
4.2 times faster on a CPU than nested-tensor attention.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from clue.nn.layout import Layout


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
            qkv = torch.cat([rotated(qkv[:, :2], layout.positions), qkv[:, 2:]], dim=1)
        if layout.length_groups:
            mixed = attend_by_length(qkv, layout, causal=self.causal)
        else:
            q, k, v = qkv.unbind(1)
            cu, longest = layout.offsets, layout.longest
            window = (-1, 0) if self.causal else (-1, -1)  # of keys before and after a query
            mixed = varlen_attn(q, k, v, cu, cu, longest, longest, window_size=window)
            assert isinstance(mixed, Tensor)  # a tuple only where its log-sum-exps are asked for
        return self.out(mixed.reshape(x.shape))

    def last(self, x: Float[Tensor, "T D"], layout: Layout) -> Float[Tensor, "N D"]:
        """Return what `forward` does of the last position of each sequence alone.

        Only keys and values are made of the others. For a layout of sequences by length.
        """
        ends, width = layout.offsets[1:].long() - 1, x.shape[1]
        weights = self.qkv.weight
        q = functional.linear(x[ends], weights[:width]).view(len(ends), 1, self.heads, -1)
        kv = functional.linear(x, weights[width:]).view(len(x), 2, self.heads, -1)
        if self.rotary:
            q = rotated(q, layout.positions[ends])
            kv = torch.cat([rotated(kv[:, :1], layout.positions), kv[:, 1:]], dim=1)
        pieces: list[Tensor] = []
        counts = [count for _, count in layout.length_groups]
        for block, query, (length, count) in zip(
            layout.split(kv), q.split(counts), layout.length_groups, strict=True
        ):
            k, v = block.view(count, length, *block.shape[1:]).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query.transpose(1, 2), k, v)
            pieces.append(mixed.reshape(count, width))
        return self.out(torch.cat(pieces))


def varlen_attn(*inputs: Any, **options: Any) -> Any:
    """Call torch's kernel, imported where it is needed: with torch._dynamo it takes .9 s."""
    from torch.nn.attention.varlen import varlen_attn as kernel

    return kernel(*inputs, **options)


def rotated(x: Float[Tensor, "T n H d"], places: Int[Tensor, " T"]) -> Float[Tensor, "T n H d"]:
    """Turn each pair (x_i, x_(i + d/2)) by its place times 10,000^(-2i/d), in fp32."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = (places[:, None] * rates)[:, None, None, :]
    one, other = x.float().split(half, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((one * cos - other * sin, one * sin + other * cos), dim=-1).type_as(x)


def attend_by_length(
    qkv: Float[Tensor, "T 3 H d"], layout: Layout, *, causal: bool = False
) -> Float[Tensor, "T H d"]:
    """Return softmax(q k / sqrt d) v within each sequence, a dense call for each distinct length.

    Where `causal`, a query reads no key of a later place.
    """
    pieces: list[Tensor] = []
    for block, (length, count) in zip(layout.split(qkv), layout.length_groups, strict=True):
        if length == 1:  # a softmax over one key is 1
            pieces.append(block[:, 2])
            continue
        q, k, v = block.view(count, length, *block.shape[1:]).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        pieces.append(mixed.transpose(1, 2).reshape(length * count, *block.shape[2:]))
    return torch.cat(pieces)
