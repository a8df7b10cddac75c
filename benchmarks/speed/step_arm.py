"""One arm of `step` and `batch`: forward, loss and backward of the two-level model on a batch."""

import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.measure import MIB, gradient_norm, memory, run_arm, timed
from benchmarks.speed.padded import PaddedViews, encode_items, pad
from benchmarks.speed.zipf_corpus import WorldConfig, open_world, views
from clue.data.batches import Batch, PairSampler
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged
from clue.data.views import ViewsConfig
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.layout import Layout
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.losses.contrastive import Identity, LossConfig, contrastive_loss
from clue.train.memory import find_budget, free_memory
from clue.train.optimiser import OptimizerConfig, make_optimizers
from clue.train.packing import Budget, pack
from clue.train.step import contrastive_forward, train_step

Spec = dict[str, Any]
Forward = Callable[[], Tensor]
WHOLE = 2**40  # positions of a chunk that holds any batch


def arm(spec: Spec) -> dict[str, Any]:
    """Return the figures of `spec["impl"]` on batch 0 of the world.

    The gradient norm leaves the temperature out: sentence-transformers' is a constant.
    """
    sampler = make_sampler(spec)
    torch.manual_seed(0)
    model = make_model(spec).to(spec["device"])
    if spec["impl"] == "trainer":
        return trainer(model, sampler, spec)
    weights = [weight for name, weight in model.named_parameters() if name != "log_scale"]
    forward = IMPLEMENTATIONS[spec["impl"]](model, sampler, spec)

    def step() -> tuple[Tensor, Tensor]:
        model.zero_grad(set_to_none=True)
        with precision(spec):
            loss = forward()
        loss.backward()
        return loss.detach(), gradient_norm(weights)

    result, counts = timed(step, spec), sizes(model, sampler.at(0))
    seconds, peak, warm_up = result["figures"].values()
    rate = counts["flops"] / seconds / 1e12
    result["figures"] = {
        "seconds": seconds,
        "pairs/s": spec["batch"] / seconds,
        "peak MiB": peak,
        "warm-up s": warm_up,
        "useful TFLOP/s": rate,
        **({"MFU": rate / spec["peak_tflops"]} if spec["peak_tflops"] else {}),
    }
    return result | counts


def trainer(model: DualEncoder, sampler: PairSampler, spec: Spec) -> dict[str, Any]:
    """Return the figures of the trainer's whole steps; one beyond the limit of memory fails.

    The process may hold `limit_mib` more private memory (RLIMIT_DATA) than it did with the model
    and the corpus open and before the first step, which brings the optimiser's state too.
    """
    accelerator = Accelerator(cpu=spec["device"] == "cpu")
    prepared, *optimizers = accelerator.prepare(model, *make_optimizers(model, OptimizerConfig()))
    numbers = iter(range(WHOLE))

    @cache
    def budget() -> Budget:  # found under the limit, as a run finds it before its first step
        return find(model, sampler, spec, fixed=False) if spec["chunked"] else Budget(WHOLE)

    def step() -> tuple[Tensor, Tensor]:
        forward = partial(
            contrastive_forward,
            batch=sampler.at(next(numbers)),
            budget=budget(),
            loss=LossConfig(),
            device=accelerator.device,
        )
        report = train_step(accelerator, prepared, optimizers, forward, clip=1.0)
        return torch.tensor(report.loss), torch.tensor(report.grad_norm)

    limit = memory("VmData") + spec["limit_mib"] * MIB
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        result = timed(step, spec)
    finally:  # to say that no memory was left takes some
        resource.setrlimit(resource.RLIMIT_DATA, before)
    rate = {"pairs/s": spec["batch"] / result["figures"].pop("seconds")}
    return {**result, "figures": rate | result["figures"]}


def make_sampler(spec: Spec) -> PairSampler:
    """Return the trainer's sampler over the synthetic world, or over the corpus that spec names."""
    if spec.get("corpus"):
        corpus, drawn = Corpus.open(Path(spec["corpus"])), ViewsConfig()
    else:
        world = WorldConfig(**spec["world"])
        corpus, drawn = open_world(world, Path(spec["worlds"])), views(world)
    return PairSampler(corpus, drawn, batch=spec["batch"], seed=0)


def make_model(spec: Spec) -> DualEncoder:
    """Return the model of spec, its weights drawn from torch's generator."""
    shape = dict(spec["model"])
    shape["item"] = ItemEncoderConfig(**shape["item"])
    shape["user"] = UserEncoderConfig(**shape["user"])
    return DualEncoder(DualEncoderConfig(**shape), spec["world"]["vocabulary"])


def budget(spec: Spec) -> Budget:
    """Return chunks of `chunk_tokens`, all recomputed, as the rival does; at 0 one whole."""
    return Budget(spec["chunk_tokens"], 0.0, 1.0, 1.0) if spec["chunk_tokens"] else Budget(WHOLE)


def precision(spec: Spec) -> AbstractContextManager[Any]:
    """Return bf16 autocast where spec asks for it."""
    if spec.get("precision") == "bf16":
        return torch.autocast(spec["device"], dtype=torch.bfloat16)
    return nullcontext()


def find(model: DualEncoder, sampler: PairSampler, spec: Spec, *, fixed: bool) -> Budget:
    """Return the budget that a run finds before its first step."""
    return find_budget(
        model,
        sampler.at(0),
        chunk_tokens=spec.get("chunk_tokens") or None,
        free=free_memory(torch.device(spec["device"]), 1),
        fixed=fixed,
        autocast=partial(precision, spec),
    )


def ours(
    model: DualEncoder,
    sampler: PairSampler,
    spec: Spec,
    change: Callable[[Batch], Batch] = lambda batch: batch,
) -> Forward:
    """Return the trainer's own functions, sampling and packing of the batch included.

    In half precision on CUDA as `Contrastive.budget` has it: fixed shapes, encoders compiled apart.
    """
    run, held = model, budget(spec)
    if spec["device"] == "cuda" and spec["precision"] == "bf16":
        held = find(model, sampler, spec, fixed=True)
        if spec["compile"]:
            model.items.compile(dynamic=False)
            model.users.compile(dynamic=False)
    elif spec["compile"]:
        run = torch.compile(model)

    def forward() -> Tensor:
        packed, identity = pack(change(sampler.at(0)), held, spec["device"])
        users, scale, _ = run(packed)
        return _loss(users, scale, identity)

    return forward


def without_length_sort(model: DualEncoder, sampler: PairSampler, spec: Spec) -> Forward:
    """Return the same, but the items lie in any order, in chunks padded to their longest."""
    encode = partial(encode_items, model)

    def forward() -> Tensor:
        batch = sampler.at(0)
        tensors, identity = pack(batch, budget(spec), spec["device"])
        order = np.random.default_rng(0).permutation(len(batch.token_lengths))
        texts, numbers = _texts(batch).take(order), np.arange(len(order))
        rows = max(1, spec["chunk_tokens"] // int(texts.lengths.max()))
        chunks = [texts.take(part) for part in np.split(numbers, numbers[rows::rows])]
        items = torch.cat(
            [checkpoint(encode, _padded(chunk, spec), use_reentrant=False) for chunk in chunks]
        )
        events = items[_tensor(np.argsort(order)[batch.events], spec)]
        histories = Layout.of(batch.event_lengths, spec["device"])
        users = model.users(events, histories)[tensors.rows]
        return _loss(users, model.scale(), identity)

    return forward


def sentence_transformers(model: DualEncoder, sampler: PairSampler, spec: Spec) -> Forward:
    """Return its cached ranking loss, symmetric, of the same model; the padded batch is given."""
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


def padded_pair(batch: Batch, spec: Spec) -> list[dict[str, Tensor]]:
    """Return both sides of the batch as (B, longest history, longest text) tokens and a mask."""
    tokens = _padded(_texts(batch), spec)
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
    order = np.argsort(batch.token_lengths[batch.events], kind="stable")
    texts = _texts(batch).take(batch.events[order])
    return replace(
        batch, tokens=texts.values, token_lengths=texts.lengths, events=np.argsort(order)
    )


def sizes(model: DualEncoder, batch: Batch) -> dict[str, float]:
    """Return what the batch holds, and the FLOPs of its matrix products (6 a weight and token).

    Of distinct items only, whatever the arm computes; attention's own products are left out.
    """
    weights = [
        sum(m.weight.numel() for m in encoder.modules() if isinstance(m, nn.Linear))
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


def _loss(users: Tensor, scale: Tensor, identity: Identity) -> Tensor:
    """Return the loss of both sides, stacked, without log q: all users count the same."""
    first, second = users.chunk(2)
    return contrastive_loss(first, second, scale, replace(identity, log_q=None)).loss


def _texts(batch: Batch) -> Ragged:
    return Ragged(batch.tokens, np.concatenate([[0], np.cumsum(batch.token_lengths)]))


def _padded(rows: Ragged, spec: Spec) -> Tensor:
    return pad(_tensor(rows.values, spec), _tensor(rows.lengths, spec))


def _tensor(values: np.ndarray, spec: Spec) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(spec["device"])


IMPLEMENTATIONS: dict[str, Callable[[DualEncoder, PairSampler, Spec], Forward]] = {
    "ours": ours,
    "without de-duplication": partial(ours, change=repeated),
    "without length sort": without_length_sort,
    "sentence-transformers": sentence_transformers,
}

if __name__ == "__main__":
    run_arm(arm)
