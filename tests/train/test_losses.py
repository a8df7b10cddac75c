"""The tiled loss equals the textbook one, alone and on two processes, gradients included."""

from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import functional

from clue.train import losses
from clue.train.losses import Identity, contrastive_loss

PAIRS, WIDTH = 12, 6


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    a, b = (
        functional.normalize(torch.randn(PAIRS, WIDTH, generator=draw, dtype=torch.float64), dim=1)
        for _ in range(2)
    )
    return a, b, torch.tensor([5.0], dtype=torch.float64)


def identity(kind: str) -> Identity:
    """All different, or pairs 1 and 7 one user and 2, 3, 9 of the same content on either side."""
    user, content_a, content_b = (torch.arange(PAIRS) + offset for offset in (0, 100, 200))
    if kind == "masked":
        user[7] = user[1]
        content_a[9] = content_a[2]
        content_b[3] = content_b[2]
    return Identity(user, content_a, content_b)


def textbook(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, ids: Identity) -> torch.Tensor:
    logits = scale * a @ b.T
    same = torch.zeros(PAIRS, PAIRS, dtype=torch.bool)
    for i in range(PAIRS):
        for j in range(PAIRS):
            same[i, j] = i != j and any(x[i] == x[j] for x in vars(ids).values())
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(PAIRS)
    rows, columns = (functional.cross_entropy(x, target) for x in (logits, logits.T))
    return (rows + columns) / 2


def gradients(loss: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("tile", [1, 5, 12, 100])
@pytest.mark.parametrize("kind", ["distinct", "masked"])
def test_tiled_equals_textbook(tile: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "TILE", tile)
    a, b, scale = leaves = [t.requires_grad_() for t in inputs()]
    expected = textbook(a, b, scale, identity(kind))
    found = contrastive_loss(a, b, scale, identity(kind))
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    theirs, ours = gradients(expected, leaves), gradients(found.loss, leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_recall_and_masked_share_by_hand() -> None:
    a = torch.eye(4)
    b = a[[0, 1, 3, 2]]  # pairs 2 and 3 are swapped: their anchors prefer each other's partner
    ids = Identity(torch.tensor([0, 0, 2, 3]), torch.arange(4), torch.arange(4))
    contrast = contrastive_loss(a, b, torch.tensor([1.0]), ids)
    assert contrast.recall.item() == 0.5
    assert contrast.masked.item() == 2 / 16


def test_memory_does_not_grow_with_the_square_of_the_batch() -> None:
    saved: list[int] = []
    for pairs in (256, 1024):
        a, b = (torch.randn(pairs, 8, requires_grad=True) for _ in range(2))
        ids = Identity(*(torch.arange(pairs) for _ in range(3)))
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            contrastive_loss(a, b, torch.tensor([2.0], requires_grad=True), ids)
        saved.append(sum(sizes))
    assert saved[1] < 4.1 * saved[0]


def test_bf16_vectors_are_contrasted_in_fp32() -> None:
    a, b, scale = (t.bfloat16() for t in inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(a, b, scale, identity("distinct")).loss
    expected = textbook(a.double(), b.double(), scale.double(), identity("distinct"))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def one_side(rank: int, world: int, kind: str) -> list[torch.Tensor]:
    """Gives loss and gradients of one process, its rows going through a shared weight."""
    a, b, _ = inputs()
    share = PAIRS // world
    mine = slice(rank * share, (rank + 1) * share)
    weight = torch.eye(WIDTH, dtype=torch.float64).mul(0.9).requires_grad_()
    log_scale = torch.tensor([1.6], dtype=torch.float64, requires_grad=True)
    every = identity(kind)
    ids = Identity(*(x[mine] for x in vars(every).values()))
    a, b = (functional.normalize(x[mine] @ weight, dim=1) for x in (a, b))
    loss = contrastive_loss(a, b, log_scale.exp(), ids).loss
    return [loss.detach(), *torch.autograd.grad(loss, [weight, log_scale])]


def _one_of(rank: int, world: int, folder: Path) -> None:
    meeting = f"file://{folder}/meet-{world}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    for kind in ("distinct", "masked"):
        loss, *found = one_side(rank, world, kind)
        for gradient in found:  # the average that DistributedDataParallel takes
            dist.all_reduce(gradient)
            gradient /= world
        if rank == 0:
            torch.save([loss, *found], folder / f"{kind}-{world}.pt")
    dist.destroy_process_group()


def test_gradients_of_two_and_three_processes_equal_those_of_one(tmp_path: Path) -> None:
    checked = 0
    for world in (2, 3):
        mp.spawn(_one_of, (world, tmp_path), nprocs=world)  # pyright: ignore[reportPrivateImportUsage]
        for kind in ("distinct", "masked"):
            many = torch.load(tmp_path / f"{kind}-{world}.pt", weights_only=True)
            for expected, found in zip(one_side(0, 1, kind), many, strict=True):
                error = (found - expected).norm() / expected.norm()
                assert error < 1e-6, f"{world} processes, {kind}: relative error {error}"
                checked += 1
    assert checked == 12
