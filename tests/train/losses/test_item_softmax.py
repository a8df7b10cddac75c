"""The next-item loss: dense cross-entropy, in tiles, on many processes, and from a sample."""

# pyright: standard
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from clue.data.negatives import Proposal, SoftmaxConfig
from clue.train.losses import item_softmax
from clue.train.losses.item_softmax import Sample, item_losses, next_item_loss
from tests.processes import spawn


class Operations(TorchDispatchMode):
    """Keeps every tensor that an operation makes, and counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[torch.Tensor] = []
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        made = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket.__name__ in ("mm", "addmm_", "addmm")
        every = made if isinstance(made, tuple | list) else [made]
        self.made += [x for x in every if isinstance(x, torch.Tensor)]
        return made


def inputs(positions: int, items: int, width: int = 8) -> tuple[torch.Tensor, ...]:
    """Return states, targets and table, of logits with a standard deviation of 3."""
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
    monkeypatch.setattr(item_softmax, "rows_per_tile", lambda *_: 6)
    states, targets, table = inputs(positions, items)
    expected = functional.cross_entropy(states @ table.T, targets, reduction="none")
    for total in (positions, positions + 5):
        found = next_item_loss(states, targets, table, total=total)
        torch.testing.assert_close(found, expected.sum() / total, rtol=1e-12, atol=1e-12)
        dense = torch.autograd.grad(expected.sum() / total, [states, table], retain_graph=True)
        for factor in (3, -2):  # from above, and twice
            slopes = torch.autograd.grad(found * factor, [states, table], retain_graph=True)
            for one, other in zip(slopes, dense, strict=True):
                torch.testing.assert_close(one, factor * other, rtol=1e-12, atol=1e-12)
    each = item_losses(states, targets, table)
    assert not each.requires_grad
    torch.testing.assert_close(each, expected.detach(), rtol=1e-12, atol=1e-12)


def test_without_gradient_the_value_is_the_same_and_one_product_is_made() -> None:
    states, targets, table = inputs(9, 20)
    with Operations() as learning:
        loss = next_item_loss(states, targets, table, total=9)
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


@pytest.mark.parametrize("sampled", [False, True])
def test_one_tile_is_made_and_none_is_kept(sampled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_softmax, "rows_per_tile", lambda *_: 16)
    for positions, items in ((250, 500), (1000, 500), (250, 2000), (1000, 2000)):
        states, targets, table = inputs(positions, items, 4)
        sample = sample_of(states, targets, items) if sampled else None
        kept: dict[int, int] = {}

        def keep(x: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[x.data_ptr()] = x.numel()
            return x

        with Operations() as made, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = next_item_loss(states, targets, table, total=positions, sample=sample)
            loss.backward()
        storages = (x.untyped_storage() for x in made.made)
        sizes = {x.data_ptr(): x.nbytes() for x in storages}
        tile, vectors = 8 * 16 * (items + sampled), 8 * 4 * max(positions, items)
        assert [size for size in sizes.values() if size > vectors] == [tile]
        assert sum(kept.values()) == 4 * (positions * (1 + sampled) + items)


# --- sampled


def sample_of(states: torch.Tensor, targets: torch.Tensor, items: int, hits: int = 0) -> Sample:
    """Return random items, the first `hits` of them targets, with any log(K q) and own vectors."""
    generator = torch.Generator().manual_seed(items)
    ids = torch.randint(400, (items,), generator=generator)
    ids[:hits] = targets[:hits]
    log_expected = torch.randn(items, generator=generator, dtype=torch.float64) - 1
    own = torch.randn(states.shape, generator=generator, dtype=torch.float64)
    return Sample(ids, log_expected, own.requires_grad_())


def dense_sampled(
    states: torch.Tensor, targets: torch.Tensor, table: torch.Tensor, sample: Sample
) -> torch.Tensor:
    """The formula of the module's docstring, word for word."""
    loss = states.new_zeros(())
    for state, target, own in zip(states, targets, sample.own, strict=True):
        z = (state @ own).exp()
        for item, vector, log_expected in zip(sample.ids, table, sample.log_expected, strict=True):
            if item != target:
                z = z + (state @ vector).exp() / log_expected.exp()
        loss = loss + z.log() - state @ own
    return loss


@pytest.mark.parametrize(("positions", "items", "hits"), [(1, 1, 0), (1, 1, 1), (13, 9, 5)])
def test_sampled_value_and_gradients_are_those_of_the_formula(
    positions: int, items: int, hits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_softmax, "rows_per_tile", lambda *_: 6)
    states, targets, table = inputs(positions, items)
    sample = sample_of(states, targets, items, hits)
    assert (sample.ids == targets[:, None]).sum() >= hits
    found = next_item_loss(states, targets, table, total=40, sample=sample)
    expected = dense_sampled(states, targets, table, sample) / 40
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = [states, table, sample.own]
    slopes = torch.autograd.grad(found * 3, leaves)
    # a lone item that hits the target leaves a loss of 0, and no gradient
    dense = torch.autograd.grad(expected * 3, leaves, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(slopes, dense, rtol=1e-12, atol=1e-12)


def test_the_estimate_of_the_normaliser_is_unbiased_by_the_correction_alone() -> None:
    """Every outcome of K = 2 draws from 5 items, each with its probability: no tolerance."""
    states, targets, table = (x.detach() for x in inputs(3, 5))
    proposal = Proposal(np.array([1, 2, 5, 0, 30]), SoftmaxConfig(negatives=2))
    q = torch.from_numpy(proposal.q)
    own = table[targets]
    target_logits = (states * own).sum(1)
    exact = (states @ table.T).exp().sum(1)
    means = {"corrected": torch.zeros(3).double(), "plain": torch.zeros(3).double()}
    for pair in product(range(5), repeat=2):
        ids = torch.tensor(pair)
        expected = {"corrected": (2 * q[ids]).log(), "plain": torch.zeros(2).double()}
        for (name, log_expected), t in product(expected.items(), range(3)):
            one = slice(t, t + 1)
            sample = Sample(ids, log_expected, own[one])
            loss = next_item_loss(states[one], targets[one], table[ids], total=1, sample=sample)
            means[name][t] += q[ids].prod() * (loss + target_logits[t]).exp()
    torch.testing.assert_close(means["corrected"], exact, rtol=1e-12, atol=0)
    assert ((means["plain"] - exact).abs() > 0.02 * exact).all()


def test_many_draws_give_the_loss_over_the_whole_catalogue() -> None:
    states, targets, table = (x.detach() for x in inputs(50, 40))
    counts = np.arange(40) ** 2
    states[:, 0], table[:, 0] = 1, torch.arange(40) / 10  # popular items have higher logits
    errors: list[float] = []
    exact = item_losses(states, targets, table).mean()
    for draws in (100, 100_000):
        ids, log_expected = Proposal(counts, SoftmaxConfig(negatives=draws)).draw(0, 0)
        sample = Sample(torch.from_numpy(ids), torch.from_numpy(log_expected), table[targets])
        loss = next_item_loss(states, targets, table[sample.ids], total=50, sample=sample)
        errors.append(abs(loss.item() - exact.item()))
    assert errors[1] < 0.01 < errors[0]  # falls with 1 / sqrt(K)
    uncorrected = Sample(sample.ids, torch.full((draws,), draws / 40.0).log(), sample.own)
    loss = next_item_loss(states, targets, table[sample.ids], total=50, sample=uncorrected)
    assert abs(loss.item() - exact.item()) > 0.1  # as if drawn uniformly


# --- what is drawn


def test_draws_depend_on_seed_and_step_alone_and_follow_q() -> None:
    counts = np.array([0, 1, 10, 100, 1000])
    config = SoftmaxConfig(negatives=200_000, power=0.5, uniform=0.2)
    proposal = Proposal(counts, config)
    share = np.sqrt(counts) / np.sqrt(counts).sum()
    np.testing.assert_allclose(proposal.q, 0.8 * share + 0.04, rtol=1e-12)
    ids, log_expected = proposal.draw(3, 7)
    np.testing.assert_allclose(log_expected, np.log(200_000 * proposal.q[ids]), rtol=1e-6)
    frequency = np.bincount(ids, minlength=5) / 200_000
    assert (np.abs(frequency - proposal.q) < 4 * np.sqrt(proposal.q / 200_000)).all()
    assert np.array_equal(ids, Proposal(counts, config).draw(3, 7)[0])
    for other in ((3, 8), (4, 7)):
        assert (proposal.draw(*other)[0] != ids).mean() > 0.5


def test_numbers_outside_their_range_are_refused() -> None:
    for name, value in {"negatives": -1, "power": -0.5, "uniform": 0.0}.items():
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            SoftmaxConfig(**{name: value})
    with pytest.raises(ValueError, match="negatives is 0"):
        Proposal(np.array([1, 2]), SoftmaxConfig())
    for counts in ([], [0, 0], [3, -1]):
        with pytest.raises(ValueError, match=f"counts of {len(counts)} items"):
            Proposal(np.array(counts, dtype=np.int64), SoftmaxConfig(negatives=4))


# --- many processes


BOUNDS = {1: [0, 20], 2: [0, 7, 20], 3: [0, 3, 20, 20]}  # a process may be without positions


def one_side(rank: int, world: int, sampled: bool) -> dict[str, torch.Tensor]:
    """Return the loss and the gradients, averaged over the processes as training averages."""
    states, targets, table = inputs(20, 30)
    weight = torch.eye(8, dtype=torch.float64).mul(0.9).requires_grad_()
    mine = slice(BOUNDS[world][rank], BOUNDS[world][rank + 1])
    states, targets = states.detach()[mine] @ weight, targets[mine]
    candidates, sample = table, None
    if sampled:
        ids, log_expected = Proposal(np.arange(30), SoftmaxConfig(negatives=25)).draw(0, 1)
        sample = Sample(torch.from_numpy(ids), torch.from_numpy(log_expected), table[targets])
        candidates = table[sample.ids]
    loss = next_item_loss(states, targets, candidates, total=20, sample=sample)
    gradients = torch.autograd.grad(loss, [weight, table])
    for gradient in gradients if world > 1 else ():
        dist.all_reduce(gradient)
        gradient /= world
    return {"loss": loss.detach(), **dict(zip(("weight", "table"), gradients, strict=True))}


def _one_of(rank: int, world: int, folder: Path) -> None:
    item_softmax.rows_per_tile = lambda *_: 4
    torch.save([one_side(rank, world, s) for s in (False, True)], folder / f"{world}-{rank}.pt")


def test_loss_and_gradients_of_two_and_three_processes_equal_those_of_one(tmp_path: Path) -> None:
    alone = [one_side(0, 1, sampled) for sampled in (False, True)]
    checked = 0
    for world in (2, 3):
        spawn(_one_of, tmp_path, world=world)
        for rank in range(world):
            found = torch.load(tmp_path / f"{world}-{rank}.pt", weights_only=True)
            for expected, one in zip(alone, found, strict=True):
                for name, value in expected.items():
                    torch.testing.assert_close(one[name], value, rtol=1e-12, atol=1e-12)
                    checked += 1
    assert checked == (2 + 3) * 2 * 3
