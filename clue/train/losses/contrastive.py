"""Contrastive losses over any number of pairs, in O(tile x B) memory, exact on many processes.

Symmetric InfoNCE (van den Oord et al. 2018, arXiv 1807.03748; both directions: Radford et al. 2021,
arXiv 2103.00020), with s_ij = scale a_i.b_j:
    loss = 1/(2B) sum_i [ lse_j s_ij + lse_j s_ji - 2 s_ii ]
Sigmoid loss (Zhai et al. 2023, arXiv 2303.15343), with z_ij = 1 for i = j and -1 otherwise:
    loss = -1/B sum_ij log sigmoid(z_ij (s_ij + bias))

Each process owns its rows `a` and sees all columns `b`, so that only one side is gathered; the
column sums are completed by all-reduces of (B,), and the gradient of `b` is summed back.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clue.train.distributed import all_gather, rank, world_size
from clue.train.losses.tile_loop import Plan, TileLoop


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Which loss, and who is no negative in it.

    `label_smoothing` e, InfoNCE alone, takes the target of a row or column to (1 - e) on its own
    pair plus e / n on each of its n unmasked candidates, the pair and hard negatives included.
    `mask_users` leaves out pairs of one user, `mask_content` pairs with the same content on either
    side. `log_q`, InfoNCE alone, subtracts `Identity.log_q` of a candidate from its logit, the
    pair's own included, so that users drawn often are not pushed away for it (Yi et al. 2019,
    "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations").
    """

    kind: Literal["infonce", "sigmoid"] = "infonce"
    label_smoothing: float = 0.0
    mask_users: bool = True
    mask_content: bool = True
    log_q: bool = False

    def __post_init__(self) -> None:
        """Validate that the choices fit together."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}; it is a share of the target in [0, 1)"
            )
        if self.kind == "sigmoid" and (self.label_smoothing or self.log_q):
            raise ValueError(
                f"label_smoothing {self.label_smoothing} and log_q {self.log_q} act on a softmax "
                "over candidates, and the sigmoid loss has none; leave them at 0 and false, or "
                "take kind: infonce"
            )


INFONCE = LossConfig()


@dataclass(frozen=True)
class Identity:
    """Who the B pairs are, as int64 ids: same user, or same content of a view, is no negative.

    `log_q` is the log of the probability with which the user of the pair is drawn.
    """

    user: Int[Tensor, " B"]
    content_a: Int[Tensor, " B"]
    content_b: Int[Tensor, " B"]
    log_q: Float[Tensor, " B"] | None = None


@dataclass(frozen=True)
class HardNegatives:
    """H further unit vectors that every `a` is told from, and no `b`; those of all processes.

    With `user` or `content`, int64 ids, they are masked for the rows of that user or of that
    `content_b`. `log_q` as in `Identity`. Every process brings as many.
    """

    vectors: Float[Tensor, "H E"]
    user: Int[Tensor, " H"] | None = None
    content: Int[Tensor, " H"] | None = None
    log_q: Float[Tensor, " H"] | None = None


@dataclass(frozen=True)
class ContrastiveOutput:
    """The loss (with gradient) and what the batch showed, over all processes.

    `recall` is the share of anchors `a` whose own pair is nearer than every other unmasked
    candidate, `masked` the share of candidates left out as false negatives; `positive` and
    `negative` are the mean cosines of the pairs and of the unmasked negatives.
    """

    loss: Tensor
    recall: Tensor
    masked: Tensor
    positive: Tensor
    negative: Tensor


def contrastive_loss(
    a: Float[Tensor, "B E"],
    b: Float[Tensor, "B E"],
    scale: Float[Tensor, " 1"],
    identity: Identity,
    config: LossConfig = INFONCE,
    *,
    bias: Float[Tensor, " 1"] | None = None,
    hard: HardNegatives | None = None,
) -> ContrastiveOutput:
    """Return loss of pairs of unit vectors (a_i, b_i), the mean over the pairs of all processes.

    `a`, `b`, `identity` and `hard` are this process's part; `bias` belongs to the sigmoid loss. All
    is in fp32 from here on (fp64 stays) whatever autocast says: bf16 logits double the gradient
    error. Gradients, those of `scale` and `bias` included, come out multiplied by the number of
    processes, since data-parallel training averages them. Raises ValueError where `bias` or `log_q`
    is missing or has no effect.
    """
    if (bias is None) == (config.kind == "sigmoid"):
        raise ValueError(
            f"loss kind {config.kind} with bias {bias}: the sigmoid loss needs one, and InfoNCE "
            "does not change with it and would give it no gradient"
        )
    log_q = identity.log_q, hard.log_q if hard is not None else identity.log_q
    if any((q is not None) != config.log_q for q in log_q):
        raise ValueError(
            f"log_q is {config.log_q} in the config; `identity` and `hard` must have their log_q "
            "where it is true, and no log_q where it is false"
        )
    dtype = torch.promote_types(a.dtype, torch.float32)
    shown = TileLoop.apply(  # pyright: ignore[reportGeneralTypeIssues]
        *(x if x is None else x.to(dtype) for x in (a, b, scale, bias, hard and hard.vectors)),
        _plan(identity, hard, config, dtype),
    )
    return ContrastiveOutput(*shown)


def _plan(
    identity: Identity, hard: HardNegatives | None, config: LossConfig, dtype: torch.dtype
) -> Plan:
    rows = len(identity.user)
    pairs: list[tuple[Tensor, Tensor | None]] = []
    if config.mask_users:
        pairs.append((identity.user, hard.user if hard else None))
    if config.mask_content:
        pairs.append((identity.content_a, None))
        pairs.append((identity.content_b, hard.content if hard else None))
    first = rank() * rows
    kinds: list[Tensor] = []
    repeated = torch.zeros(rows, dtype=torch.bool, device=identity.user.device)
    for local, further in pairs:
        gathered = all_gather(local, further)
        _, number, times = gathered.unique(return_inverse=True, return_counts=True)
        kinds.append(number.int())  # half the bytes to compare
        repeated |= times[number[first : first + rows]] > 1
    log_q = None
    if identity.log_q is not None:
        log_q = all_gather(identity.log_q, hard.log_q if hard else None).to(dtype)
    return Plan(
        kind=config.kind,
        smoothing=config.label_smoothing,
        first=first,
        count=rows * world_size(),
        kinds=kinds,
        repeated=repeated,
        log_q=log_q,
    )
