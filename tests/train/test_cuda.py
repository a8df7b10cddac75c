"""On a GPU: half precision, fixed shapes and the kernel of variable length equal the plain way."""

import numpy as np
import pytest
import torch

from clue.data.batches import Batch
from clue.nn.decoder import DecoderConfig, NextItemDecoder
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.layout import Layout, fixed_shape
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.losses.contrastive import LossConfig
from clue.train.packing import Budget
from clue.train.step import contrastive_forward

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOKENS, EVENTS, PAIRS = 16, 64, 256


def some_batch() -> Batch:
    draw = np.random.default_rng(0)
    token_lengths = np.sort(draw.integers(1, TOKENS + 1, 500))
    event_lengths = np.sort(draw.integers(1, EVENTS + 1, 2 * PAIRS))
    pairs = np.arange(PAIRS)
    return Batch(
        tokens=draw.integers(0, 900, token_lengths.sum()),
        token_lengths=token_lengths,
        events=draw.integers(0, len(token_lengths), event_lengths.sum()),
        event_lengths=event_lengths,
        rows=draw.permutation(2 * PAIRS),
        user=pairs,
        content_a=pairs,
        content_b=pairs + PAIRS,
        log_q=np.zeros(PAIRS, np.float32),
    )


def step(
    model: DualEncoder, budget: Budget, *, half: bool
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and every gradient of `some_batch`."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
        seen = contrastive_forward(model, some_batch(), budget, LossConfig(), torch.device("cuda"))
    seen.loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return float(seen.loss), found


def test_half_precision_with_the_kernel_equals_fp32_without() -> None:
    torch.manual_seed(0)
    config = DualEncoderConfig(
        item=ItemEncoderConfig(layers=1, width=128, max_tokens=TOKENS),
        user=UserEncoderConfig(layers=2, width=128, max_events=EVENTS),
    )
    model = DualEncoder(config, vocab_size=900).cuda()
    loss, gradients = step(model, Budget(4096), half=False)
    shapes = fixed_shape(4096, TOKENS), fixed_shape(4096, EVENTS)
    kept = Budget(4096, fixed=shapes)
    again = Budget(4096, kept=0.0, item_bytes=1.0, event_bytes=1.0, fixed=shapes)
    compared = 0
    for budget in (kept, again):
        found, theirs = step(model, budget, half=True)
        assert abs(found - loss) < 1e-3
        for name, gradient in gradients.items():
            # .6 % at widths of 256 on an H200, the rounding of bf16 itself
            assert float((theirs[name] - gradient).norm()) <= 0.03 * float(gradient.norm()) + 1e-7
            compared += 1
    assert compared == 2 * len(gradients) and len(gradients) > 25


def test_a_causal_decoder_reads_the_same_states() -> None:
    torch.manual_seed(0)
    decoder = NextItemDecoder(DecoderConfig(width=128), 500).cuda().eval().decoder
    longest = decoder.config.max_events
    lengths = np.sort(np.random.default_rng(0).integers(1, longest + 1, 60))
    items = torch.randint(500, (int(lengths.sum()),), device="cuda")
    shape = fixed_shape(len(items) + 300, longest)
    padded = torch.cat([items, items.new_zeros(shape.positions - len(items))])
    with torch.inference_mode():
        plain = decoder(items, Layout.of(lengths, "cuda"))
        with torch.autocast("cuda", dtype=torch.bfloat16):
            half = decoder(padded, Layout.fixed(lengths, shape, "cuda"))[: len(items)]
    assert float((plain - half.float()).norm()) < 0.02 * float(plain.norm())
