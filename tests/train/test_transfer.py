"""What grows with a size without the rule does not with it, and at the base nothing changes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clue.nn.decoder import DecoderConfig, NextItemDecoder
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.layout import Layout
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.optimiser import OptimizerConfig, make_optimizers, set_learning_rate
from clue.train.transfer import Base, Part, nest, parts_of, rescale

WORDS, ITEMS, USERS, LENGTH = 60, 48, 24, 6
BASE_WIDTH, BASE_LAYERS = 32, 2
Kind = Literal["adamw", "muon"]
Make = Callable[[int, int], nn.Module]
RULE = OptimizerConfig(
    kind="adamw", lr=4e-3, base_width=BASE_WIDTH, base_layers=BASE_LAYERS, eps=1e-9
)
NO_RULE = replace(RULE, base_width=None, base_layers=None)


def encoders(width: int, layers: int) -> DualEncoder:
    torch.manual_seed(0)
    item = ItemEncoderConfig(layers=layers, width=width, heads=width // 8)
    user = UserEncoderConfig(
        layers=layers, width=width, heads=width // 8, embedding=2 * width, bag=width, max_events=8
    )
    return DualEncoder(DualEncoderConfig(item=item, user=user), WORDS)


def decoder(width: int, layers: int) -> NextItemDecoder:
    torch.manual_seed(0)
    config = DecoderConfig(
        width=width, layers=layers, heads=width // 8, dropout=[0.0], max_events=LENGTH
    )
    return NextItemDecoder(config, ITEMS)


class Task:
    """Random texts and histories, the same at all sizes, and what a model makes of them."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(WORDS, (ITEMS * 4,), generator=draw)
        self.texts = Layout.of(np.full(ITEMS, 4))
        self.events = torch.randint(ITEMS, (2, USERS * LENGTH), generator=draw)
        self.histories = Layout.of(np.full(USERS, LENGTH))

    def loss(self, model: nn.Module) -> Tensor:
        if isinstance(model, DualEncoder):
            items = model.items(self.tokens, self.texts)
            one, other = (model.users(items[events], self.histories) for events in self.events)
            return functional.cross_entropy(one @ other.T * model.scale(), torch.arange(USERS))
        return functional.cross_entropy(self.logits(model), self.events[1])

    def logits(self, model: nn.Module) -> Tensor:
        assert isinstance(model, NextItemDecoder)
        states = model.decoder(self.events[0], self.histories)
        return states @ model.decoder.item.weight.T

    @torch.no_grad()
    def activations(self, model: nn.Module) -> list[Tensor]:
        """What the rule holds: the streams at the end of each stack, and a decoder's logits."""
        seen: list[Tensor] = []
        hooks = [
            module.register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
            for name, module in model.named_modules()
            if name in ("items.norm", "users.norm", "decoder.norm")
        ]
        self.loss(model)
        for hook in hooks:
            hook.remove()
        return [*seen, *([] if isinstance(model, DualEncoder) else [self.logits(model)])]


def changes(model: nn.Module, config: OptimizerConfig, steps: int = 4) -> list[float]:
    """Return by how much (root mean square) each activation moved in a few steps."""
    task = Task()
    rescale(model, config.base)
    before = task.activations(model)
    after = task.activations(trained(model, config, steps))
    return [float((b - a).square().mean().sqrt()) for a, b in zip(before, after, strict=True)]


def trained(model: nn.Module, config: OptimizerConfig, steps: int = 3) -> nn.Module:
    """Return the model after a few steps."""
    task, optimizers = Task(), make_optimizers(model, config)
    set_learning_rate(optimizers, config.lr)
    for _ in range(steps):
        model.zero_grad()
        task.loss(model).backward()
        for optimizer in optimizers:
            optimizer.step()
    return model


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("make", [encoders, decoder])
def test_activations_move_alike_at_all_sizes_and_not_so_without_the_rule(
    make: Make, kind: Kind
) -> None:
    rule, none = replace(RULE, kind=kind), replace(NO_RULE, kind=kind)
    base = changes(make(32, 2), rule)
    checked = 0
    for width, layers in ((128, 2), (32, 8)):
        ruled = np.divide(changes(make(width, layers), rule), base)
        free = np.divide(changes(make(width, layers), none), base)
        streams = slice(0, 2 if make is encoders else 1)
        assert (ruled > 0.6).all() and (ruled < 1.3).all(), f"{width}x{layers}: {ruled}"
        assert free[streams].max() > 1.35 and free[streams].max() > 1.35 * ruled[streams].max()
        checked += 1
    assert checked == 2


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("make", [encoders, decoder])
def test_at_the_base_nothing_changes(make: Make, kind: Kind) -> None:
    ruled = make(BASE_WIDTH, BASE_LAYERS)
    rescale(ruled, RULE.base)
    trained(ruled, replace(RULE, kind=kind))
    free = dict(
        trained(make(BASE_WIDTH, BASE_LAYERS), replace(NO_RULE, kind=kind)).named_parameters()
    )
    checked = 0
    for name, weight in ruled.named_parameters():
        assert torch.equal(weight, free[name]), name
        checked += 1
    assert checked == len(free) >= 15


def test_what_stands_in_the_weights_is_what_the_paper_puts_into_the_forward_pass() -> None:
    """Trains CompleteP as its table 1 has it, factors in the forward pass, beside the rule."""
    width, layers = 64, 6
    m, d = width / BASE_WIDTH, layers / BASE_LAYERS
    folded = decoder(width, layers)
    rescale(folded, RULE.base)
    plain = decoder(width, layers)
    groups: list[dict[str, Any]] = []
    for name, weight in plain.named_parameters():
        matrix, inside = weight.ndim == 2 and ".item." not in name, "blocks" in name
        matrix &= "position" not in name
        if name.endswith(("out.weight", "narrow.weight")):  # GPT-2's root of 2 L, of the base's L
            weight.data *= d**0.5
        weight.data /= m**0.5 if matrix else 1.0
        share = 1 / m if matrix else 1.0
        eps = RULE.eps / (m * d if inside else m)
        decay = RULE.weight_decay * m if matrix else 0.0
        groups.append({"params": [weight], "lr_share": share, "eps": eps, "weight_decay": decay})
    for block in plain.decoder.blocks:
        for part in (block.get_submodule("attention"), block.get_submodule("narrow")):
            part.register_forward_hook(lambda *seen: seen[2] / d)
    plain.decoder.norm.register_forward_hook(lambda *seen: seen[2] / m)
    optimizer = torch.optim.AdamW(groups, betas=RULE.betas)
    set_learning_rate([optimizer], RULE.lr)
    task = Task()
    for _ in range(5):
        plain.zero_grad()
        task.loss(plain).backward()
        optimizer.step()
    trained(folded, RULE, steps=5)
    start = task.logits(decoder(width, layers)) / m
    moved = task.logits(plain) - start
    assert moved.norm() > 0.1 * start.norm()
    assert (task.logits(folded) - task.logits(plain)).norm() < 1e-3 * moved.norm()


def test_the_parts_by_hand() -> None:
    parts = parts_of(encoders(64, 8), Base(32, 2))
    assert parts["users.blocks.7.attention.qkv.weight"] == Part(True, 0.5, 1.0, 0.125, 0.5**0.5)
    assert parts["users.blocks.7.narrow.weight"] == Part(True, 0.5, 0.25, 0.5, 0.125**0.5)
    assert parts["users.blocks.7.narrow.weight"].rate(by_muon=False) == 0.125
    assert parts["users.blocks.7.narrow.weight"].rate(by_muon=True) == 0.25 * 0.5**0.5
    assert parts["users.blocks.0.norm_mlp.weight"] == Part(False, eps=0.125)
    assert parts["items.token.weight"] == Part(False, eps=0.5)
    assert parts["users.enter.weight"] == Part(True, 0.5, 1.0, 0.5, 0.5**0.5)
    assert parts["log_scale"] == Part(False)
    assert parts_of(decoder(64, 2), Base(32, 2))["decoder.norm.weight"] == Part(
        False, branch=0.5, start=0.5
    )
    # the rule for width alone, as it was before there was one for depth
    assert parts_of(encoders(64, 8), Base(32, None))["users.blocks.7.narrow.weight"] == Part(
        True, 0.5
    )


def test_nested_weights_are_leading_slices_of_the_larger_models() -> None:
    small, large = encoders(32, 1), encoders(64, 3)
    nest(small, seed=5)
    nest(large, seed=5)
    wide = dict(large.named_parameters())
    checked = 0
    for name, weight in small.named_parameters():
        if weight.ndim < 2:
            continue
        other = wide[name].detach()
        if name.endswith("qkv.weight"):  # queries, keys and values each
            pieces = [*zip(weight.chunk(3), other.chunk(3), strict=True)]
        else:
            pieces = [(weight, other)]
        ends = name.endswith(("out.weight", "narrow.weight"))
        for one, whole in pieces:
            leading = whole[: one.shape[0], : one.shape[1]] * (3**0.5 if ends else 1.0)
            torch.testing.assert_close(one.detach(), leading)
            checked += 1
    assert checked == 19
    again = encoders(32, 1)
    nest(again, seed=6)
    assert not torch.equal(again.users.enter.weight, small.users.enter.weight)
    # as large as fresh ones are
    fresh = dict(encoders(64, 3).named_parameters())
    for name, weight in large.named_parameters():
        if weight.ndim >= 2 and weight.any():
            assert weight.std().item() == pytest.approx(fresh[name].std().item(), rel=0.1), name
