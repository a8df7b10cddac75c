"""One arm of the benchmark `step`: forward, loss and backward of the two-level model on a batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.measure import gradient_norm, run_arm, timed
from benchmarks.speed.padded import PaddedViews, encode_items, pad
from benchmarks.speed.zipf_corpus import WorldConfig, open_world, views
from clue.data.batches import Batch, PairSampler
from clue.data.ragged import Ragged
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.layout import Layout
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.losses.contrastive import Identity, contrastive_loss
from clue.train.memory import find_budget, free_memory
from clue.train.packing import Budget, pack

Step = Callable[[], Tensor]
WHOLE = 2**40  # positions of a chunk that holds any batch


def arm(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of `spec["impl"]` on batch 0 of the world.

    The gradient norm leaves the temperature out: sentence-transformers' is a constant.
    """
    sampler = make_sampler(spec)
    torch.manual_seed(0)
    model = make_model(spec).to(spec["device"])
    weights = [weight for name, weight in model.named_parameters() if name != "log_scale"]
    forward = IMPLEMENTATIONS[spec["impl"]](model, sampler, spec)

    def step() -> tuple[Tensor, Tensor]:
        model.zero_grad(set_to_none=True)
        with precision(spec):
            loss = forward()
        loss.backward()
        return loss.detach(), gradient_norm(weights)

    return {**timed(step, spec), **sizes(model, sampler.at(0))}


def make_sampler(spec: dict[str, Any]) -> PairSampler:
    """Return the trainer's sampler over the synthetic world, or over the corpus that spec names."""
    world = WorldConfig(**spec["world"])
    corpus = open_world(world, Path(spec["worlds"]))
    return PairSampler(corpus, views(world), batch=spec["batch"], seed=0)


def make_model(spec: dict[str, Any]) -> DualEncoder:
    """Return the model of spec, its weights drawn from torch's generator."""
    shape = dict(spec["model"])
    item, user = ItemEncoderConfig(**shape.pop("item")), UserEncoderConfig(**shape.pop("user"))
    return DualEncoder(
        DualEncoderConfig(**shape, item=item, user=user), spec["world"]["vocabulary"]
    )


def budget(spec: dict[str, Any]) -> Budget:
    """Return chunks of `chunk_tokens`, all recomputed, as the rival does; at 0 one whole."""
    return Budget(spec["chunk_tokens"], 0.0, 1.0, 1.0) if spec["chunk_tokens"] else Budget(WHOLE)


def precision(spec: dict[str, Any]) -> AbstractContextManager[Any]:
    """Return bf16 autocast where spec asks for it."""
    if spec["precision"] == "bf16":
        return torch.autocast(spec["device"], dtype=torch.bfloat16)
    return nullcontext()


def ours(model: DualEncoder, sampler: PairSampler, spec: dict[str, Any]) -> Step:
    """The trainer's own functions, sampling and packing of the batch included.

    In half precision on CUDA as `Contrastive.budget` has it: fixed shapes, encoders compiled apart.
    """
    if spec["device"] == "cpu" or spec["precision"] == "fp32":
        run = torch.compile(model) if spec["compile"] else model
        return lambda: _loss_of_packed(run, sampler.at(0), spec)
    held = find_budget(
        model,
        sampler.at(0),
        chunk_tokens=spec["chunk_tokens"] or None,
        free=free_memory(torch.device("cuda"), 1),
        fixed=True,
        autocast=partial(precision, spec),
    )
    if spec["compile"]:
        model.items.compile(dynamic=False)
        model.users.compile(dynamic=False)
    return lambda: _loss_of_packed(model, sampler.at(0), spec, held)


def without_deduplication(model: DualEncoder, sampler: PairSampler, spec: dict[str, Any]) -> Step:
    """The same, but every event's item is encoded by itself."""
    return lambda: _loss_of_packed(model, repeated(sampler.at(0)), spec)


def without_length_sort(model: DualEncoder, sampler: PairSampler, spec: dict[str, Any]) -> Step:
    """The same, but the distinct items lie in any order, in chunks padded to their longest."""

    def encode(tokens: Tensor) -> Tensor:
        return encode_items(model, tokens)

    def forward() -> Tensor:
        batch = sampler.at(0)
        tensors, identity = pack(batch, budget(spec), spec["device"])
        order = np.random.default_rng(0).permutation(len(batch.token_lengths))
        starts = np.concatenate([[0], np.cumsum(batch.token_lengths)])
        texts = Ragged(batch.tokens, starts).take(order)
        rows = max(1, spec["chunk_tokens"] // int(texts.lengths.max()))
        pieces: list[Tensor] = []
        for start in range(0, len(order), rows):
            chunk = texts.take(np.arange(start, min(start + rows, len(order))))
            padded = pad(_tensor(chunk.values, spec), _tensor(chunk.lengths, spec))
            pieces.append(checkpoint(encode, padded, use_reentrant=False))
        place = _tensor(np.argsort(order), spec)
        events = torch.cat(pieces)[place][_tensor(batch.events, spec)]
        histories = Layout.of(batch.event_lengths, spec["device"])
        users = model.users(events, histories)[tensors.rows]
        half = len(batch.user)
        return contrastive_loss(users[:half], users[half:], model.scale(), uniform(identity)).loss

    return forward


def sentence_transformers(model: DualEncoder, sampler: PairSampler, spec: dict[str, Any]) -> Step:
    """Its cached ranking loss, symmetric, around the same model; the padded batch is given."""
    from sentence_transformers.sentence_transformer import losses  # pyright: ignore
    from sentence_transformers.util import dot_score  # pyright: ignore

    loss = losses.CachedMultipleNegativesRankingLoss(
        nn.Sequential(PaddedViews(model, strong=spec["strong"])),
        scale=model.config.initial_scale,
        similarity_fct=dot_score,
        mini_batch_size=spec["rows"],
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    features = padded_pair(sampler.at(0), spec)
    labels = torch.arange(spec["batch"], device=spec["device"])
    return lambda: loss(features, labels)


def padded_pair(batch: Batch, spec: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Return both sides of the batch as (B, longest history, longest text) tokens and a mask."""
    tokens = pad(_tensor(batch.tokens, spec), _tensor(batch.token_lengths, spec))
    events = pad(_tensor(batch.events, spec) + 1, _tensor(batch.event_lengths, spec))
    events = events[_tensor(batch.rows, spec)]
    table = torch.cat([tokens.new_zeros(1, tokens.shape[1]), tokens])
    half = len(batch.user)
    return [
        {"input_ids": table[side], "attention_mask": (side > 0).long()}
        for side in (events[:half], events[half:])
    ]


def repeated(batch: Batch) -> Batch:
    """Return the batch with an item of its own for each event, shortest text first."""
    starts = np.concatenate([[0], np.cumsum(batch.token_lengths)])
    order = np.argsort(batch.token_lengths[batch.events], kind="stable")
    texts = Ragged(batch.tokens, starts).take(batch.events[order])
    return replace(
        batch, tokens=texts.values, token_lengths=texts.lengths, events=np.argsort(order)
    )


def sizes(model: DualEncoder, batch: Batch) -> dict[str, float]:
    """Return what the batch holds, and the FLOPs of its matrix products (6 a weight and token).

    Of distinct items only, whatever the arm computes; attention's own products are left out.
    """
    weights = [
        sum(weight.numel() for weight in encoder.parameters() if weight.ndim == 2)
        - sum(m.weight.numel() for m in encoder.modules() if isinstance(m, nn.Embedding))
        for encoder in (model.items, model.users)
    ]
    events, tokens = len(batch.events), len(batch.tokens)
    return {
        "pairs": len(batch.user),
        "events": events,
        "distinct_items": len(batch.token_lengths),
        "distinct_tokens": tokens,
        "tokens": int(batch.token_lengths[batch.events].sum()),
        "flops": 6.0 * (weights[0] * tokens + weights[1] * events),
    }


def _loss_of_packed(
    run: Callable[..., Any], batch: Batch, spec: dict[str, Any], held: Budget | None = None
) -> Tensor:
    packed, identity = pack(batch, held or budget(spec), spec["device"])
    users, scale, _ = run(packed)
    half = len(batch.user)
    return contrastive_loss(users[:half], users[half:], scale, uniform(identity)).loss


def uniform(identity: Identity) -> Identity:
    """Return the ids without log q: all users count the same."""
    return replace(identity, log_q=None)


def _tensor(values: np.ndarray, spec: dict[str, Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(spec["device"])


IMPLEMENTATIONS: dict[str, Callable[[DualEncoder, PairSampler, dict[str, Any]], Step]] = {
    "ours": ours,
    "without de-duplication": without_deduplication,
    "without length sort": without_length_sort,
    "sentence-transformers": sentence_transformers,
}

if __name__ == "__main__":
    run_arm(arm)
