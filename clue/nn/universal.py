"""The universal encoder: parts that learn apart from one another, whose vectors stand side by side.

Winners of vectors that serve every task concatenate what different objectives made and do not sum
their losses; so each part has parameters of its own, and a step of training is one part's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig, PackedViews
from clue.nn.predictive import PackedWindows, PredictiveConfig, PredictiveEncoder

GROUP_WIDTH = 64  # of the tokens' factors, whose sum says of which group a text is


@dataclass(frozen=True, kw_only=True)
class FactorsConfig:
    """The blocks that have a closed form (clue/train/factors.py), and the share of the steps.

    `items` and `tokens` are the widths of the factors of items and of tokens, `aligned` that of the
    space in which services agree (clue/train/alignment.py): by `basis` directions of a service's
    words and a quarter as many of its items, and by the log counts of so many `groups` of texts,
    of none at 0. The aligned block has `aligned_length`, and the contrastive one length 1: in the
    cosine of both the one weighs by its square, the other by 1. Of the steps of a run, the share
    `contrastive` trains the contrastive part and the rest the predictive one.
    Where `start`, both parts' tables of tokens begin at the factors, and learn at `start_share` of
    the rate that they would have: at the full one they forget the start. Off, for it did not pay:
    R@10 of food and kitchen (valid) was .067 after 100 steps with it, .075 without.
    """

    items: int = 128
    tokens: int = 256
    aligned: int = 128
    basis: int = 512
    groups: int = 0
    aligned_length: float = 1.0
    contrastive: float = 0.2
    start: bool = False
    start_share: float = 0.1

    def __post_init__(self) -> None:
        """Validate widths and the share."""
        if min(self.items, self.tokens, self.aligned) < 1:
            raise ValueError(
                f"factors.items {self.items}, tokens {self.tokens} and aligned {self.aligned} are "
                "widths; give positive counts"
            )
        if self.basis < 4 or self.aligned_length <= 0:
            raise ValueError(
                f"factors.basis {self.basis} must be at least 4, and aligned_length "
                f"{self.aligned_length} positive"
            )
        if self.groups < 0 or self.groups == 1:
            raise ValueError(
                f"factors.groups is {self.groups}; give 2 or more groups, or 0 for none"
            )
        if not 0.01 <= self.contrastive <= 0.99:
            raise ValueError(
                f"factors.contrastive is {self.contrastive}; it is a share of the steps from .01 "
                "to .99: both parts are trained"
            )


class UniversalEncoder(nn.Module):
    """The contrastive and the predictive encoder, and the factors of items and of tokens."""

    def __init__(
        self,
        config: DualEncoderConfig,
        predictive: PredictiveConfig,
        factors: FactorsConfig,
        catalogue: int,
        vocab_size: int,
        services: int,
        marks: int = 1,
    ) -> None:
        """Of a corpus of so many items, tokens, services, and marks of events."""
        super().__init__()
        self.factors = factors
        self.contrastive = DualEncoder(config, vocab_size)
        self.predictive = PredictiveEncoder(
            predictive, catalogue, vocab_size, config.item.max_tokens, marks
        )
        # Of no gradient, and no buffers: DDP would send those to every process at each step.
        self.item_factors = nn.Parameter(torch.randn(catalogue, factors.items), requires_grad=False)
        self.token_factors = nn.Parameter(
            torch.randn(vocab_size, factors.tokens), requires_grad=False
        )
        shapes = {  # of clue/train/alignment.py
            "word_maps": (services, vocab_size, factors.aligned),
            "word_weights": (services, vocab_size),
            "item_maps": (catalogue, factors.aligned),
            "item_weights": (catalogue,),
            "offsets": (services, 2, factors.aligned),
        }
        if factors.groups:
            shapes |= {
                "group_words": (vocab_size, GROUP_WIDTH),
                "group_centres": (factors.groups, GROUP_WIDTH),
                "group_maps": (services, factors.groups, factors.aligned),
                "group_offsets": (services, factors.aligned),
            }
        self.aligned = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(shape), False) for name, shape in shapes.items()}
        )

    def forward(self, batch: PackedViews | PackedWindows) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what the loss reads of the part that the batch is for."""
        if isinstance(batch, PackedViews):
            return self.contrastive(batch)
        return self.predictive(batch)

    def rate_share(self, name: str) -> float:
        """Return the part of the optimiser's rate at which the parameter `name` learns."""
        part = self.predictive.config.lr_share if name.startswith("predictive.") else 1.0
        started = self.factors.start and name.endswith("token.weight")
        return part * self.factors.start_share if started else part
