"""Which phase follows which loss, what a switch leaves behind, and that a stop changes nothing."""

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clue.train.optimiser import OptimizerConfig, make_optimizers, make_sgd, set_learning_rate
from clue.train.phases import Progress, active, advance, hand_over, rate
from clue.train.state_dict import StateDict, gather, restore

SWITCHING = OptimizerConfig(
    schedule="constant", lr=1e-2, warmup_steps=2, weight_decay=0.1, patience=2, sgd_lr=0.05
)
# measured after steps 2, 4, ...: the first phase ends after 8, SGD after 16
HELD_OUT = {2: 1.0, 4: 0.9, 6: 0.95, 8: 0.97, 10: 0.93, 12: 0.8, 14: 0.82, 16: 0.81}


def path(config: OptimizerConfig, losses: Sequence[float]) -> list[tuple[str, int, float | None]]:
    """Return (phase, began, best) after each loss, measured every 10 steps."""
    progress, found = Progress(), list[tuple[str, int, float | None]]()
    for i, loss in enumerate(losses, 1):
        progress = advance(progress, config, 10 * i, loss)
        assert progress == Progress(**json.loads(json.dumps(asdict(progress), allow_nan=False)))
        found.append((progress.phase, progress.began, progress.best))
    return found


def test_a_phase_ends_after_patience_losses_without_a_lower_one() -> None:
    assert path(SWITCHING, [3.0, 2.0, 2.1, 1.5, 1.5, 1.6, 1.55, 1.4, 1.4, 1.45, 0.1]) == [
        ("first", 0, 3.0),
        ("first", 0, 2.0),
        ("first", 0, 2.0),
        ("first", 0, 1.5),  # the loss before was the first stale one: forgotten
        ("first", 0, 1.5),  # equal is not lower
        ("sgd", 60, 1.5),
        ("sgd", 60, 1.5),  # lower than the last, not than the best: SGD's first stale one
        ("sgd", 60, 1.4),
        ("sgd", 60, 1.4),
        ("done", 100, 1.4),
        ("done", 100, 1.4),  # over is over
    ]


def test_a_loss_that_is_not_finite_is_stale_from_the_first_on() -> None:
    assert path(SWITCHING, [math.nan, 2.0, math.nan, -math.inf]) == [
        ("first", 0, None),
        ("first", 0, 2.0),
        ("first", 0, 2.0),
        ("sgd", 40, 2.0),
    ]
    assert path(SWITCHING, [math.inf, math.nan])[-1] == ("sgd", 20, None)


def test_without_a_rate_for_sgd_the_first_phase_is_the_last() -> None:
    config = OptimizerConfig(patience=2)
    assert [phase for phase, *_ in path(config, [1.0, 1.0, 1.0, 0.5])] == ["first", "first"] + [
        "done"
    ] * 2


def test_without_patience_nothing_ever_changes() -> None:
    progress = Progress()
    for step in range(1, 100):
        assert advance(progress, OptimizerConfig(), step, 1.0 + step) is progress


def test_a_gain_counts_above_min_gain_and_small_ones_add_up() -> None:
    config = OptimizerConfig(patience=3, min_gain=0.1)
    assert [
        (phase, best) for phase, _, best in path(config, [2.0, 1.95, 1.89, 1.85, 1.82, 1.8])
    ] == [
        ("first", 2.0),
        ("first", 2.0),
        ("first", 1.89),
        ("first", 1.89),
        ("first", 1.89),
        ("done", 1.89),
    ]


def test_the_rate_is_the_schedules_and_then_sgds_from_its_first_step() -> None:
    sgd = Progress(phase="sgd", began=1)
    assert [rate(Progress(), SWITCHING, step, 9) for step in (0, 1, 8)] == [5e-3, 1e-2, 1e-2]
    assert [rate(sgd, SWITCHING, step, 9) for step in (1, 8)] == [0.05, 0.05]


@dataclass
class Run:
    """What a training loop holds, with the calls that clue/pretrain.py makes between its steps."""

    config: OptimizerConfig
    model: nn.Sequential = field(init=False)
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Embedding(7, 6), nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)
        )
        self.first = make_optimizers(self.model, self.config)
        self.sgd = make_sgd(self.model, self.config)

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """Those that step now."""
        return active(self.progress, self.first, self.sgd)

    def train(self, begin: int, end: int) -> None:
        """Take steps `begin` to `end`, measuring after every second one."""
        for step in range(begin, end):
            set_learning_rate(self.optimizers, rate(self.progress, self.config, step, 100))
            generator = torch.Generator().manual_seed(step)
            tokens = torch.randint(7, (8,), generator=generator)
            self.model.zero_grad()
            nn.functional.cross_entropy(self.model(tokens), tokens % 3).backward()
            for optimizer in self.optimizers:
                optimizer.step()
            if step + 1 in HELD_OUT:
                before = self.progress
                self.progress = advance(before, self.config, step + 1, HELD_OUT[step + 1])
                if (before.phase, self.progress.phase) == ("first", "sgd"):
                    hand_over(self.first)

    def saved(self) -> tuple[StateDict, str]:
        """Return a copy of what a checkpoint holds."""
        state = gather(self.model, self.optimizers, {})
        assert state is not None
        return deepcopy(state), json.dumps(asdict(self.progress), allow_nan=False)


def resumed(config: OptimizerConfig, saved: tuple[StateDict, str]) -> Run:
    """Return a new run that goes on from `saved`, as another process would."""
    run = Run(config)
    run.progress = Progress(**json.loads(saved[1]))
    restore(run.model, run.optimizers, saved[0].weights, saved[0].optimizer)
    return run


@pytest.fixture(params=["adamw", "muon"])
def config(request: pytest.FixtureRequest) -> OptimizerConfig:
    """Both first phases; SGD's state has the name of Muon's."""
    return OptimizerConfig(**{**asdict(SWITCHING), "kind": request.param})


def test_a_stop_before_at_or_after_the_switch_changes_no_bit(config: OptimizerConfig) -> None:
    straight = Run(config)
    straight.train(0, 16)
    assert straight.progress == Progress(phase="done", began=16, best=0.8)
    expected, _ = straight.saved()
    assert len(expected.optimizer) == len(list(straight.model.parameters())) == 7
    checked = 0
    for stop in (3, 6, 7, 8, 9, 11, 14):
        stopped = Run(config)
        stopped.train(0, stop)
        again = resumed(config, stopped.saved())
        assert again.progress.phase == ("first" if stop < 8 else "sgd")
        again.train(stop, 16)
        assert again.progress == straight.progress
        found, _ = again.saved()
        assert found.optimizer.keys() == expected.optimizer.keys()
        for name, value in {**expected.weights, **expected.optimizer}.items():
            assert torch.equal(
                torch.as_tensor({**found.weights, **found.optimizer}[name]), torch.as_tensor(value)
            )
            checked += 1
    assert checked == 7 * 14


def test_the_first_step_of_sgd_is_plain_gradient_descent(config: OptimizerConfig) -> None:
    run = Run(config)
    run.train(0, 8)
    assert run.progress == Progress(phase="sgd", began=8, best=0.9)
    assert not run.saved()[0].optimizer  # nothing of the first phase is left
    before = {name: w.detach().clone() for name, w in run.model.named_parameters()}
    run.train(8, 9)
    for name, w in run.model.named_parameters():
        assert w.grad is not None and w.grad.abs().max() > 1e-4
        torch.testing.assert_close(w.detach(), before[name] - 0.05 * w.grad)
    assert len(before) == 7
    assert not any(optimizer.state for optimizer in run.first)


def test_the_state_of_one_phase_is_refused_by_the_optimisers_of_another(
    config: OptimizerConfig,
) -> None:
    run = Run(config)
    run.train(0, 3)
    early, _ = run.saved()
    run.train(3, 9)
    late, _ = run.saved()
    fresh = Run(config)
    start: dict[str, Tensor] = deepcopy(fresh.model.state_dict())
    with pytest.raises(ValueError, match=r"has 'exp_avg(_sq)?' of '.*', which SGD does not keep"):
        restore(fresh.model, [fresh.sgd], early.weights, early.optimizer)
    with pytest.raises(ValueError, match=r"'momentum_buffer' of '.*', which AdamW does not keep"):
        restore(fresh.model, fresh.first, late.weights, late.optimizer)
    assert all(torch.equal(value, start[name]) for name, value in fresh.model.state_dict().items())
    assert not any(optimizer.state for optimizer in [*fresh.first, fresh.sgd])
