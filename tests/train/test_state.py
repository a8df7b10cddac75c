# pyright: standard
"""One process, DDP and FSDP2 take the same steps, temperature included, and share their state.

accelerate 1.15 does not shard on a processor: AcceleratorState.__init__ (state.py) lets MULTI_GPU
and its like become FSDP and leaves MULTI_CPU out, so that an fsdp_config is passed over in silence.
Here that one decision is taken for it; what follows is accelerate's own code, gloo in NCCL's place.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.distributed.tensor import DTensor

from clue import pretrain as trainer
from clue.config import PretrainConfig
from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.nn.model import Clue
from clue.settings import load
from clue.train.optimiser import make_optimizers
from clue.train.processes import join
from clue.train.state import gather, whole
from clue.train.step import train_step
from tests.conftest import ROOT, TinyRun

STEPS = 3


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """Without dropout, which differs between numbers of processes; in chunks, as large runs are."""
    return load(
        PretrainConfig,
        None,
        [
            *("name=one", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("batch=24", f"steps={STEPS}", "validate_every=2", "checkpoint_every=2"),
            *("log_every=1", "model.item.width=16", "model.item.layers=2", "model.user.width=16"),
            *("model.user.layers=1", "model.user.embedding=8", "precision=fp32"),
            *("chunk_tokens=200", "optimizer.warmup_steps=1"),
        ],
    )


def start(kind: str, config: PretrainConfig) -> Accelerator:
    """Gives the accelerator of this process, sharding as configs/accelerate/fsdp8.yaml says."""
    accelerator = join(bf16=config.precision == "bf16", trackers=[], run=config.run)
    if kind == "fsdp2":
        machine = load_config_from_file(str(ROOT / "configs/accelerate/fsdp8.yaml"))
        asked = {key.removeprefix("fsdp_"): value for key, value in machine.fsdp_config.items()}
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=asked.pop("version"), **asked
        )
        accelerator.state.distributed_type = DistributedType.FSDP
    return accelerator


def steps(kind: str, config: PretrainConfig) -> dict[str, torch.Tensor]:
    """Gives the gradients of the first step and all that is learnt in STEPS steps."""
    accelerator = start(kind, config)
    corpus = Corpus.open(config.corpus)
    sampler = PairSampler(corpus, config.views, batch=config.batch, seed=config.seed)
    torch.manual_seed(0)
    core = Clue(config.model, corpus.manifest.vocab_size)
    core_optimizers = make_optimizers(core, config.optimizer)
    model, *optimizers = accelerator.prepare(core, *core_optimizers)
    budget = Budget(200, 0.0, 1.0, 1.0)  # all is recomputed
    assert any(isinstance(w, DTensor) for w in core.parameters()) == (kind == "fsdp2")
    found: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        batch = sampler.at(step, accelerator.process_index, accelerator.num_processes)
        report = train_step(
            accelerator, model, optimizers, batch, budget, loss=config.loss, clip=1.0
        )
        numbers = {name: x for name, x in vars(report).items() if name != "work"}
        found |= {f"{name} {step}": torch.tensor(x) for name, x in numbers.items()}
        if not step:
            gradients = {n: w.grad for n, w in core.named_parameters() if w.grad is not None}
            found |= {f"grad {k}": v.clone() for k, v in whole(gradients).items()}
            assert len(gradients) == len(list(core.parameters()))
    state = gather(core, core_optimizers, {})
    if state is None:
        return {}
    slots = {k: torch.as_tensor(v) for k, v in state.optimizer.items()}
    return {k: v.clone() for k, v in {**found, **state.weights, **slots}.items()}


def train(kind: str, config: PretrainConfig) -> dict[str, torch.Tensor]:
    """Runs the whole trainer; what it learnt lies in the run's checkpoints."""
    trainer.join = lambda **_: start(kind, config)
    assert trainer.pretrain(config)
    return {}


def _process(
    rank: int,
    world: int,
    folder: Path,
    kind: str,
    work: Callable[[str, PretrainConfig], dict[str, torch.Tensor]],
    config: PretrainConfig,
) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meet-{kind}-{config.name}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    with pytest.MonkeyPatch.context() as patch:
        here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        for name, value in here.items():
            patch.setenv(name, str(value))
        found = work(kind, config)
    if rank == 0:
        torch.save(found, folder / f"{kind}.pt")
    dist.destroy_process_group()


def on_two(
    kind: str,
    folder: Path,
    work: Callable[[str, PretrainConfig], dict[str, torch.Tensor]],
    config: PretrainConfig,
) -> dict[str, torch.Tensor]:
    mp.spawn(_process, (2, folder, kind, work, config), nprocs=2)
    return torch.load(folder / f"{kind}.pt", weights_only=True)


def test_ddp_and_fsdp2_take_the_steps_of_one_process(
    config: PretrainConfig, tmp_path: Path
) -> None:
    one = steps("one", config)
    assert one["grad log_scale"].abs() > 1e-4  # a temperature without gradient would pass unseen
    checked = 0
    for kind in ("ddp", "fsdp2"):
        other = on_two(kind, tmp_path, steps, config)
        assert other.keys() == one.keys()
        for name, expected in one.items():
            error = (other[name] - expected).norm() / expected.norm().clamp_min(1e-12)
            assert error < 1e-5, f"{kind}, {name}: relative error {error}"
            checked += 1
    assert checked == 2 * len(one)
