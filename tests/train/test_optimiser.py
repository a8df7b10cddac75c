"""The learning rate by hand, and which weights decay."""

import pytest
import torch

from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.model import Clue, ClueConfig
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.optimiser import OptimizerConfig, learning_rate, make_optimizer


def test_warm_up_then_cosine_by_hand() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=4, final_lr_share=0.1)
    rates = [learning_rate(config, step, 14) for step in (0, 3, 4, 9, 14)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.55, 0.1])


def test_matrices_decay_and_embeddings_norms_and_temperature_do_not() -> None:
    config = ClueConfig(
        item=ItemEncoderConfig(layers=1, width=8, heads=2),
        user=UserEncoderConfig(layers=1, width=8, heads=2, embedding=8),
    )
    model = Clue(config, vocab_size=20)
    optimizer = make_optimizer(model, OptimizerConfig(weight_decay=0.3))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, others = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert decayed | others == set(names.values())
    assert others == {
        *("log_scale", "items.token.weight", "items.position.weight", "users.recency.weight"),
        *(name for name in names.values() if "norm" in name),
    }


def test_a_step_without_gradient_moves_only_what_decays() -> None:
    config = ClueConfig(
        item=ItemEncoderConfig(layers=1, width=8, heads=2),
        user=UserEncoderConfig(layers=1, width=8, heads=2, embedding=8),
    )
    model = Clue(config, vocab_size=20)
    optimizer = make_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(model.log_scale, before["log_scale"])
    entered = model.users.enter.weight
    torch.testing.assert_close(entered, before["users.enter.weight"] * (1 - 0.05))
