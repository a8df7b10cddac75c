"""The next-item loss: dense cross-entropy, in tiles, on many processes, and from a sample."""

# pyright: standard
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from clue.train import softmax
from clue.train.softmax import item_losses, next_item_loss


def use_tiles(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(softmax, "rows_per_tile", lambda *_: rows)


def inputs(positions: int, items: int, width: int = 8) -> tuple[torch.Tensor, ...]:
    """Gives states, targets and table, of logits with a standard deviation of 3."""
    generator = torch.Generator().manual_seed(positions * items)
    states = torch.randn(positions, width, generator=generator, dtype=torch.float64)
    table = torch.randn(items, width, generator=generator, dtype=torch.float64) * 3 / width**0.5
    targets = torch.randint(items, (positions,), generator=generator)
    return states.requires_grad_(), targets, table.requires_grad_()


SHAPES = [(1, 1), (1, 50), (6, 3), (7, 50), (21, 11), (20, 300)]


@pytest.mark.parametrize(("positions", "items"), SHAPES)
def test_value_and_gradients_are_those_of_dense_cross_entropy(
    positions: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiles(monkeypatch, 6)
    states, targets, table = inputs(positions, items)
    expected = functional.cross_entropy(states @ table.T, targets, reduction="none")
    for total in (positions, positions + 5):
        found = next_item_loss(states, targets, table, total=total)
        torch.testing.assert_close(found, expected.sum() / total, rtol=1e-12, atol=1e-12)
        slopes = torch.autograd.grad(found * 3, [states, table])  # and a factor from above
        dense = torch.autograd.grad(expected.sum() * 3 / total, [states, table], retain_graph=True)
        torch.testing.assert_close(slopes, dense, rtol=1e-12, atol=1e-12)
    each = item_losses(states, targets, table)
    assert not each.requires_grad
    torch.testing.assert_close(each, expected.detach(), rtol=1e-12, atol=1e-12)


def test_a_second_backward_gives_the_same_gradients() -> None:
    states, targets, table = inputs(9, 20)
    loss = next_item_loss(states, targets, table, total=9)
    first = torch.autograd.grad(loss, [states, table], retain_graph=True)
    again = torch.autograd.grad(loss * -2, [states, table])
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(-2 * one, other)


def test_without_gradient_the_value_is_the_same_and_one_product_is_made() -> None:
    states, targets, table = inputs(9, 20)
    loss = next_item_loss(states, targets, table, total=9)
    with Operations() as learning:
        next_item_loss(states, targets, table, total=9)
    with torch.no_grad(), Operations() as still:
        assert torch.equal(next_item_loss(states, targets, table, total=9), loss.detach())
    with Operations() as frozen:
        next_item_loss(states.detach(), targets, table.detach(), total=9)
    assert (learning.products, still.products, frozen.products) == (3, 1, 1)


@pytest.mark.parametrize("logit", [-900.0, 900.0])
def test_extreme_logits_give_finite_losses_and_gradients(logit: float) -> None:
    states = torch.tensor([[logit]], requires_grad=True)
    table = torch.tensor([[1.0], [0.0]], requires_grad=True)
    loss = next_item_loss(states, torch.tensor([0]), table, total=1)
    loss.backward()
    assert loss.item() == max(0, -logit)
    assert states.grad is not None and table.grad is not None
    assert states.grad.item() == (-1 if logit < 0 else 0)
    assert table.grad.tolist() == ([[900.0], [-900.0]] if logit < 0 else [[0.0], [0.0]])


def test_logits_are_fp32_under_bf16_autocast_and_gradients_have_the_inputs_type() -> None:
    states, targets, table = (x.detach() for x in inputs(40, 60, 16))
    half = states.bfloat16().requires_grad_()
    full = table.float().requires_grad_()
    exact = functional.cross_entropy(half.double() @ full.double().T, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = next_item_loss(half, targets, full, total=40)
        each = item_losses(half, targets, full)
        rough = functional.cross_entropy(half @ full.T, targets)
    loss.backward()
    assert loss.dtype == each.dtype == torch.float32
    assert half.grad is not None and full.grad is not None
    assert (half.grad.dtype, full.grad.dtype) == (torch.bfloat16, torch.float32)
    for found in (loss, each.mean()):
        assert abs(found.item() - exact.item()) < 1e-6
    assert abs(rough.item() - exact.item()) > 1e-4  # bf16 logits would be seen


@pytest.mark.parametrize("wrong", [-1, 20])
def test_a_target_outside_the_catalogue_is_refused(wrong: int) -> None:
    states, targets, table = inputs(9, 20)
    targets[4] = wrong
    for call in (
        lambda: next_item_loss(states, targets, table, total=9),
        lambda: item_losses(states, targets, table),
    ):
        with pytest.raises(ValueError, match=f"target {wrong} is outside .* 20 items"):
            call()


class Operations(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation makes, and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        made = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket.__name__ in ("mm", "addmm_", "addmm")
        for x in made if isinstance(made, tuple | list) else [made]:
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return made
