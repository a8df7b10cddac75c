"""The whole model on two and three processes: gradients as on one, temperature included."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.data.views import ViewsConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.model import Clue, ClueConfig
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.losses import contrastive_loss
from clue.train.packing import Budget, pack
from tests.conftest import TinyRun

BATCH = 24
VIEWS = ViewsConfig(
    cross_service=0.5, past_future=0.25, slices=0.25, event_dropout=0.2, token_dropout=0.2
)


def one_side(rank: int, world: int, path: Path) -> dict[str, torch.Tensor]:
    """Gives loss, recall and every gradient, averaged over the processes as training averages."""
    corpus = Corpus.open(path)
    torch.manual_seed(0)
    config = ClueConfig(
        item=ItemEncoderConfig(layers=1, width=16, heads=2),
        user=UserEncoderConfig(layers=1, width=16, heads=2, embedding=16),
    )
    core = Clue(config, corpus.manifest.vocab_size)
    model = DistributedDataParallel(core) if world > 1 else core
    batch = PairSampler(corpus, VIEWS, batch=BATCH, seed=3).at(1, rank, world)
    views, identity = pack(batch, Budget(64, kept=20_000.0, item_bytes=100.0, event_bytes=100.0))
    users, scale, _ = model(views)
    half = len(batch.user)
    contrast = contrastive_loss(users[:half], users[half:], scale, replace(identity, log_q=None))
    contrast.loss.backward()
    gradients = {name: p.grad for name, p in core.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(core.parameters()))
    return {**gradients, "loss": contrast.loss.detach(), "recall": contrast.recall}


def _one_of(rank: int, world: int, folder: Path, path: Path) -> None:
    meeting = f"file://{folder}/meet-{world}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    torch.set_num_threads(1)
    found = one_side(rank, world, path)
    if rank == 0:
        torch.save(found, folder / f"{world}.pt")
    dist.destroy_process_group()


def test_gradients_do_not_depend_on_the_number_of_processes(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    one = one_side(0, 1, tiny_run.corpus)
    assert one["log_scale"].abs() > 1e-4  # a temperature without gradient would pass unseen
    for world in (2, 3):
        mp.spawn(_one_of, (world, tmp_path, tiny_run.corpus), nprocs=world)  # pyright: ignore[reportPrivateImportUsage]
    checked = 0
    for world in (2, 3):
        other = torch.load(tmp_path / f"{world}.pt", weights_only=True)
        for name, expected in one.items():
            error = (other[name] - expected).norm() / expected.norm().clamp_min(1e-12)
            assert error < 1e-5, f"{world} processes, {name}: relative error {error}"
            checked += 1
    assert checked == 2 * len(one)
