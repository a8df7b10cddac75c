"""Our own encoders on padded input, as a trainer without packing runs them: the rivals' wrapper.

The weights are the modules of `clue.nn`; only the way through them differs, a mask instead of the
packed layout. Token 0 pads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clue.nn.dual_encoder import DualEncoder
from clue.nn.transformer import Block


class PaddedViews(nn.Module):
    """What sentence-transformers asks of a model: features in, "sentence_embedding" out.

    Where `strong`, empty slots of histories are dropped and the texts of a mini-batch cut at its
    longest; otherwise every slot is computed.
    """

    def __init__(self, model: DualEncoder, *, strong: bool) -> None:
        """`model` keeps its weights."""
        super().__init__()
        self.model, self.strong = model, strong

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return unit vector of each history: `input_ids` (B, L, W), `attention_mask` (B, L)."""
        tokens, present = features["input_ids"], features["attention_mask"].bool()
        if self.strong:
            items = tokens[present]
            encoded = encode_items(self.model, items[:, : int((items > 0).sum(1).max())])
            vectors = encoded.new_zeros(*present.shape, encoded.shape[1])
            vectors = vectors.masked_scatter(present[..., None], encoded)
        else:
            vectors = encode_items(self.model, tokens.flatten(0, 1)).view(*present.shape, -1)
        return {"sentence_embedding": encode_histories(self.model, vectors, present)}


def encode_items(model: DualEncoder, tokens: Tensor) -> Tensor:
    """Return the vector (N, D) of each text of `tokens` (N, W); one without tokens is not read."""
    real = tokens > 0
    x = model.items.token(tokens) + model.items.position.weight[: tokens.shape[1]]
    return model.items.norm(_through(model.items.blocks, x, real))


def encode_histories(model: DualEncoder, vectors: Tensor, present: Tensor) -> Tensor:
    """Return the unit vector (B, E) of each history of item vectors (B, L, D), oldest first."""
    users = model.users
    ages = present.flip(1).cumsum(1).flip(1) - 1  # padding stands last, so its count is of no use
    x = users.enter(vectors) + users.recency(ages.clamp(min=0))
    return functional.normalize(users.leave(users.norm(_through(users.blocks, x, present))), dim=-1)


def _through(blocks: nn.ModuleList, x: Tensor, real: Tensor) -> Tensor:
    """Return the mean over the real positions after all blocks."""
    count, length, width = x.shape
    seen = real.clone()
    seen[:, 0] = True  # a softmax needs one key, even where a slot is empty
    mask = seen[:, None, None]
    for block in blocks:
        assert isinstance(block, Block)
        heads = block.attention.heads
        qkv = block.attention.qkv(block.norm_attention(x)).view(count, length, 3, heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + block.attention.out(mixed.transpose(1, 2).reshape(count, length, width))
        x = x + block.narrow(functional.gelu(block.widen(block.norm_mlp(x))))
    weights = real[..., None].to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


def pad(values: Tensor, lengths: Tensor) -> Tensor:
    """Return flat rows of these lengths (N,) as (N, longest), zeros behind each."""
    position = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    padded = values.new_zeros(position.shape)
    padded[position] = values
    return padded
