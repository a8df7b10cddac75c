"""Rates that suit all sizes: a weight's rate, decay, epsilon and start by width and depth.

With `base_width` set, `lr` is what suits a model of that width, and a matrix that reads n features
(for the MLP's second matrix: whose encoder has width n) learns at

    AdamW   lr x  base_width / n         Adam's update has entries of one size, and the gradient's
                                         rank is low: its effect on a feature grows with n
                                         (muP: Yang et al. 2022, arXiv 2203.03466, table 3)
    Muon    lr x (base_width / n)^(1/2)  an orthogonal update scaled to AdamW's size has the
                                         spectral norm .2 lr sqrt(n): only the root is too much
                                         (spectral condition: Yang et al. 2023, arXiv 2310.17813)

while embeddings, norms, the temperature and the bias, which add no terms as the width grows, keep
`lr`. lr x weight_decay, what a step takes from a weight, is the same at every width (Wang &
Aitchison 2024, arXiv 2405.13698). Of muP this is the part about learning rates alone.

With `base_layers` too it is all of CompleteP (Dey et al. 2025, arXiv 2505.01618, table 1, alpha 1),
m = n / base_width and d = L / base_layers for each stack of L blocks:

    branches      x + F(x) / d                    each layer learns as much, and 1 / L of the change
    start         variance of matrices over m     the branches' ends as at base_layers, not by L
    epsilon       over m, in the blocks over d    as the gradients shrink
    output        logits of tied items over m     contrastive vectors have length 1, and need none

The two factors in the forward pass stand in the weights instead. A branch's last matrix, and the
gain of the norm before a tied output, start at theirs over the factor, learn at lr over it and with
epsilon times it: to AdamW and Muon these are the same steps of the same function, so that a model
needs no key of its own, and none where it is served. A head's width must be the same at all sizes.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clue.nn.decoder import Decoder
from clue.nn.item_encoder import TOKEN_STD
from clue.nn.predictive import PredictiveEncoder
from clue.nn.transformer import is_branch_end, start_std


@dataclass(frozen=True)
class Base:
    """The width and the depth at which a rate was found; None where it follows no rule."""

    width: int | None
    layers: int | None


@dataclass(frozen=True)
class Part:
    """A weight's factors: `width` by its width, `branch` by what stands in it of the forward pass.

    `matrix` is one that decays, `eps` AdamW's epsilon over the config's, `start` what a fresh
    weight is multiplied by.
    """

    matrix: bool
    width: float = 1.0
    branch: float = 1.0
    eps: float = 1.0
    start: float = 1.0

    def rate(self, by_muon: bool) -> float:
        """Return the part of the optimiser's rate at which the weight learns."""
        return self.branch * (self.width**0.5 if by_muon else self.width)


def parts_of(model: nn.Module, base: Base) -> dict[str, Part]:
    """Return the part of each weight of `model` that learns, by its name."""
    tables: set[str] = set()
    outputs: set[str] = set()
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Embedding):
            tables.add(f"{prefix}weight")
        elif isinstance(module, Decoder | PredictiveEncoder):
            outputs.add(f"{prefix}norm.weight")
    depths = _depths(model)
    parts: dict[str, Part] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        matrix = weight.ndim >= 2 and name not in tables
        stack, inside, _ = name.rpartition("blocks.")
        layers = depths[f"{stack}blocks"] if inside else None
        parts[name] = _part(name, weight, matrix, layers, base, output=name in outputs)
    return parts


def _part(
    name: str, weight: Tensor, matrix: bool, layers: int | None, base: Base, *, output: bool
) -> Part:
    if base.width is None:
        return Part(matrix)
    features = weight.shape[-1] // 4 if name.endswith("narrow.weight") else weight.shape[-1]
    width = base.width / features
    if base.layers is None:
        return Part(matrix, width if matrix else 1.0)
    if weight.numel() == 1:  # the temperature and the bias have no width
        return Part(matrix)
    depth = base.layers / layers if layers else 1.0
    if is_branch_end(name):
        # fresh ones are over the root of 2 L already: together over L, from those of base.layers
        return Part(matrix, width, depth, width, (width * depth) ** 0.5)
    if output:
        return Part(matrix, branch=width, start=width)
    if matrix:
        return Part(matrix, width, 1.0, width * depth, width**0.5)
    return Part(matrix, eps=width * depth)


@torch.no_grad()
def rescale(model: nn.Module, base: Base) -> None:
    """Bring the fresh weights of `model` to the start that the rule gives them."""
    weights = dict(model.named_parameters())
    for name, part in parts_of(model, base).items():
        if part.start != 1.0:
            weights[name].mul_(part.start)


@torch.no_grad()
def nest(model: nn.Module, seed: int) -> None:
    """Draw the fresh weights of `model` anew, so that those of a smaller one are leading slices.

    A weight's column is a stream of its own: more rows go on with it, more columns have others. The
    parts of `qkv` are three matrices, whose leading rows are the leading heads, and a block is
    known by its number. Runs of two sizes then begin as alike as two sizes can. Zeros and ones
    stay.
    """
    depths = _depths(model)
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or not weight.requires_grad or not weight.any():
            continue
        stack, inside, _ = name.rpartition("blocks.")
        layers = depths[f"{stack}blocks"] if inside else 1
        std = TOKEN_STD if name.endswith("token.weight") else start_std(name, layers)
        count = 3 if name.endswith("qkv.weight") else 1
        rows, columns = weight.shape[0] // count, weight.shape[1]
        drawn = [_draw(seed, f"{name}/{part}", rows, columns) for part in range(count)]
        weight.copy_(torch.cat(drawn) * std)


def _draw(seed: int, name: str, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    known = zlib.crc32(name.encode())
    streams = (np.random.default_rng([seed, known, column]) for column in range(columns))
    each = [stream.standard_normal(rows, dtype=np.float32) for stream in streams]
    return torch.from_numpy(np.stack(each, 1))


def _depths(model: nn.Module) -> dict[str, int]:
    """Return the number of blocks of each stack, by its name."""
    return {
        name: len(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.endswith("blocks")
    }
