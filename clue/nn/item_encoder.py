"""The item encoder: an item's text tokens become one vector."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from clue.nn.layout import Layout
from clue.nn.transformer import Block, initialise

TOKEN_STD = 0.3  # with which the tokens' vectors start


@dataclass(frozen=True, kw_only=True)
class ItemEncoderConfig:
    """Shape of the item encoder; `max_tokens` W is the longest text that it can read."""

    layers: int = 1  # Blocks over an item's tokens.
    width: int = 128  # Width of an item's vector.
    heads: int = 4  # Heads of attention in a layer; they divide the width.
    dropout: float = 0.0  # Share of activations dropped in training.
    max_tokens: int = 32


class ItemEncoder(nn.Module):
    """Token and position embeddings, blocks, the mean over an item's tokens."""

    def __init__(self, config: ItemEncoderConfig, vocab_size: int) -> None:
        """`vocab_size` V is that of the tokenizer the corpus was written with."""
        super().__init__()
        self.config = config
        self.token = nn.Embedding(vocab_size, config.width)
        self.position = nn.Embedding(config.max_tokens, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, bias=False)
        initialise(self, config.layers)
        nn.init.normal_(self.token.weight, std=TOKEN_STD)
        nn.init.zeros_(self.position.weight)

    def forward(self, tokens: Int[Tensor, " T"], layout: Layout) -> Float[Tensor, "U D"]:
        """Return the vector of each of the U items whose tokens lie in `layout`."""
        x = self.token(tokens) + self.position(layout.positions)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(layout.means(x))
