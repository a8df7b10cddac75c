"""CLUE: chunked equals whole, order of the batch is kept, the temperature is clamped."""

import numpy as np
import pytest
import torch

from clue.data.batches import Batch
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig, PackedViews
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.layout import Layout
from clue.nn.user_encoder import UserEncoderConfig, activity_level
from clue.train.packing import Budget, pack

TOKENS = np.array([1, 1, 2, 2, 2, 4, 5, 6])
EVENTS = np.array([1, 2, 2, 4])


def small_model(dropout: float = 0.0, bag: int = 0) -> DualEncoder:
    torch.manual_seed(0)
    config = DualEncoderConfig(
        item=ItemEncoderConfig(layers=2, width=16, heads=2, max_tokens=8, dropout=dropout),
        user=UserEncoderConfig(
            layers=1, width=24, heads=2, max_events=6, embedding=12, bag=bag, dropout=dropout
        ),
    )
    return DualEncoder(config, vocab_size=50)


def some_batch(rows: tuple[int, ...] = (2, 0, 3, 1)) -> Batch:
    draw = np.random.default_rng(1)
    pairs = np.arange(len(rows) // 2)
    return Batch(
        tokens=draw.integers(0, 50, TOKENS.sum()),
        token_lengths=TOKENS,
        events=draw.integers(0, len(TOKENS), EVENTS.sum()),
        event_lengths=EVENTS,
        rows=np.array(rows),
        user=pairs,
        content_a=pairs,
        content_b=pairs + 100,
        log_q=np.zeros(len(pairs), np.float32),
    )


def views_of(budget: Budget, rows: tuple[int, ...] = (2, 0, 3, 1)) -> PackedViews:
    return pack(some_batch(rows), budget)[0]


def gradients_of(model: DualEncoder, views: PackedViews) -> dict[str, torch.Tensor]:
    """Return the vectors and the gradients of a weighted sum of them, dropout seeded."""
    torch.manual_seed(5)
    weights = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    users, scale, _ = model(views)
    ((users * weights).sum() * scale).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == 27 + (model.users.bag is not None)
    return {**found, "users": users.detach()}


@pytest.mark.parametrize("bag", [0, 5])
@pytest.mark.parametrize("tokens", [1, 5, 9, 22])
def test_chunked_equals_whole_with_gradients(tokens: int, bag: int) -> None:
    whole = gradients_of(small_model(bag=bag), views_of(Budget(1000)))
    chunked = gradients_of(small_model(bag=bag), views_of(Budget(tokens)))
    for name, expected in whole.items():
        torch.testing.assert_close(chunked[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", [0, 12, 25])
def test_recomputed_equals_kept_bitwise_with_dropout(kept: int) -> None:
    straight = gradients_of(small_model(0.3), views_of(Budget(4)))
    views = views_of(Budget(4, kept=float(kept), item_bytes=1.0, event_bytes=1.0))
    again = [chunk.recompute for chunk in (*views.items, *views.histories)]
    assert again == sorted(again, reverse=True) and any(again)  # the first ones are recomputed
    assert all(again) == (kept == 0)
    found = gradients_of(small_model(0.3), views)
    for name, expected in straight.items():
        assert torch.equal(found[name], expected), name


def test_views_come_back_in_the_order_of_the_batch() -> None:
    model, budget = small_model(), Budget(5)
    shuffled, straight = views_of(budget), views_of(budget, (0, 1, 2, 3))
    assert torch.equal(model(shuffled)[0], model(straight)[0][torch.tensor([2, 0, 3, 1])])


def test_vectors_have_unit_length_and_the_scale_is_clamped() -> None:
    model = small_model()
    users, scale, _ = model(views_of(Budget(1000)))
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


def test_activity_alone_tells_how_often_the_same_was_done() -> None:
    model = small_model()  # recency starts at zero, and the mean of equal rows is the row
    counts = np.arange(1, 7)
    same = torch.ones(int(counts.sum()), 16)
    blind = model.users(same, Layout.of(counts))
    torch.testing.assert_close(blind, blind[:1].expand_as(blind))
    torch.nn.init.normal_(model.users.activity.weight)
    seen = model.users(same, Layout.of(counts))
    levels = [activity_level(int(count)) for count in counts]
    assert levels == [0, 2, 3, 4, 4, 5]  # floor(2 log2 n), by hand
    told = torch.cdist(seen, seen) > 1e-3
    apart = torch.tensor(levels)[:, None] != torch.tensor(levels)
    assert torch.equal(told, apart)


def test_the_bag_is_half_of_a_cosine_and_the_newest_items_weigh_most() -> None:
    model = small_model(bag=5)
    assert model.users.bag is not None
    events = torch.randn(7, 16)
    users = model.users(events, Layout.of(np.array([3, 4])))
    mixed, bag = users[:, :7].detach(), users[:, 7:].detach()
    half = torch.full((2,), 0.5**0.5)
    torch.testing.assert_close(mixed.norm(dim=1), half)
    torch.testing.assert_close(bag.norm(dim=1), half)
    rows = [row / np.linalg.norm(row) for row in model.users.bag(events).detach().numpy()]
    first = rows[0] / 3 + rows[1] / 2 + rows[2]
    second = rows[3] / 4 + rows[4] / 3 + rows[5] / 2 + rows[6]
    by_hand = np.stack([total / np.linalg.norm(total) * 0.5**0.5 for total in (first, second)])
    torch.testing.assert_close(bag, torch.from_numpy(by_hand))
    alone = model.users(events, Layout.of(np.ones(7, int)))  # a user of one event is the item
    torch.testing.assert_close(alone[:, 7:].detach(), torch.from_numpy(np.stack(rows)) * 0.5**0.5)


@pytest.mark.parametrize("bag", [-1, 12, 13])
def test_a_bag_that_is_no_part_of_the_vector_is_refused(bag: int) -> None:
    with pytest.raises(ValueError, match=f"bag is {bag} and embedding 12; the bag is a part of"):
        small_model(bag=bag)
