"""Benchmark `loss`: the contrastive loss alone, against open_clip, sentence-transformers, torch.

    python -m benchmarks.speed loss [batches=[1024,4096,8192] rounds=3 threads=2]
    python -m benchmarks.speed loss device=cuda batches=[8192,32768,131072,262144]

Forward and backward of the symmetric InfoNCE of B given pairs in fp32. Peak memory is what the
process held above inputs and imports.
"""

import importlib.util
import math
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.external.environments import OPEN_CLIP, SENTENCE_TRANSFORMERS, Rival
from benchmarks.speed.interleave import Arm, Comparison
from benchmarks.speed.measure import gradient_norm, run_arm, timed
from benchmarks.speed.report import Claim, Report, claim, plain

SMALL = 96  # pairs of the gate
FIRST = 8  # pairs of the call before the clock starts
SCALE = 20.0
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Config:
    """`rows` are sentence-transformers' chunks that are tried, beside its dense loss (0)."""

    batches: tuple[int, ...] = (1024, 4096, 8192)
    width: int = 256
    rows: tuple[int, ...] = (0, 256, 1024)
    rivals: tuple[Literal["open_clip", "sentence-transformers", "linear_cross_entropy"], ...] = (
        *("open_clip", "sentence-transformers", "linear_cross_entropy"),
    )
    rounds: int = 3
    repeats: int = 3
    threads: int = 2
    device: Literal["cpu", "cuda"] = "cpu"
    out: Path = Path("results/speed/loss.json")


def measure(config: Config) -> Report:
    """Return the rows of every batch size."""
    comparison = Comparison(config.rounds)
    for batch in config.batches:
        comparison.run(f"B = {batch:,}", arms(config, batch), [{"batch": SMALL}])
    return comparison.report(claims(comparison, config))


def arms(config: Config, batch: int) -> list[Arm]:
    """Return the arms at one batch size: dense, which is the reference, ours, and the rivals."""

    def arm(name: str, impl: str, rival: Rival | None = None, rows: int = 0) -> Arm:
        more: dict[str, Any] = {"batch": batch, "impl": impl, "rows": rows}
        return Arm(name, "benchmarks.speed.loss", plain(config) | more, rival)

    made = [arm("dense reference", "dense"), arm("ours", "ours")]
    if "linear_cross_entropy" in config.rivals:
        made.append(arm("torch linear_cross_entropy, chunked", "linear_cross_entropy"))
    if "open_clip" in config.rivals:
        made.append(arm("open_clip ClipLoss", "open_clip", OPEN_CLIP))
    if (theirs := "sentence-transformers") in config.rivals:
        for rows in config.rows:
            name = f"{theirs}, chunks of {rows}" if rows else theirs
            made.append(arm(name, theirs, SENTENCE_TRANSFORMERS, rows))
    return made


def claims(comparison: Comparison, config: Config) -> list[Claim]:
    """Return the three aims: time and memory at the largest batch, growth between the last two."""
    case = f"B = {config.batches[-1]:,}"
    seconds = comparison.medians(case, "seconds")
    ours = seconds.pop("ours", None)
    slower = None if ours is None or not seconds else ours / min(seconds.values())
    smaller = comparison.ratio(case, "peak MiB", "ours", "open_clip ClipLoss")
    made = [
        claim(f"Time at {case}, ours / the fastest other", slower, "at most", 1.1),
        claim(f"Peak memory at {case}, ours / open_clip", smaller, "at most", 0.25),
    ]
    if len(config.batches) > 1:
        small, large = config.batches[-2:]
        before, after = (
            comparison.median(f"B = {b:,}", "ours", "peak MiB") for b in (small, large)
        )
        growth = math.log(after / before) / math.log(large / small) if before and after else None
        what = "Exponent of our memory in B between the two largest batches"
        made.append(claim(what, growth, "at most", 1.1, " (linear)"))
    return made


def measure_arm(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of `spec["impl"]` on `batch` noisy pairs of unit vectors of width `width`.

    The gradient norm is that of both sides; the temperature is fixed at 1/20, since
    sentence-transformers cannot train it.
    """
    draw = torch.Generator().manual_seed(1)
    shared, *noise = torch.randn((3, spec["batch"], spec["width"]), generator=draw)
    a, b = (
        functional.normalize(shared + each, dim=-1).to(spec["device"]).requires_grad_()
        for each in noise
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
    """Return the formula itself: one matrix of logits, its rows and its columns."""
    own = torch.arange(spec["batch"], device=spec["device"])

    def loss(a: Tensor, b: Tensor) -> Tensor:
        logits = (a * SCALE) @ b.T
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    return loss


def ours(spec: dict[str, Any]) -> Loss:
    """Return the trainer's loss, with its masks for false negatives, of which there are none."""
    from clue.train.losses.contrastive import Identity, contrastive_loss

    own = torch.arange(spec["batch"], device=spec["device"])
    identity = Identity(own, own, own + spec["batch"])
    scale = torch.tensor([SCALE], device=spec["device"])
    return lambda a, b: contrastive_loss(a, b, scale, identity).loss


def open_clip(spec: dict[str, Any]) -> Loss:
    """Return ClipLoss, from its file alone: the package around it imports torchvision."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.origin is not None
    module = runpy.run_path(str(Path(package.origin).with_name("loss.py")))
    loss, scale = module["ClipLoss"](cache_labels=True), torch.tensor(SCALE, device=spec["device"])
    return lambda a, b: loss(a, b, scale)


def sentence_transformers(spec: dict[str, Any]) -> Loss:
    """Return its symmetric ranking loss, in chunks of `rows` with a backward each, or dense at 0.

    With the dot product, which spares it to normalise what is of unit length already.
    """
    from sentence_transformers.sentence_transformer import losses  # pyright: ignore
    from sentence_transformers.util import dot_score  # pyright: ignore

    settings: dict[str, Any] = {"scale": SCALE, "similarity_fct": dot_score}
    settings |= {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    model, rows = nn.Sequential(nn.Identity()), spec["rows"]
    if rows:
        cached = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows, **settings)
        return lambda a, b: cached.calculate_loss([[a], [b]], with_backward=True)
    whole = losses.MultipleNegativesRankingLoss(model, **settings)
    labels = torch.arange(spec["batch"], device=spec["device"])
    return lambda a, b: whole.compute_loss_from_embeddings([a, b], labels)


def linear_cross_entropy(spec: dict[str, Any]) -> Loss:
    """Return torch's own chunked loss (2.13 or newer), once for each direction."""
    own = torch.arange(spec["batch"], device=spec["device"])
    options = torch.nn.LinearCrossEntropyOptions()  # pyright: ignore
    half = functional.linear_cross_entropy  # pyright: ignore

    def one_way(a: Tensor, b: Tensor) -> Tensor:
        return half(a * SCALE, b, own, options=options)

    return lambda a, b: (one_way(a, b) + one_way(b, a)) / 2


IMPLEMENTATIONS: dict[str, Callable[[dict[str, Any]], Loss]] = {
    "dense": dense,
    "ours": ours,
    "open_clip": open_clip,
    "sentence-transformers": sentence_transformers,
    "linear_cross_entropy": linear_cross_entropy,
}

if __name__ == "__main__":
    run_arm(measure_arm)
