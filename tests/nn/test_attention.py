"""Packed attention equals padded attention, and no sequence sees another."""

import numpy as np
import pytest
import torch
from torch import nn

from clue.nn.attention import Attention, rotated
from clue.nn.layout import Layout
from clue.nn.transformer import Block

LENGTHS = np.array([1, 1, 2, 3, 3, 3, 7])


def padded_reference(block: Block, x: torch.Tensor, lengths: np.ndarray) -> torch.Tensor:
    """The same block over one padded batch with a key mask, as a textbook writes it."""
    longest, heads = int(lengths.max()), block.attention.heads
    rows = torch.zeros(len(lengths), longest, x.shape[1])
    mask = torch.zeros(len(lengths), longest, dtype=torch.bool)
    start = 0
    for row, length in enumerate(lengths):
        rows[row, :length] = x[start : start + length]
        mask[row, :length] = True
        start += length
    normed = block.norm_attention(rows)
    q, k, v = block.attention.qkv(normed).chunk(3, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    rows = rows + block.attention.out(mixed)
    rows = rows + block.narrow(nn.functional.gelu(block.widen(block.norm_mlp(rows))))
    return torch.cat([rows[row, :length] for row, length in enumerate(lengths)])


def test_packed_equals_padded_with_gradients() -> None:
    torch.manual_seed(0)
    block, layout = Block(16, 4, dropout=0.0), Layout.of(LENGTHS)
    x = torch.randn(int(LENGTHS.sum()), 16, requires_grad=True)
    weights = torch.randn(len(x), 16)
    found = block(x, layout)
    expected = padded_reference(block, x, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    parameters = [x, *block.parameters()]
    ours = torch.autograd.grad((found * weights).sum(), parameters)
    theirs = torch.autograd.grad((expected * weights).sum(), parameters)
    assert len(ours) == 7
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_sequence_does_not_see_the_others() -> None:
    torch.manual_seed(0)
    attention, layout = Attention(8, 2), Layout.of(LENGTHS)
    x = torch.randn(int(LENGTHS.sum()), 8)
    before = attention(x, layout)
    x[-7:] += 1.0
    after = attention(x, layout)
    assert torch.equal(before[:-7], after[:-7])
    assert not torch.allclose(before[-7:], after[-7:])


def test_layout_positions_ages_and_means_by_hand() -> None:
    layout = Layout.of(np.array([1, 3]))
    assert layout.length_groups == ((1, 1), (3, 1))
    assert layout.positions.tolist() == [0, 0, 1, 2]
    assert layout.recency.tolist() == [0, 2, 1, 0]
    flat = torch.tensor([[1.0], [2.0], [3.0], [7.0]])
    assert layout.means(flat).tolist() == [[1.0], [4.0]]
    assert layout.offsets.tolist() == [0, 1, 4]
    assert (layout.count, layout.longest) == (2, 3)


@pytest.mark.parametrize("lengths", [[2, 1], [0, 1]])
def test_layout_refuses_unsorted_and_empty_sequences(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="sort the sequences"):
        Layout.of(np.array(lengths))


def test_width_must_split_into_heads() -> None:
    with pytest.raises(ValueError, match="width 10 is no multiple of heads 4"):
        Attention(10, 4)


def causal_reference(attention: Attention, x: torch.Tensor, *, rotary: bool) -> torch.Tensor:
    """One sequence, position by position: each query over the keys up to it."""
    heads, width = attention.heads, x.shape[1] // attention.heads
    q, k, v = attention.qkv(x).view(len(x), 3, heads, width).unbind(1)
    if rotary:  # complex numbers turned by place x rate
        rates = 10_000.0 ** (-torch.arange(width // 2) / (width // 2))
        turn = torch.polar(torch.ones(len(x), width // 2), torch.arange(len(x))[:, None] * rates)
        pairs = (torch.complex(*t.split(width // 2, dim=-1)) * turn[:, None] for t in (q, k))
        q, k = (torch.cat([t.real, t.imag], dim=-1) for t in pairs)
    rows: list[torch.Tensor] = []
    for place in range(len(x)):
        scores = torch.einsum("hd,thd->ht", q[place], k[: place + 1]) / width**0.5
        rows.append(torch.einsum("ht,thd->hd", scores.softmax(-1), v[: place + 1]).flatten())
    return attention.out(torch.stack(rows))


@pytest.mark.parametrize("rotary", [False, True])
def test_causal_attention_equals_a_loop_over_places(rotary: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(16, 2, causal=True, rotary=rotary)
    layout, x = Layout.of(LENGTHS), torch.randn(int(LENGTHS.sum()), 16)
    expected = [causal_reference(attention, part, rotary=rotary) for part in x.split([*LENGTHS])]
    assert len(expected) == 7
    torch.testing.assert_close(attention(x, layout), torch.cat(expected), rtol=1e-5, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8).unbind(0)
    scores = [
        (rotated(q, torch.tensor([a])) * rotated(k, torch.tensor([b]))).sum().item()
        for a, b in ((3, 1), (10, 8), (102, 100))
    ]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-5)
    other = (rotated(q, torch.tensor([3])) * rotated(k, torch.tensor([0]))).sum().item()
    assert abs(other - scores[0]) > 1e-3


def test_rotary_needs_heads_of_an_even_width() -> None:
    with pytest.raises(ValueError, match="width 6 is no multiple of 2 heads of an even width"):
        Attention(6, 2, rotary=True)
