"""The learning rate by hand, which weights are in which group, and what Muon moves."""

import pytest
import torch

from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.optimiser import (
    OptimizerConfig,
    decay_start,
    learning_rate,
    make_optimizers,
    make_sgd,
    set_learning_rate,
)

ITEM_MATRICES = {
    f"items.blocks.0.{name}.weight"
    for name in ("attention.qkv", "attention.out", "widen", "narrow")
}
USER_MATRICES = {name.replace("items", "users") for name in ITEM_MATRICES}
ITEM_READERS = {"users.enter.weight", "users.bag.weight"}


@pytest.fixture
def model() -> DualEncoder:
    """Items of width 8, users of width 16, vectors of 4: every matrix tells its width."""
    torch.manual_seed(0)
    config = DualEncoderConfig(
        item=ItemEncoderConfig(layers=1, width=8, heads=2),
        user=UserEncoderConfig(layers=1, width=16, heads=2, embedding=6, bag=2),
    )
    return DualEncoder(config, vocab_size=20)


def groups_of(
    model: DualEncoder, config: OptimizerConfig
) -> list[tuple[str, float, float, set[str]]]:
    """Return (optimiser, lr_share, weight_decay, names) of every group."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        (
            type(optimizer).__name__,
            group["lr_share"],
            group["weight_decay"],
            {names[id(p)] for p in group["params"]},
        )
        for optimizer in make_optimizers(model, config)
        for group in optimizer.param_groups
    ]


def undecayed(model: DualEncoder) -> set[str]:
    """Names the embeddings, the norms and the temperature."""
    return {
        *("log_scale", "items.token.weight", "items.position.weight", "users.recency.weight"),
        "users.activity.weight",
        *(name for name, _ in model.named_parameters() if "norm" in name),
    }


def test_warm_up_then_cosine_by_hand() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=4, final_lr_share=0.1)
    rates = [learning_rate(config, step, 14) for step in (0, 3, 4, 9, 14)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.55, 0.1])


def test_warm_up_then_constant_then_one_minus_root_by_hand() -> None:
    config = OptimizerConfig(
        lr=1.0, schedule="wsd", warmup_steps=4, decay_share=0.2, final_lr_share=0.1
    )
    assert decay_start(config, 20) == 16
    rates = [learning_rate(config, step, 20) for step in (0, 3, 4, 16, 17, 20)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 1.0, 0.1 + 0.9 * 0.5, 0.1])


def test_the_constant_phase_does_not_know_how_long_the_run_is() -> None:
    config = OptimizerConfig(schedule="wsd", warmup_steps=5, decay_share=0.25)
    short, long = ([learning_rate(config, i, steps) for i in range(15)] for steps in (20, 400))
    assert short == long
    assert learning_rate(config, 16, 20) < learning_rate(config, 16, 400)


def test_warm_up_then_constant_for_ever_by_hand() -> None:
    config = OptimizerConfig(lr=1.0, schedule="constant", warmup_steps=4)
    for steps in (6, 10**6):
        rates = [learning_rate(config, step, steps) for step in (0, 1, 3, 4, 5, 10**6)]
        assert rates == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0, 1.0])
    at_once = OptimizerConfig(lr=1.0, schedule="constant", warmup_steps=0)
    assert learning_rate(at_once, 0, 1) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr is 0"),
        ({"decay_share": 1.5}, r"decay_share is 1\.5"),
        ({"ema": 1.0}, r"ema is 1\.0"),
        ({"base_width": 0}, "base_width is 0"),
        ({"base_layers": 2}, "base_layers is 2 and base_width None"),
        ({"base_layers": 0, "base_width": 8}, "base_layers is 0"),
        ({"patience": -1}, "patience is -1"),
        ({"min_gain": -0.1}, r"min_gain is -0\.1"),
        ({"sgd_lr": -0.1, "patience": 5}, r"sgd_lr is -0\.1"),
        ({"sgd_lr": 0.1}, r"sgd_lr is 0\.1 and patience is 0.*set patience"),
    ],
)
def test_what_is_no_rate_share_or_width_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**change)  # pyright: ignore[reportArgumentType]


def test_matrices_decay_and_embeddings_norms_and_temperature_do_not(model: DualEncoder) -> None:
    config = OptimizerConfig(kind="adamw", weight_decay=0.3)
    found = sorted(groups_of(model, config), key=lambda group: group[2])
    matrices = ITEM_MATRICES | USER_MATRICES | ITEM_READERS | {"users.leave.weight"}
    assert found == [("AdamW", 1.0, 0.0, undecayed(model)), ("AdamW", 1.0, 0.3, matrices)]


def test_muon_takes_the_hidden_matrices_and_leaves_the_last_one(model: DualEncoder) -> None:
    config = OptimizerConfig(kind="muon", weight_decay=0.3)
    found = sorted(groups_of(model, config), key=lambda group: (group[0], group[2]))
    assert found == [
        ("AdamW", 1.0, 0.0, undecayed(model)),
        ("AdamW", 1.0, 0.3, {"users.leave.weight"}),
        ("Muon", 1.0, 0.3, ITEM_MATRICES | USER_MATRICES | ITEM_READERS),
    ]


def test_adamw_learns_a_matrix_at_base_width_over_its_width(model: DualEncoder) -> None:
    config = OptimizerConfig(kind="adamw", weight_decay=0.3, base_width=4)
    found = sorted(groups_of(model, config), key=lambda group: -group[1])
    # items have width 8 and two read it; users have width 16; lr x decay is .3 lr everywhere
    assert found == [
        ("AdamW", 1.0, 0.0, undecayed(model)),
        ("AdamW", 0.5, 0.6, ITEM_MATRICES | ITEM_READERS),
        ("AdamW", 0.25, 1.2, USER_MATRICES | {"users.leave.weight"}),
    ]


def test_muon_learns_a_matrix_at_the_root_of_that(model: DualEncoder) -> None:
    config = OptimizerConfig(kind="muon", weight_decay=0.3, base_width=4)
    found = {frozenset(names): (kind, share) for kind, share, _, names in groups_of(model, config)}
    assert found == {
        frozenset(undecayed(model)): ("AdamW", 1.0),
        frozenset({"users.leave.weight"}): ("AdamW", 0.25),
        frozenset(ITEM_MATRICES | ITEM_READERS): ("Muon", pytest.approx(0.5**0.5)),
        frozenset(USER_MATRICES): ("Muon", 0.5),
    }


def test_every_group_gets_its_share_of_the_rate(model: DualEncoder) -> None:
    optimizers = make_optimizers(model, OptimizerConfig(base_width=4, kind="adamw"))
    set_learning_rate(optimizers, 0.2)
    rates = sorted(group["lr"] for o in optimizers for group in o.param_groups)
    assert rates == pytest.approx([0.05, 0.1, 0.2])


def test_a_step_without_gradient_moves_only_what_decays(model: DualEncoder) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for optimizer in make_optimizers(
        model, OptimizerConfig(kind="adamw", lr=0.1, weight_decay=0.5)
    ):
        optimizer.step()
    assert torch.equal(model.log_scale, before["log_scale"])
    entered = model.users.enter.weight
    torch.testing.assert_close(entered, before["users.enter.weight"] * (1 - 0.05))


def test_muons_step_is_orthogonal_and_as_large_as_adamws_and_only_its_own(
    model: DualEncoder,
) -> None:
    hidden, rest = make_optimizers(model, OptimizerConfig(kind="muon", lr=0.1, weight_decay=0.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    hidden.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == ITEM_MATRICES | USER_MATRICES | ITEM_READERS
    for name in sorted(moved):
        update = before[name] - model.get_parameter(name).detach()
        # root mean square .2 lr; singular values alike, .7 to 1.2 after five Newton-Schulz steps
        assert update.pow(2).mean().sqrt().item() == pytest.approx(0.02, rel=0.25)
        relative = torch.linalg.svdvals(update) / (0.02 * max(update.shape) ** 0.5)
        assert 0.65 < relative.median().item() < relative.max().item() < 1.25
    rest.step()
    assert all(not torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_sgd_moves_every_weight_alike_and_decays_none(model: DualEncoder) -> None:
    config = OptimizerConfig(base_width=4, weight_decay=0.5, clip=1.0, patience=1, sgd_lr=0.1)
    sgd = make_sgd(model, config)
    assert {id(w) for g in sgd.param_groups for w in g["params"]} == set(
        map(id, model.parameters())
    )
    assert not sgd.state  # no memory before its phase
    set_learning_rate([sgd], 0.2)
    start = {name: w.detach().clone() for name, w in model.named_parameters()}
    first, second = ({n: torch.randn_like(w) for n, w in start.items()} for _ in range(2))
    for gradient in (first, second):
        for name, w in model.named_parameters():
            w.grad = gradient[name].clone()
        sgd.step()
    checked = 0
    for name, w in model.named_parameters():
        by_hand = start[name] - 0.2 * first[name] - 0.2 * (0.9 * first[name] + second[name])
        torch.testing.assert_close(w.detach(), by_hand)
        checked += 1
    assert checked == len(start) == 22
