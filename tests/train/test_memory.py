"""Memory: what is free is seen, what a position takes is measured, and a step stays within both."""

import resource
from contextlib import nullcontext

import psutil
import pytest
import torch

from clue.data.batches import Batch, PairSampler
from clue.data.corpus import Corpus
from clue.data.views import ViewsConfig
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.memory import activation_bytes, find_budget, free_memory
from clue.train.packing import Budget, pack
from tests.conftest import TinyRun

CPU = torch.device("cpu")
VIEWS = ViewsConfig(cross_service=0.0, past_future=1.0, slices=0.0)


@pytest.fixture
def corpus(tiny_run: TinyRun) -> Corpus:
    return Corpus.open(tiny_run.corpus)


def model_of(corpus: Corpus) -> DualEncoder:
    config = DualEncoderConfig(
        item=ItemEncoderConfig(layers=2, width=32, heads=2),
        user=UserEncoderConfig(layers=2, width=48, heads=2, embedding=16),
    )
    return DualEncoder(config, corpus.manifest.vocab_size)


def batch_of(corpus: Corpus, pairs: int) -> Batch:
    return PairSampler(corpus, VIEWS, batch=pairs, seed=0).at(0)


def kept_bytes(model: DualEncoder, batch: Batch, budget: Budget) -> int:
    """Return what a forward pass leaves for the backward pass, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    views, _ = pack(batch, budget)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        users, *_ = model(views)
    assert users.requires_grad
    return sum(size for place, size in found.items() if place not in weights)


def test_a_limit_of_the_process_is_seen() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    unlimited = free_memory(CPU, 1)
    assert free_memory(CPU, 4) <= unlimited / 3
    try:
        limit = psutil.Process().memory_info().data + unlimited // 2
        resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
        assert 0.4 * unlimited < free_memory(CPU, 1) < 0.6 * unlimited
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_what_is_measured_is_what_a_step_keeps(corpus: Corpus) -> None:
    model, batch = model_of(corpus), batch_of(corpus, 96)
    item, event = activation_bytes(model, batch, 512)
    whole = kept_bytes(model, batch, Budget(512))
    expected = item * batch.token_lengths.sum() + event * batch.event_lengths.sum()
    assert whole == pytest.approx(expected, rel=0.15)


def test_chunks_are_recomputed_until_the_rest_fits(corpus: Corpus) -> None:
    model, batch = model_of(corpus), batch_of(corpus, 96)
    item, event = activation_bytes(model, batch, 512)
    whole = kept_bytes(model, batch, Budget(128))
    least = kept_bytes(model, batch, Budget(128, 0.0, item, event))
    assert least < 0.1 * whole
    for share in (0.25, 0.5, 0.75):
        found = kept_bytes(model, batch, Budget(128, share * whole, item, event))
        assert found < least + 1.05 * share * whole
        assert found > least + (share - 0.25) * whole  # and no more than needed is


def test_memory_does_not_grow_with_the_batch_but_for_the_vectors(corpus: Corpus) -> None:
    model = model_of(corpus)
    sizes: list[int] = []
    vectors: list[int] = []
    for pairs in (48, 192):
        batch = batch_of(corpus, pairs)
        budget = Budget(128, 0.0, 1.0, 1.0)
        sizes.append(kept_bytes(model, batch, budget))
        places = len(batch.tokens) + len(batch.events)
        vectors.append(
            4 * (32 * len(batch.token_lengths) + 2 * 16 * len(batch.event_lengths)) + 4 * 8 * places
        )
    assert sizes[1] - sizes[0] <= 1.5 * (vectors[1] - vectors[0])


def test_the_budget_is_found_from_what_is_free(corpus: Corpus) -> None:
    model, batch = model_of(corpus), batch_of(corpus, 96)

    def found(free: int, chunk: int | None = None) -> Budget:
        return find_budget(
            model, batch, chunk_tokens=chunk, free=free, fixed=False, autocast=nullcontext
        )

    plenty, little = found(2**32), found(8 * 2**20)
    assert plenty.tokens == 4096 and not any(c.recompute for c in pack(batch, plenty)[0].items)
    assert little.tokens < 4096 and little.kept < 8 * 2**20
    assert found(2**32, 100).tokens == found(8 * 2**20, 100).tokens == 100
    with pytest.raises(ValueError, match=r"1 MiB are free, \d+ MiB are needed .* lower batch"):
        found(2**20)
