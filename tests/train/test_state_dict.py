# pyright: standard

"""One process, DDP and FSDP2 take the same steps, of both objectives, and share their state.

accelerate 1.15 does not shard on a processor: AcceleratorState.__init__ (state.py) lets MULTI_GPU
and its like become FSDP and leaves MULTI_CPU out, so that an fsdp_config is passed over in silence.
Here that one decision is taken for it; what follows is accelerate's own code, gloo in NCCL's place.
"""

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from clue.config import load
from clue.data.corpus import Corpus
from clue.run import checkpoint
from clue.run.objectives.contrastive import Contrastive
from clue.run.objectives.next_item import NextItemObjective
from clue.run.pretrain_config import PretrainConfig
from clue.train.distributed import init_accelerator
from clue.train.optimiser import make_optimizers, make_sgd
from clue.train.packing import Budget
from clue.train.phases import hand_over
from clue.train.state_dict import gather, restore, whole
from clue.train.step import train_step
from tests.conftest import ROOT, TinyRun
from tests.processes import spawn

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function

STEPS = 3


OWN = {
    "contrastive": [
        *("model.item.width=16", "model.item.layers=2", "model.user.width=16"),
        *("model.user.layers=1", "model.user.embedding=8"),
    ],
    "next_item": [
        *("decoder.layers=2", "decoder.width=16", "decoder.max_events=8", "decoder.dropout=[0.0]"),
        "softmax.negatives=50",
    ],
}


@pytest.fixture(params=OWN)
def config(request: pytest.FixtureRequest, tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """Without dropout, which differs between numbers of processes; in chunks, as large runs are."""
    return load(
        PretrainConfig,
        None,
        [
            *("name=one", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("batch=24", f"steps={STEPS}", "validate_every=2", "checkpoint_every=2"),
            *("log_every=1", "precision=fp32", "optimizer.lr=2e-3", "optimizer.warmup_steps=1"),
            *("chunk_tokens=200", "optimizer.kind=adamw", f"objective={request.param}"),
            *OWN[request.param],
        ],
    )


def start(kind: str, config: PretrainConfig) -> Accelerator:
    """Return the accelerator of this process, sharding as configs/accelerate/fsdp8.yaml says."""
    accelerator = init_accelerator(bf16=config.precision == "bf16", trackers=[], run=config.run)
    if kind == "fsdp2":
        machine = load_config_from_file(str(ROOT / "configs/accelerate/fsdp8.yaml"))
        assert isinstance(machine, ClusterConfig) and machine.fsdp_config is not None
        asked = {key.removeprefix("fsdp_"): value for key, value in machine.fsdp_config.items()}
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=asked.pop("version"), **asked
        )
        accelerator.state.distributed_type = DistributedType.FSDP
    return accelerator


def steps(kind: str, config: PretrainConfig) -> dict[str, torch.Tensor]:
    """Return the gradients of the first step and all learnt in STEPS steps, the last SGD's."""
    accelerator = start(kind, config)
    make = NextItemObjective if config.objective == "next_item" else Contrastive
    objective = make(config, Corpus.open(config.corpus))
    torch.manual_seed(0)
    core = objective.model()
    core_optimizers = make_optimizers(core, config.optimizer)
    core_sgd = make_sgd(core, replace(config.optimizer, patience=1, sgd_lr=0.1))
    model, *optimizers, sgd = accelerator.prepare(core, *core_optimizers, core_sgd)
    budget = Budget(200, 0.0, 1.0, 1.0)  # all is recomputed
    assert any(isinstance(w, DTensor) for w in core.parameters()) == (kind == "fsdp2")
    found: dict[str, torch.Tensor] = {}
    slots: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        if step == STEPS - 1:
            adamw = gather(core, core_optimizers, {})
            slots = {} if adamw is None else copied(adamw.optimizer)
            hand_over(core_optimizers)
            optimizers, core_optimizers = [sgd], [core_sgd]
        batch = objective.draw(step, accelerator.process_index, accelerator.num_processes)
        forward = partial(objective.forward, batch=batch, budget=budget, device=accelerator.device)
        report = train_step(accelerator, model, optimizers, forward, clip=1.0)
        numbers = {"loss": report.loss, "grad_norm": report.grad_norm, **report.figures}
        found |= {f"{name} {step}": torch.tensor(x) for name, x in numbers.items()}
        if not step:
            gradients = {n: w.grad for n, w in core.named_parameters() if w.grad is not None}
            found |= {f"grad {k}": v.clone() for k, v in whole(gradients).items()}
            assert len(gradients) == len(list(core.parameters()))
    state = gather(core, core_optimizers, {})
    if state is None:
        return {}
    assert len(state.optimizer) == len(state.weights)  # SGD's momentum alone
    return {**found, **copied(state.weights), **slots, **copied(state.optimizer)}


def copied(values: Mapping[str, torch.Tensor | float]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value).clone() for name, value in values.items()}


def dropping_out(config: PretrainConfig, runs: Path) -> PretrainConfig:
    """Return the run with dropout and Muon, whose resume must repeat random numbers and momenta."""
    muon = replace(config.optimizer, kind="muon")
    if config.objective == "next_item":
        decoder = replace(config.decoder, dropout=[0.2, 0.1])
        return replace(config, runs=runs, decoder=decoder, optimizer=muon)
    user = replace(config.model.user, dropout=0.2)
    return replace(config, runs=runs, model=replace(config.model, user=user), optimizer=muon)


def _process(rank: int, world: int, folder: Path, config: PretrainConfig) -> None:
    """Take the steps under DDP and FSDP2; resume a run of two, and end one of one process."""
    with pytest.MonkeyPatch.context() as patch:
        found: dict[str, dict[str, torch.Tensor]] = {}
        for kind in ("ddp", "fsdp2"):
            found[kind] = steps(kind, config)
            AcceleratorState._reset_state()  # pyright: ignore[reportCallIssue]
        patch.setattr(trainer, "init_accelerator", lambda **_: start("ddp", config))
        pair, again = (dropping_out(config, folder / name) for name in ("pair", "again"))
        assert trainer.pretrain(pair)
        if rank == 0:
            shutil.copytree(pair.run, again.run)
            shutil.rmtree(again.run / "checkpoints" / f"step_{STEPS:08d}")
        dist.barrier()
        assert trainer.pretrain(again)
        AcceleratorState._reset_state()  # pyright: ignore[reportCallIssue]
        patch.setattr(trainer, "init_accelerator", lambda **_: start("fsdp2", config))
        assert trainer.pretrain(config)
    if rank == 0:
        torch.save(found, folder / "found.pt")


def losses(config: PretrainConfig) -> dict[int, float]:
    lines = map(json.loads, (config.run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def test_ddp_and_fsdp2_take_the_steps_of_one_process_and_go_on_from_them(
    config: PretrainConfig, tmp_path: Path
) -> None:
    one = steps("one", config)
    if config.objective == "contrastive":  # a temperature without gradient would pass unseen
        assert one["grad log_scale"].abs() > 1e-4
    assert trainer.pretrain(config)
    begun = replace(config, runs=tmp_path / "begun")
    shutil.copytree(config.run, begun.run)
    shutil.rmtree(begun.run / "checkpoints" / f"step_{STEPS:08d}")
    spawn(_process, tmp_path, begun, world=2)
    others = torch.load(tmp_path / "found.pt", weights_only=True)
    checked = 0
    for kind, other in others.items():
        assert other.keys() == one.keys()
        for name, expected in one.items():
            error = (other[name] - expected).norm() / expected.norm().clamp_min(1e-12)
            assert error < 1e-5, f"{kind}, {name}: relative error {error}"
            checked += 1
    assert checked == 2 * len(one)

    whole, resumed = (dropping_out(config, tmp_path / name).run for name in ("pair", "again"))
    for file in ("model.safetensors", "optimizer.safetensors"):
        place = f"checkpoints/step_{STEPS:08d}/{file}"
        assert (whole / place).read_bytes() == (resumed / place).read_bytes()

    straight, sharded = checkpoint.find_last(config.run), checkpoint.find_last(begun.run)
    assert straight is not None and sharded is not None
    assert straight.step == sharded.step == STEPS
    assert losses(begun) == pytest.approx(losses(config), rel=1e-6)
    assert sharded.entropy == pytest.approx(straight.entropy, rel=1e-5)
    theirs, ours = sharded.optimizer(), straight.optimizer()
    assert theirs.keys() == ours.keys()
    for name, expected in {**straight.weights(), **ours}.items():
        got = {**sharded.weights(), **theirs}[name]
        torch.testing.assert_close(
            torch.as_tensor(got), torch.as_tensor(expected), rtol=1e-4, atol=1e-6
        )


def test_several_optimisers_go_on_as_if_they_had_not_stopped() -> None:
    """Muon and AdamW side by side, and a number of steps that is no tensor."""

    def made() -> tuple[nn.Sequential, list[torch.optim.Optimizer]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
        matrices = [w for w in model.parameters() if w.ndim == 2]
        others = [w for w in model.parameters() if w.ndim < 2]
        return model, [torch.optim.Muon(matrices, lr=0.1), torch.optim.AdamW(others, lr=0.1)]

    def step(model: nn.Sequential, optimizers: list[torch.optim.Optimizer]) -> None:
        model.zero_grad()
        model(torch.linspace(-1, 1, 6)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()

    model, optimizers = made()
    step(model, optimizers)
    optimizers[1].state[model.get_parameter("1.bias")]["count"] = 7
    state = gather(model, optimizers, {})
    assert state is not None
    assert len(state.optimizer) == 2 + 2 * 3 + 1
    other, fresh = made()
    saved = deepcopy(state)  # what a checkpoint does: on a processor `state` is the live tensors
    restore(other, fresh, saved.weights, saved.optimizer)
    assert fresh[1].state[other.get_parameter("1.bias")]["count"] == 7
    for _ in range(2):
        step(model, optimizers)
        step(other, fresh)
    for name, weight in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)
    with pytest.raises(ValueError, match=r"optimiser state of '2\.bias', which the model lacks"):
        restore(other, fresh, state.weights, {"2.bias/exp_avg": torch.zeros(4)})
