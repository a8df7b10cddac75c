"""The tiled losses equal the textbook ones, gradients included, and refuse what does not fit."""

# pyright: standard

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from clue.train.losses import tiles
from clue.train.losses.contrastive import (
    ContrastiveOutput,
    HardNegatives,
    Identity,
    LossConfig,
    contrastive_loss,
)

PAIRS, HARD, WIDTH = 12, 6, 5
INFONCE = LossConfig()
UNMASKED = LossConfig(mask_users=False, mask_content=False)
ALL = LossConfig(label_smoothing=0.1, log_q=True)
SIGMOID = LossConfig(kind="sigmoid")


@dataclass(frozen=True)
class Case:
    config: LossConfig
    hard: bool

    def __str__(self) -> str:
        changed = [f"{k}={v}" for k, v in vars(self.config).items() if v != vars(INFONCE)[k]]
        return ",".join([*changed, *(["hard"] if self.hard else [])]) or "infonce"


CASES = [
    Case(config, hard)
    for config in (
        INFONCE,
        UNMASKED,
        LossConfig(mask_users=False),
        LossConfig(mask_content=False),
        LossConfig(label_smoothing=0.1),
        LossConfig(log_q=True),
        replace(UNMASKED, label_smoothing=0.1, log_q=True),
        ALL,
        SIGMOID,
        replace(SIGMOID, mask_users=False, mask_content=False),
    )
    for hard in (False, True)
]


def unit(rows: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, WIDTH, generator=draw, dtype=dtype), dim=1)


def leaves() -> list[torch.Tensor]:
    """Return a, b, scale, bias and hard vectors."""
    a, b, hard = unit(PAIRS, 0), unit(PAIRS, 1), unit(HARD, 2)
    scale, bias = torch.tensor([[5.0], [-2.0]], dtype=torch.float64)
    return [x.clone().requires_grad_() for x in (a, b, scale, bias, hard)]


def identity(part: slice = slice(None), *, log_q: bool = False) -> Identity:
    """Pairs 1 and 7 are one user's; 2, 3 and 9 have a view in common; 10 and 11 are unlike all."""
    user, content_a, content_b = (torch.arange(PAIRS) + offset for offset in (0, 100, 200))
    user[7] = user[1]
    content_a[9] = content_a[2]
    content_b[3] = content_b[2]
    draws = torch.linspace(-4, -1, PAIRS, dtype=torch.float64)
    return Identity(user[part], content_a[part], content_b[part], draws[part] if log_q else None)


def hard_negatives(
    vectors: torch.Tensor, part: slice = slice(None), *, log_q: bool = False
) -> HardNegatives:
    """The second is of user 4, the fourth what pairs 2 and 3 have as view b."""
    user, content = torch.arange(HARD) + 300, torch.arange(HARD) + 400
    user[1], content[3] = 4, 202
    draws = torch.linspace(-3, -2, HARD, dtype=torch.float64)
    return HardNegatives(vectors, user[part], content[part], draws[part] if log_q else None)


def ours(case: Case, a: Any, b: Any, scale: Any, bias: Any, hard: Any) -> ContrastiveOutput:
    log_q = case.config.log_q
    return contrastive_loss(
        *(a, b, scale, identity(log_q=log_q), case.config),
        bias=bias if case.config.kind == "sigmoid" else None,
        hard=hard_negatives(hard, log_q=log_q) if case.hard else None,
    )


def kept(config: LossConfig) -> torch.Tensor:
    """Return which of the candidates (B, B + H) are compared with which rows, pair by pair."""
    ids, hard = identity(), hard_negatives(torch.zeros(HARD, WIDTH))
    assert hard.user is not None and hard.content is not None
    keep = torch.ones(PAIRS, PAIRS + HARD, dtype=torch.bool)
    for i in range(PAIRS):
        for j in range(PAIRS + HARD):
            inside, h = j < PAIRS, j - PAIRS
            user = ids.user[j] if inside else hard.user[h]
            content = ids.content_b[j] if inside else hard.content[h]
            same_a = inside and ids.content_a[i] == ids.content_a[j]
            alike = config.mask_users and ids.user[i] == user
            alike |= config.mask_content and (same_a or ids.content_b[i] == content)
            keep[i, j] = i == j or not alike
    return keep


def textbook(case: Case, a: Any, b: Any, scale: Any, bias: Any, hard: Any) -> torch.Tensor:
    """Return the loss by its definition, over one dense matrix."""
    config, keep = case.config, kept(case.config)
    logits = scale * a @ torch.cat([b, hard]).T
    if not case.hard:
        keep, logits = keep[:, :PAIRS], logits[:, :PAIRS]
    own = torch.eye(*logits.shape, dtype=torch.bool)
    if config.kind == "sigmoid":
        signed = torch.where(own, 1.0, -1.0) * (logits + bias)
        return -functional.logsigmoid(signed)[keep].sum() / PAIRS
    by_row, by_column = logits, logits[:, :PAIRS].T
    if config.log_q:
        draws = identity(log_q=True).log_q
        further = hard_negatives(hard, log_q=True).log_q
        assert draws is not None and further is not None
        by_row = by_row - torch.cat([draws, further])[: logits.shape[1]]
        by_column = by_column - draws
    losses: list[torch.Tensor] = []
    for i in range(PAIRS):
        for values, mask in ((by_row[i], keep[i]), (by_column[i], keep[:, i])):
            target = own[i, : len(values)][mask]
            losses.append(
                functional.cross_entropy(
                    values[mask][None],
                    target.int().argmax()[None],
                    label_smoothing=config.label_smoothing,
                )
            )
    return torch.stack(losses).mean()


def gradients(loss: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def use_tiles(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(tiles, "rows_per_tile", lambda *_: rows)


@pytest.mark.parametrize("tile", [1, 5, 12, 100])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tiled_equals_textbook(case: Case, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, tile)
    inputs = leaves()
    expected, found = textbook(case, *inputs), ours(case, *inputs).loss
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    found, expected = gradients(3 * found, inputs), gradients(3 * expected, inputs)
    assert (
        sum(g.abs().sum() > 0 for g in expected) == 3 + (case.config.kind == "sigmoid") + case.hard
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("config", [INFONCE, SIGMOID], ids=["infonce", "sigmoid"])
def test_what_the_batch_showed_by_hand(config: LossConfig) -> None:
    a = torch.eye(4)
    b = a[[0, 1, 3, 2]]  # pairs 2 and 3 are swapped: their anchors prefer each other's partner
    ids = Identity(torch.tensor([0, 0, 2, 3]), torch.arange(4), torch.arange(4))
    bias = torch.tensor([-3.0]) if config.kind == "sigmoid" else None
    hard = HardNegatives(torch.stack([a[1], -a[1]]))
    seen = contrastive_loss(a, b, torch.tensor([2.0]), ids, config, bias=bias, hard=hard)
    assert seen.recall.item() == 1 / 4  # pair 1 ties with a hard negative
    assert seen.masked.item() == pytest.approx(2 / 24)
    assert seen.positive.item() == 2 / 4
    assert seen.negative.item() == pytest.approx((2 + 1 - 1) / 18)


@pytest.mark.parametrize(
    "case", [Case(INFONCE, False), Case(ALL, True), Case(SIGMOID, True)], ids=str
)
def test_logits_of_a_hundred_do_not_overflow(case: Case) -> None:
    a, b, _, bias, hard = (x.detach() for x in leaves())
    inputs = [x.requires_grad_() for x in (a, -a, torch.tensor([100.0]).double(), bias, hard)]
    assert b.shape == a.shape
    single = [x.detach().float().requires_grad_() for x in inputs]
    expected, found = textbook(case, *inputs), ours(case, *single).loss
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found, expected = gradients(found, single), gradients(expected, inputs)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("case", [Case(INFONCE, False), Case(SIGMOID, False)], ids=str)
def test_bf16_vectors_are_contrasted_in_fp32(case: Case) -> None:
    inputs = [x.detach().bfloat16().requires_grad_() for x in leaves()]
    exact = [x.detach().float().requires_grad_() for x in inputs]
    expected = ours(case, *exact).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(case, *inputs).loss
        found_gradients = gradients(found, inputs)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    for one, other in zip(found_gradients, gradients(expected, exact), strict=True):
        assert torch.equal(one, other.bfloat16())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"kind": "sigmoid", "label_smoothing": 0.1}, "take kind: infonce"),
        ({"kind": "sigmoid", "log_q": True}, "take kind: infonce"),
    ],
)
def test_configs_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**changes)


def test_inputs_that_do_not_fit_are_refused() -> None:
    a, b, scale, bias, hard = leaves()
    plain, drawn = identity(), identity(log_q=True)
    with pytest.raises(ValueError, match="sigmoid loss needs one"):
        contrastive_loss(a, b, scale, plain, SIGMOID)
    with pytest.raises(ValueError, match="does not change with it"):
        contrastive_loss(a, b, scale, plain, INFONCE, bias=bias)
    for ids, config, further in (
        (plain, LossConfig(log_q=True), None),
        (drawn, INFONCE, None),
        (drawn, LossConfig(log_q=True), hard_negatives(hard)),
    ):
        with pytest.raises(ValueError, match="must have their log_q"):
            contrastive_loss(a, b, scale, ids, config, hard=further)
