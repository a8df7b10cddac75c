"""The next-item model: a decoder over a user's item ids, whose last state is the user's vector.

A causal pre-norm transformer over item embeddings, which are also the output's ("tied"): the logit
of item j after position t is state_t . e_j (SASRec: Kang & McAuley 2018, arXiv 1808.09781). Scaled
up it is the model of Zhang et al. 2024, "Scaling Law of Large Sequential Recommendation Models"
(arXiv 2311.11351), sizes in configs/pretrain/lsrm: 12 L D^2 parameters beside the embeddings.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clue.nn.layout import Chunk, Layout, encode_chunk
from clue.nn.transformer import Block, initialise


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of the next-item model; `max_events` L is the longest history that it can read.

    `dropout` are the layers' rates, from the lowest to the top: one for all, two for the ends of a
    line (the default falls, as in Zhang et al. 2024), or one for each layer. The sum of embeddings
    is dropped at the lowest layer's rate.
    """

    layers: int = 2  # How many blocks.
    width: int = 64  # Width D of the model and of the user's vector.
    heads: int = 2  # Heads of attention in a layer; they divide the width.
    dropout: list[float] = field(default_factory=lambda: [0.3, 0.1])
    positions: Literal["learned", "rotary"] = "learned"
    max_events: int = 50

    def __post_init__(self) -> None:
        """Validate sizes and rates."""
        for name in ("layers", "width", "heads", "max_events"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive count")
        if len(self.dropout) not in {1, 2, self.layers}:
            raise ValueError(
                f"dropout has {len(self.dropout)} rates for {self.layers} layers; give one for "
                "all, two for the ends of a line, or one for each layer"
            )
        if not all(0 <= rate < 1 for rate in self.dropout):
            raise ValueError(f"dropout is {self.dropout}; rates lie in [0, 1)")

    @property
    def layer_dropout(self) -> list[float]:
        """The rate of each layer, from the lowest to the top."""
        given = np.linspace(0, 1, len(self.dropout))
        return np.interp(np.linspace(0, 1, self.layers), given, self.dropout).tolist()

    @property
    def non_embedding(self) -> int:
        """The parameters of the matrices of all layers, N = 12 L D^2: what the scaling law reads.

        Attention has 4 D^2 and the MLP 8 D^2; the 2 L + 1 norms have D each and are not counted.
        """
        return 12 * self.layers * self.width**2


@dataclass(frozen=True)
class PackedSequences:
    """What one forward pass reads: sequences of catalogue rows, and the rows whose vectors are due.

    `chunks` hold the sequences, shortest first, `sizes` how many positions of each are real. With
    `candidates` (K,), those rows' vectors and those of `targets` (T,) come out, else the catalogue.
    """

    chunks: tuple[Chunk, ...]
    sizes: tuple[int, ...]
    targets: Int[Tensor, " T"]
    candidates: Int[Tensor, " K"] | None = None


class Decoder(nn.Module):
    """Item and position embeddings, causal blocks, a norm."""

    def __init__(self, config: DecoderConfig, catalogue: int) -> None:
        """`catalogue` V is the number of items."""
        super().__init__()
        self.config = config
        self.item = nn.Embedding(catalogue, config.width)
        rotary = config.positions == "rotary"
        self.position = None if rotary else nn.Embedding(config.max_events, config.width)
        rates = config.layer_dropout
        self.dropout = nn.Dropout(rates[0])
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, rate, causal=True, rotary=rotary) for rate in rates
        )
        self.norm = nn.LayerNorm(config.width, bias=False)
        initialise(self, config.layers)

    def forward(self, items: Int[Tensor, " T"], layout: Layout) -> Float[Tensor, "T D"]:
        """Return the state after each position of sequences laid out by `layout`, oldest first."""
        x = self.item(items)
        if self.position is not None:
            x = x + self.position(layout.positions)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    def last(self, items: Int[Tensor, " T"], layout: Layout) -> Float[Tensor, "N D"]:
        """Return the state after the last position of each sequence: the user's vector."""
        return self(items, layout)[layout.offsets[1:].long() - 1]


class NextItemDecoder(nn.Module):
    """The decoder and its tied output, as training and its processes share them."""

    def __init__(self, config: DecoderConfig, catalogue: int) -> None:
        """`catalogue` V is the number of items."""
        super().__init__()
        self.config = config
        self.decoder = Decoder(config, catalogue)

    def forward(
        self, views: PackedSequences
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "C D"], Float[Tensor, "T D"] | None]:
        """Return the state after each position, the candidates' vectors, and the targets'.

        All that the loss reads comes out of here: sharded parameters are whole inside alone.
        Without candidates the second are all V items' and there are no third.
        """
        encoded = (encode_chunk(self.decoder, chunk) for chunk in views.chunks)
        states = torch.cat([x[:size] for x, size in zip(encoded, views.sizes, strict=True)])
        item = self.decoder.item
        if views.candidates is None:
            return states, item.weight * 1, None
        return states, item(views.candidates), item(views.targets)
