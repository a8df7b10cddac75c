"""A stand-in for the variable-length attention of CUDA, as one opaque operation with a gradient."""

# pyright: standard

import torch
from torch import library

from clue.nn.layout import fixed_shape
from clue.train.packing import Budget


@library.custom_op("clue_test::attend", mutates_args=())
def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """What varlen_attn does on CUDA, one sequence after another; other positions hold NaN."""
    mixed = torch.full_like(q, torch.nan)
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        one, other, values = (x[start:stop].transpose(0, 1) for x in (q, k, v))
        share = (one @ other.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        mixed[start:stop] = (share @ values).transpose(0, 1)
    return mixed


@attend.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(q)


def _save(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> None:
    ctx.save_for_backward(*inputs)


def _slope(
    ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    *heads, offsets = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    return *attend_backward(gradient, *heads, offsets), None


@library.custom_op("clue_test::attend_backward", mutates_args=())
def attend_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    offsets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    found = [torch.zeros_like(x) for x in (q, k, v)]
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        qs, ks, vs, gs = (x[start:stop].transpose(0, 1) for x in (q, k, v, gradient))
        root = q.shape[-1] ** 0.5
        share = (qs @ ks.transpose(1, 2) / root).softmax(-1)
        slope = gs @ vs.transpose(1, 2)
        slope = share * (slope - (slope * share).sum(-1, keepdim=True)) / root
        parts = slope @ ks, slope.transpose(1, 2) @ qs, share.transpose(1, 2) @ gs
        for whole, part in zip(found, parts, strict=True):
            whole[start:stop] = part.transpose(0, 1)
    return found[0], found[1], found[2]


@attend_backward.register_fake
def _(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    offsets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


attend.register_autograd(_slope, setup_context=_save)


def varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    offsets: torch.Tensor,
    *_: object,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """Take what `torch.nn.attention.varlen.varlen_attn` takes, for attention both ways."""
    assert window_size == (-1, -1)
    return attend(q, k, v, offsets)


def fixed_budget(tokens: int, kept: float = float("inf")) -> Budget:
    """Return fixed shapes for the texts and histories of tests.nn.test_dual_encoder.py."""
    shapes = fixed_shape(tokens, 8), fixed_shape(tokens, 6)
    return Budget(tokens, kept=kept, item_bytes=1.0, event_bytes=1.0, fixed=shapes)
