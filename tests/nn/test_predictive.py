"""The predictive encoder: causal, equal to a slow reference, at home with items it never met."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from clue.data.windows import WindowBatch
from clue.nn.layout import Layout
from clue.nn.predictive import PredictiveConfig, PredictiveEncoder
from clue.train.losses.item_softmax import Sample, next_item_loss
from clue.train.packing import Budget, pack_windows

CONFIG = PredictiveConfig(
    layers=2, width=16, heads=2, dropout=0.0, text_width=12, identity_dropout=0.0, max_events=5
)


def encoder() -> PredictiveEncoder:
    torch.manual_seed(0)
    made = PredictiveEncoder(CONFIG, catalogue=9, vocab_size=20, max_tokens=4)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return made.double()


def batch() -> WindowBatch:
    """Return two windows, of 2 and 4 events, over six items."""
    return WindowBatch(
        tokens=np.array([3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        token_lengths=np.array([1, 1, 1, 2, 2, 3]),
        rows=np.array([8, 2, 0, 5, 4, 7]),
        events=np.array([0, 1, 2, 3, 4, 5]),
        event_lengths=np.array([2, 4]),
        targets=np.array([1, 5, 3, 4, 5, 0]),
        candidates=np.array([0, 2, 3]),
        log_expected=np.array([0.3, -0.2, 0.1], np.float32),
        total=6,
    )


def outputs(model: PredictiveEncoder, budget: Budget) -> tuple[torch.Tensor, ...]:
    return model(pack_windows(batch(), budget))


def test_chunks_and_recomputation_change_nothing() -> None:
    model = encoder()
    whole = outputs(model, Budget(1000))
    grads: list[list[torch.Tensor]] = []
    for budget in (Budget(1000), Budget(3, 0.0, 1.0, 1.0)):
        found = outputs(model, budget)
        for one, other in zip(whole, found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        model.zero_grad()
        torch.cat([x.flatten() for x in found]).square().sum().backward()
        grads.append([w.grad.clone() for w in model.parameters() if w.grad is not None])
    assert len(grads[0]) == len(list(model.parameters()))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_state_reads_no_later_event() -> None:
    model, given = encoder(), batch()
    states = model(pack_windows(given, Budget(1000)))[0]
    changed = batch()
    changed.events[5] = 1  # the last event of the second window
    other = model(pack_windows(changed, Budget(1000)))[0]
    torch.testing.assert_close(states[:5], other[:5], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(states[5], other[5])


def test_the_last_state_needs_no_other_of_the_top_layer() -> None:
    model = encoder()
    lengths = np.array([1, 1, 2, 4, 4, 4, 5])
    layout = Layout.of(lengths)
    events = torch.randn(lengths.sum(), CONFIG.width, dtype=torch.float64)
    whole = model.states(events, layout)[np.cumsum(lengths) - 1]
    last = model.last(events, layout)
    torch.testing.assert_close(last, whole, rtol=1e-6, atol=1e-6)  # rotations are in fp32


def test_the_loss_equals_a_dense_sampled_softmax() -> None:
    model, given = encoder(), batch()
    packed = pack_windows(given, Budget(1000))
    states, candidates, own = model(packed)
    expected = torch.from_numpy(given.log_expected).double()
    loss = next_item_loss(
        states,
        packed.targets,
        candidates,
        total=6,
        sample=Sample(packed.candidates, expected, own),
    )
    logits = states @ candidates.T - expected
    logits = logits.masked_fill(
        torch.from_numpy(given.targets)[:, None] == torch.from_numpy(given.candidates), -torch.inf
    )
    logits = torch.cat([(states * own).sum(1, keepdim=True), logits], 1)
    dense = functional.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(loss, dense, rtol=1e-10, atol=1e-12)


def test_an_unknown_item_is_read_from_its_text_alone() -> None:
    model = encoder()
    packed = pack_windows(batch(), Budget(1000))
    known = model.items(packed.items, packed.rows)
    unknown = model.items(packed.items, torch.full_like(packed.rows, -1))
    identity = model.identity.weight[packed.rows]
    torch.testing.assert_close(known - identity, unknown, rtol=1e-12, atol=1e-12)


def test_identity_dropout_leaves_out_whole_identities() -> None:
    model = encoder()
    model.config = replace(CONFIG, identity_dropout=0.5)
    packed = pack_windows(batch(), Budget(1000))
    text = model.items(packed.items, torch.full_like(packed.rows, -1))
    identity = model.identity.weight[packed.rows]
    kept, left_out = 0, 0
    for seed in range(40):
        torch.manual_seed(seed)
        added = model.items(packed.items, packed.rows) - text
        for row, own in zip(added, identity, strict=True):
            whole = torch.allclose(row, own, atol=1e-12)
            assert whole or torch.allclose(row, torch.zeros_like(row), atol=1e-12)
            kept, left_out = kept + whole, left_out + (not whole)
    assert kept + left_out == 240
    assert 90 < left_out < 150
