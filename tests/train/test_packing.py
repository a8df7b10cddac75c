"""Packing: every sequence in one chunk, fixed shapes equal ragged ones, and compile once."""

import json

import numpy as np
import pytest
import torch

from clue.nn import attention
from clue.nn.layout import FixedShape, Layout, fixed_shape, ranges
from clue.train.packing import Budget, pack
from tests.nn.test_dual_encoder import EVENTS, TOKENS, gradients_of, small_model, some_batch
from tests.processes import python
from tests.train.varlen import fixed_budget, varlen


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in in the place of the CUDA kernel."""
    monkeypatch.setattr(attention, "varlen_attn", varlen)


@pytest.mark.parametrize("tokens", [8, 9, 14, 64])
def test_fixed_shapes_equal_ragged_ones(tokens: int, kernel: None) -> None:
    ragged = gradients_of(small_model(), pack(some_batch(), Budget(1000))[0])
    fixed = gradients_of(small_model(), pack(some_batch(), fixed_budget(tokens))[0])
    for name, expected in ragged.items():
        torch.testing.assert_close(fixed[name], expected, rtol=1e-4, atol=1e-5)


def test_fixed_shapes_by_hand() -> None:
    layout = Layout.fixed(np.array([1, 3]), FixedShape(9, 6, 4))
    assert layout.offsets.tolist() == [0, 1, 4, 8, 9, 9, 9]
    assert layout.positions.tolist() == [0, 0, 1, 2, 0, 1, 2, 3, 0]
    assert layout.recency.tolist() == [0, 2, 1, 0, 3, 2, 1, 0, 0]
    assert (layout.length_groups, layout.longest, layout.count) == ((), 4, 6)
    means = layout.means(torch.arange(9.0)[:, None])
    assert means[:, 0].tolist() == [0.0, 2.0, 5.5, 8.0, 0.0, 0.0]
    for lengths in ([5], [4, 4, 4], [1] * 7):
        with pytest.raises(ValueError, match="do not fit FixedShape"):
            Layout.fixed(np.array(lengths), FixedShape(9, 6, 4))


def test_an_encoder_is_compiled_once_for_all_batches() -> None:
    # a process of its own: the shape checks of the tests cannot be compiled
    done = python("-m", "tests.train.compile_once")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["worst"] < 1e-4 and found["compared"] == 3 * 28
    assert found["recomputed"] == [2, 5, 0]  # some, all and none of the chunks
    assert (found["graphs"], found["recompiles"], found["breaks"]) == (2, 0, 0)  # one an encoder


@pytest.mark.parametrize("tokens", [1, 3, 4, 7, 23, 100])
def test_ranges_keep_every_sequence_and_the_budget(tokens: int) -> None:
    found = ranges(TOKENS, tokens)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(len(TOKENS)))
    for start, stop in found:
        assert TOKENS[start:stop].sum() <= tokens or stop - start == 1
    greedy = [TOKENS[start : stop + 1].sum() > tokens for start, stop in found[:-1]]
    assert all(greedy) and ranges(EVENTS[:0], tokens) == []


def test_fixed_ranges_leave_room_for_padding() -> None:
    shape = fixed_shape(8, 4)
    assert shape == FixedShape(8, 4 + 2, 4)
    lengths = np.array([1] * 11 + [2, 4])
    found = ranges(lengths, 8, shape)
    assert found == [(0, 4), (4, 8), (8, 12), (12, 13)]
    for start, stop in found:
        assert Layout.fixed(lengths[start:stop], shape).count == 6
