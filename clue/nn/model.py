"""CLUE: both encoders and the temperature. It gives vectors; the loss belongs to the trainer.

Shin et al., "Scaling Law for Recommendation Models: Towards General-purpose User Representations",
AAAI 2023, arXiv 2111.11294.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clue.nn.attention import Layout
from clue.nn.item_encoder import ItemEncoder, ItemEncoderConfig
from clue.nn.user_encoder import UserEncoder, UserEncoderConfig

MAX_SCALE = 100.0  # CLIP's clamp on 1/temperature (Radford et al. 2021); logits stay below 100


@dataclass(frozen=True, kw_only=True)
class ClueConfig:
    """Shape of CLUE. `chunk_tokens` bounds memory: items are encoded in chunks of so many tokens,
    recomputed in backward; 0 keeps everything.
    """

    item: ItemEncoderConfig = field(default_factory=ItemEncoderConfig)
    user: UserEncoderConfig = field(default_factory=UserEncoderConfig)
    # At CLIP's 1/.07 untrained vectors cost 9.1 nats where chance is 7.6, and training first
    # collapses them to one: 100 steps lost on amazon_food_kitchen at batch 2,048.
    initial_scale: float = 5.0
    chunk_tokens: int = 0


@dataclass(frozen=True)
class PackedViews:
    """What one forward pass reads: U distinct items once, and N histories that point at them.

    `tokens` (T,) and `items` lay out the distinct items; `events` (E,) index them and `histories`
    lays out the views; `rows` (N,) says where view n lies among the sorted histories.
    """

    tokens: Tensor
    items: Layout
    events: Tensor
    histories: Layout
    rows: Tensor


class Clue(nn.Module):
    """The contrastive user encoder, shared over services."""

    def __init__(self, config: ClueConfig, vocab_size: int) -> None:
        """`vocab_size` V is that of the corpus's tokenizer."""
        super().__init__()
        self.config = config
        self.items = ItemEncoder(config.item, vocab_size)
        self.users = UserEncoder(config.user, config.item.width)
        # shape (1,): sharded training refuses parameters without a dimension
        self.log_scale = nn.Parameter(torch.tensor([math.log(config.initial_scale)]))

    def forward(self, views: PackedViews) -> tuple[Float[Tensor, "N E"], Float[Tensor, " 1"]]:
        """Gives the unit vector of each view, in the order of the batch, and 1/temperature."""
        item_vectors = self.encode_items(views.tokens, views.items)
        users = self.users(item_vectors[views.events], views.histories)
        return users[views.rows], self.scale()

    def scale(self) -> Float[Tensor, " 1"]:
        """Gives 1/temperature, clamped to [1, 100]."""
        return self.log_scale.clamp(0.0, math.log(MAX_SCALE)).exp()

    def encode_items(self, tokens: Int[Tensor, " T"], layout: Layout) -> Float[Tensor, "U D"]:
        """Gives the vector of each distinct item, chunk by chunk when `chunk_tokens` is set."""
        budget = self.config.chunk_tokens
        if not budget or len(tokens) <= budget:
            return self.items(tokens, layout)
        if not torch.is_grad_enabled():
            return torch.cat([self.items(t, lay) for t, lay in split(tokens, layout, budget)])
        return torch.cat(
            [
                checkpoint(self.items, chunk, chunk_layout, use_reentrant=False)
                for chunk, chunk_layout in split(tokens, layout, budget)
            ]
        )


def split(tokens: Tensor, layout: Layout, budget: int) -> list[tuple[Tensor, Layout]]:
    """Gives the same sequences in chunks of at most `budget` positions each.

    A single sequence longer than the budget is a chunk of its own.
    """
    chunks: list[tuple[Tensor, Layout]] = []
    runs: list[tuple[int, int]] = []
    start = used = sequence = 0

    def close() -> None:
        nonlocal start, used, sequence
        count = sum(c for _, c in runs)
        offsets = layout.offsets[sequence : sequence + count + 1]
        chunks.append((tokens[start : start + used], Layout(offsets - offsets[0], tuple(runs))))
        start, used, sequence = start + used, 0, sequence + count
        runs.clear()

    for length, count in layout.runs:
        left = count
        while left:
            if runs and used + length > budget:
                close()
            taken = min(left, max(1, (budget - used) // length))
            runs.append((length, taken))
            used, left = used + taken * length, left - taken
    if runs:
        close()
    return chunks
