"""One arm of the benchmark `loss`: a contrastive loss of given vectors, forward and backward."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.speed.measure import gradient_norm, run_arm, timed

SCALE = 20.0
FIRST = 8  # pairs of the call before the clock starts

Loss = Callable[[Tensor, Tensor], Tensor]


def arm(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of `spec["impl"]` on `batch` noisy pairs of unit vectors of width `width`.

    The gradient norm is that of both sides; the temperature is fixed at 1/20, since
    sentence-transformers cannot train it.
    """
    device = spec["device"]
    draw = torch.Generator().manual_seed(1)
    size = (spec["batch"], spec["width"])
    shared = torch.randn(size, generator=draw)
    a, b = (
        functional.normalize(shared + torch.randn(size, generator=draw), dim=-1)
        .to(device)
        .requires_grad_()
        for _ in range(2)
    )
    make = IMPLEMENTATIONS[spec["impl"]]
    # What a first call imports is no memory of the loss: 80 MiB and 9 s of linear_cross_entropy.
    make(spec | {"batch": FIRST})(a[:FIRST].detach().requires_grad_(), b[:FIRST].detach())
    loss = make(spec)

    def step() -> tuple[Tensor, Tensor]:
        value = loss(a, b)
        if value.requires_grad:  # sentence-transformers' chunked loss goes backward by itself
            value.backward()
        return value.detach(), gradient_norm((a, b))

    return timed(step, spec)


def dense(spec: dict[str, Any]) -> Loss:
    """The formula itself: one matrix of logits, its rows and its columns."""
    own = torch.arange(spec["batch"], device=spec["device"])

    def loss(a: Tensor, b: Tensor) -> Tensor:
        logits = (a * SCALE) @ b.T
        rows, columns = (functional.cross_entropy(x, own) for x in (logits, logits.T))
        return (rows + columns) / 2

    return loss


def ours(spec: dict[str, Any]) -> Loss:
    """The trainer's loss, with its masks for false negatives: it looks for them and finds none."""
    from clue.train.losses.contrastive import Identity, contrastive_loss

    device = spec["device"]
    own = torch.arange(spec["batch"], device=device)
    identity = Identity(own, own, own + spec["batch"])
    scale = torch.tensor([SCALE], device=device)
    return lambda a, b: contrastive_loss(a, b, scale, identity).loss


def open_clip(spec: dict[str, Any]) -> Loss:
    """ClipLoss, from its file alone: the package around it imports torchvision."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.origin is not None
    file = Path(package.origin).with_name("loss.py")
    found = importlib.util.spec_from_file_location("open_clip_loss", file)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    loss = module.ClipLoss(cache_labels=True)
    scale = torch.tensor(SCALE, device=spec["device"])
    return lambda a, b: loss(a, b, scale)


def sentence_transformers(spec: dict[str, Any]) -> Loss:
    """Its symmetric ranking loss, in chunks of `rows` with a backward pass each, or dense at 0.

    With the dot product, which spares it to normalise what is of unit length already.
    """
    from sentence_transformers.sentence_transformer import losses  # pyright: ignore
    from sentence_transformers.util import dot_score  # pyright: ignore

    settings = {
        "scale": SCALE,
        "similarity_fct": dot_score,
        "directions": ("query_to_doc", "doc_to_query"),
        "partition_mode": "per_direction",
    }
    model = nn.Sequential(nn.Identity())
    if not spec["rows"]:
        whole = losses.MultipleNegativesRankingLoss(model, **settings)
        labels = torch.arange(spec["batch"], device=spec["device"])
        return lambda a, b: whole.compute_loss_from_embeddings([a, b], labels)
    cached = losses.CachedMultipleNegativesRankingLoss(
        model, mini_batch_size=spec["rows"], **settings
    )
    return lambda a, b: cached.calculate_loss([[a], [b]], with_backward=True)


def linear_cross_entropy(spec: dict[str, Any]) -> Loss:
    """torch's own chunked loss (2.13 or newer), once for each direction."""
    own = torch.arange(spec["batch"], device=spec["device"])
    options = torch.nn.LinearCrossEntropyOptions()  # pyright: ignore
    one = functional.linear_cross_entropy  # pyright: ignore

    def loss(a: Tensor, b: Tensor) -> Tensor:
        both = (one(x * SCALE, y, own, options=options) for x, y in ((a, b), (b, a)))
        return sum(both, torch.zeros((), device=spec["device"])) / 2

    return loss


def off_by_one(spec: dict[str, Any]) -> Loss:
    """A wrong loss, which the gate must refuse: each row's own column is its neighbour's."""
    right = dense(spec)
    return lambda a, b: right(a, b.roll(1, 0))


IMPLEMENTATIONS: dict[str, Callable[[dict[str, Any]], Loss]] = {
    "dense": dense,
    "ours": ours,
    "open_clip": open_clip,
    "sentence-transformers": sentence_transformers,
    "linear_cross_entropy": linear_cross_entropy,
    "wrong": off_by_one,
}

if __name__ == "__main__":
    run_arm(arm)
