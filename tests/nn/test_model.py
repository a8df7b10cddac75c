"""CLUE: chunked equals whole, order of the batch is kept, the temperature is clamped."""

import numpy as np
import pytest
import torch

from clue.nn.attention import Layout
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.model import Clue, ClueConfig, PackedViews, split
from clue.nn.user_encoder import UserEncoderConfig

TOKENS = np.array([1, 1, 2, 2, 2, 4, 5, 6])
EVENTS = np.array([1, 2, 2, 4])


def small_model(chunk_tokens: int = 0) -> Clue:
    torch.manual_seed(0)
    config = ClueConfig(
        item=ItemEncoderConfig(layers=2, width=16, heads=2, max_tokens=8),
        user=UserEncoderConfig(layers=1, width=24, heads=2, max_events=6, embedding=12),
        chunk_tokens=chunk_tokens,
    )
    return Clue(config, vocab_size=50)


def some_views() -> PackedViews:
    draw = torch.Generator().manual_seed(1)
    return PackedViews(
        tokens=torch.randint(0, 50, (int(TOKENS.sum()),), generator=draw),
        items=Layout.of(TOKENS),
        events=torch.randint(0, len(TOKENS), (int(EVENTS.sum()),), generator=draw),
        histories=Layout.of(EVENTS),
        rows=torch.tensor([2, 0, 3, 1]),
    )


@pytest.mark.parametrize("chunk_tokens", [1, 5, 9, 22])
def test_chunked_equals_whole_with_gradients(chunk_tokens: int) -> None:
    views, gradients, outputs = some_views(), [], []
    weights = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    for chunk in (0, chunk_tokens):
        model = small_model(chunk)
        users, scale = model(views)
        outputs.append(users)
        ((users * weights).sum() * scale).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    assert len(gradients[0]) == 26
    for name, whole in gradients[0].items():
        assert whole is not None
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 3, 4, 7, 23, 100])
def test_split_keeps_every_sequence_and_the_budget(budget: int) -> None:
    views = some_views()
    chunks = split(views.tokens, views.items, budget)
    assert torch.equal(torch.cat([tokens for tokens, _ in chunks]), views.tokens)
    lengths = [n for _, layout in chunks for n in layout.offsets.diff().tolist()]
    assert lengths == TOKENS.tolist()
    for tokens, layout in chunks:
        assert len(tokens) == layout.offsets[-1] == sum(n * count for n, count in layout.runs)
        assert len(tokens) <= budget or layout.count == 1


def test_views_come_back_in_the_order_of_the_batch() -> None:
    model, views = small_model(), some_views()
    straight = PackedViews(
        views.tokens, views.items, views.events, views.histories, torch.arange(4)
    )
    assert torch.equal(model(views)[0], model(straight)[0][views.rows])


def test_vectors_have_unit_length_and_the_scale_is_clamped() -> None:
    model = small_model()
    users, scale = model(some_views())
    torch.testing.assert_close(users.norm(dim=1), torch.ones(4))
    assert scale.item() == pytest.approx(model.config.initial_scale)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    assert model.scale().item() == pytest.approx(100.0)
    with torch.no_grad():
        model.log_scale.fill_(-3.0)
    assert model.scale().item() == pytest.approx(1.0)


def test_old_events_matter_by_their_distance_to_the_newest() -> None:
    model = small_model()
    with torch.no_grad():
        model.users.recency.weight.normal_()
    vectors = torch.randn(3, 16)
    longer = model.users(vectors, Layout.of(np.array([3])))
    assert not torch.allclose(longer, model.users(vectors.flip(0), Layout.of(np.array([3]))))
