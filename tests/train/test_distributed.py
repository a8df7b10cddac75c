"""The whole model on two and three processes: gradients as on one, temperature included."""

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
from clue.train.step import to_tensors
from tests.conftest import TinyRun

BATCH = 24
VIEWS = ViewsConfig(
    cross_service=0.5, past_future=0.25, slices=0.25, event_dropout=0.2, token_dropout=0.2
)


def _one_of(rank: int, world: int, folder: Path, path: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{world}", rank=rank, world_size=world
    )
    torch.set_num_threads(1)
    corpus = Corpus.open(path)
    torch.manual_seed(0)
    config = ClueConfig(
        item=ItemEncoderConfig(layers=1, width=16, heads=2),
        user=UserEncoderConfig(layers=1, width=16, heads=2, embedding=16),
        initial_scale=5.0,
    )
    core = Clue(config, corpus.manifest.vocab_size)
    model = DistributedDataParallel(core)
    batch = PairSampler(corpus, VIEWS, batch=BATCH, seed=3).at(1, rank, world)
    views, identity = to_tensors(batch, "cpu")
    users, scale = model(views)
    half = len(batch.user)
    contrast = contrastive_loss(users[:half], users[half:], scale, identity)
    contrast.loss.backward()
    if rank == 0:
        found = {name: p.grad for name, p in core.named_parameters()}
        found["loss"] = contrast.loss.detach()
        found["recall"] = contrast.recall
        torch.save(found, folder / f"{world}.pt")
    dist.destroy_process_group()


def test_gradients_do_not_depend_on_the_number_of_processes(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    for world in (1, 2, 3):
        mp.spawn(_one_of, (world, tmp_path, tiny_run.corpus), nprocs=world)  # pyright: ignore[reportPrivateImportUsage]
    one = torch.load(tmp_path / "1.pt", weights_only=True)
    checked = 0
    for world in (2, 3):
        other = torch.load(tmp_path / f"{world}.pt", weights_only=True)
        for name, expected in one.items():
            error = (other[name] - expected).norm() / expected.norm().clamp_min(1e-12)
            assert error < 1e-5, f"{world} processes, {name}: relative error {error}"
            checked += 1
    assert checked == 2 * len(one)
    assert one["log_scale"].abs() > 1e-4  # a temperature without gradient would pass unseen
