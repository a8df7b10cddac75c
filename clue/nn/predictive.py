"""The predictive block: a causal encoder over a user's events, whose last state is the vector.

An item's vector is that of its text plus one of its own, its identity, which is left out at random
in training: an item that nobody has met yet is then read from its text alone. After every event
the state predicts the next item by its inner product with the same vectors (SASRec: Kang &
McAuley 2018, arXiv 1808.09781; text beside identity: Hou et al. 2022, UniSRec, arXiv 2206.05941).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clue.nn.item_encoder import ItemEncoder, ItemEncoderConfig
from clue.nn.layout import Chunk, Layout, encode_chunk
from clue.nn.transformer import Block, initialise


@dataclass(frozen=True, kw_only=True)
class PredictiveConfig:
    """Shape of the predictive block; `max_events` L is the longest history that it reads.

    There are `layers` of attention with `heads` that divide the `width` D, which is also that of
    the user's block; `dropout` acts on events and on the branches of each layer. `text_width` is
    that of the item's bag of tokens, `identity_dropout` the share of items of a batch whose
    identity is left out, `lr_share` the block's part of the optimiser's rate.
    """

    layers: int = 2
    width: int = 64
    heads: int = 2
    dropout: float = 0.3
    text_width: int = 64
    identity_dropout: float = 0.1
    max_events: int = 50
    lr_share: float = 1.0

    def __post_init__(self) -> None:
        """Validate sizes and rates."""
        for name in ("layers", "width", "heads", "text_width", "max_events"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")
        for name in ("dropout", "identity_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a rate in [0, 1)")
        if self.lr_share <= 0:
            raise ValueError(f"lr_share is {self.lr_share}; it is a positive part of the rate")


@dataclass(frozen=True)
class PackedWindows:
    """What one forward pass reads: U distinct items once, and N windows of events.

    The values of `items` are tokens, `rows` (U,) the items' rows of the catalogue, -1 for one
    outside it. The values of `histories`, `targets` (E,) and `candidates` (K,) index the U items;
    `sizes` are the real positions of each chunk of histories.
    """

    items: tuple[Chunk, ...]
    rows: Int[Tensor, " U"]
    histories: tuple[Chunk, ...]
    sizes: tuple[int, ...]
    targets: Int[Tensor, " E"]
    candidates: Int[Tensor, " K"]


class PredictiveEncoder(nn.Module):
    """Items from text and identity, causal blocks with rotary positions, a norm."""

    def __init__(
        self, config: PredictiveConfig, catalogue: int, vocab_size: int, max_tokens: int
    ) -> None:
        """`catalogue` V items have an identity; texts have at most `max_tokens` of the tokenizer's
        `vocab_size` tokens.
        """
        super().__init__()
        self.config = config
        self.identity = nn.Embedding(catalogue, config.width)
        shape = ItemEncoderConfig(layers=0, width=config.text_width, max_tokens=max_tokens)
        self.text = ItemEncoder(shape, vocab_size)
        self.enter = nn.Linear(config.text_width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.dropout, causal=True, rotary=True)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, bias=False)
        for module in (self.identity, self.enter, self.blocks):
            initialise(module, config.layers)

    def items(self, chunks: tuple[Chunk, ...], rows: Int[Tensor, " U"]) -> Float[Tensor, "U D"]:
        """Return the vector of each item whose tokens lie in `chunks`, its identity added."""
        texts = torch.cat([encode_chunk(self.text, chunk) for chunk in chunks])
        kept = rows >= 0
        if self.training and self.config.identity_dropout:
            kept = kept & (
                torch.rand(rows.shape, device=rows.device) >= self.config.identity_dropout
            )
        identity = self.identity(rows.clamp_min(0)) * kept[:, None]
        return self.enter(texts) + identity

    def states(self, events: Float[Tensor, "T D"], layout: Layout) -> Float[Tensor, "T D"]:
        """Return the state after each event of histories laid out by `layout`, oldest first."""
        x = self.dropout(events)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    def last(self, events: Float[Tensor, "T D"], layout: Layout) -> Float[Tensor, "N D"]:
        """Return the state after the last event of each history: the user's vector."""
        x = self.dropout(events)
        *lower, top = self.blocks
        for block in lower:
            x = block(x, layout)
        assert isinstance(top, Block)
        return self.norm(top.last(x, layout))

    def forward(
        self, windows: PackedWindows
    ) -> tuple[Float[Tensor, "E D"], Float[Tensor, "K D"], Float[Tensor, "E D"]]:
        """Return the state after each event, the candidates' vectors, and those of the targets.

        All that the loss reads comes out of here: sharded parameters are whole inside alone.
        """
        items = self.items(windows.items, windows.rows)

        def encode_histories(events: Tensor, layout: Layout) -> Tensor:
            return self.states(items[events], layout)

        encoded = (encode_chunk(encode_histories, chunk) for chunk in windows.histories)
        sized = zip(encoded, windows.sizes, strict=True)
        states = torch.cat([x[:size] for x, size in sized])
        return states, items[windows.candidates], items[windows.targets]
