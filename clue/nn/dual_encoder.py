"""CLUE: both encoders and the temperature. It gives vectors; the loss belongs to the trainer.

Shin et al., "Scaling Law for Recommendation Models: Towards General-purpose User Representations",
AAAI 2023, arXiv 2111.11294.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clue.nn.item_encoder import ItemEncoder, ItemEncoderConfig
from clue.nn.layout import Chunk, Layout, encode_chunk
from clue.nn.user_encoder import UserEncoder, UserEncoderConfig

MAX_SCALE = 100.0  # CLIP's clamp on 1/temperature (Radford et al. 2021); logits stay below 100


@dataclass(frozen=True, kw_only=True)
class DualEncoderConfig:
    """Shape of CLUE. `initial_bias` is that of the sigmoid loss (SigLIP starts at -10)."""

    item: ItemEncoderConfig = field(default_factory=ItemEncoderConfig)
    user: UserEncoderConfig = field(default_factory=UserEncoderConfig)
    # At CLIP's 1/.07 untrained vectors cost 9.1 nats where chance is 7.6, and training first
    # collapses them to one: 100 steps lost on amazon_food_kitchen at batch 2,048.
    initial_scale: float = 5.0  # What cosines are multiplied by at the first step; learned.
    initial_bias: float | None = None


@dataclass(frozen=True)
class PackedViews:
    """What one forward pass reads: U distinct items once, and N histories that point at them.

    The values of `items` are tokens. Those of `histories` index the vectors of all item chunks, one
    after another, and `rows` (N,) says where view n lies among those of all history chunks.
    """

    items: tuple[Chunk, ...]
    histories: tuple[Chunk, ...]
    rows: Tensor


class DualEncoder(nn.Module):
    """The contrastive user encoder, shared over services."""

    def __init__(self, config: DualEncoderConfig, vocab_size: int) -> None:
        """`vocab_size` V is that of the corpus's tokenizer."""
        super().__init__()
        self.config = config
        self.items = ItemEncoder(config.item, vocab_size)
        self.users = UserEncoder(config.user, config.item.width)
        # shape (1,): sharded training refuses parameters without a dimension
        self.log_scale = nn.Parameter(torch.tensor([math.log(config.initial_scale)]))
        self.bias = (
            None
            if config.initial_bias is None
            else nn.Parameter(torch.tensor([config.initial_bias]))
        )

    def forward(
        self, views: PackedViews
    ) -> tuple[Float[Tensor, "N E"], Float[Tensor, " 1"], Float[Tensor, " 1"] | None]:
        """Return the unit vector of each view, in the order of the batch, 1/temperature, the bias.

        All that the loss reads comes out of here: sharded parameters are whole inside alone.
        """
        items = torch.cat([encode_chunk(self.items, chunk) for chunk in views.items])

        def encode_histories(events: Tensor, layout: Layout) -> Tensor:
            return self.users(items[events], layout)

        users = torch.cat([encode_chunk(encode_histories, chunk) for chunk in views.histories])
        return users[views.rows], self.scale(), None if self.bias is None else self.bias * 1

    def scale(self) -> Float[Tensor, " 1"]:
        """Return 1/temperature, clamped to [1, 100]."""
        return self.log_scale.clamp(0.0, math.log(MAX_SCALE)).exp()
