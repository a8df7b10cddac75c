# pyright: standard

"""The whole model on two and three processes: gradients as on one, temperature included."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from clue.data.batches import PairSampler
from clue.data.corpus import Corpus
from clue.data.views import ViewsConfig
from clue.nn.dual_encoder import DualEncoder, DualEncoderConfig
from clue.nn.item_encoder import ItemEncoderConfig
from clue.nn.user_encoder import UserEncoderConfig
from clue.train.distributed import PATIENCE, init_accelerator, leave
from clue.train.losses.contrastive import LossConfig, contrastive_loss
from clue.train.packing import Budget, pack
from tests.conftest import TinyRun
from tests.processes import spawn

BATCH = 24
VIEWS = ViewsConfig(
    cross_service=0.5, past_future=0.25, slices=0.25, event_dropout=0.2, token_dropout=0.2
)


LOSSES = {
    "infonce": LossConfig(),
    "unmasked": LossConfig(mask_users=False, mask_content=False, log_q=True),
    "sigmoid": LossConfig(kind="sigmoid"),
}


def one_side(rank: int, world: int, path: Path, kind: str) -> dict[str, torch.Tensor]:
    """Return loss, recall and every gradient, averaged over the processes as training averages.

    Chunks are of another size on every number of processes, and some are recomputed.
    """
    corpus, loss = Corpus.open(path), LOSSES[kind]
    torch.manual_seed(0)
    config = DualEncoderConfig(
        item=ItemEncoderConfig(layers=1, width=16, heads=2),
        user=UserEncoderConfig(layers=1, width=16, heads=2, embedding=16, bag=8),
        initial_bias=-3.0 if kind == "sigmoid" else None,
    )
    core = DualEncoder(config, corpus.manifest.vocab_size)
    model = DistributedDataParallel(core) if world > 1 else core
    batch = PairSampler(corpus, VIEWS, batch=BATCH, seed=3).at(1, rank, world)
    views, identity = pack(batch, Budget(64 + 7 * world, 20_000.0, 100.0, 100.0))
    users, scale, bias = model(views)
    half = len(batch.user)
    identity = identity if loss.log_q else replace(identity, log_q=None)
    contrast = contrastive_loss(users[:half], users[half:], scale, identity, loss, bias=bias)
    contrast.loss.backward()
    gradients = {name: p.grad for name, p in core.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(core.parameters()))
    return {**gradients, "loss": contrast.loss.detach(), "recall": contrast.recall}


def _one_of(rank: int, world: int, folder: Path, path: Path) -> None:
    found = {kind: one_side(rank, world, path, kind) for kind in LOSSES}
    if rank == 0:
        torch.save(found, folder / f"{world}.pt")


def test_gradients_do_not_depend_on_the_number_of_processes(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    alone = {kind: one_side(0, 1, tiny_run.corpus, kind) for kind in LOSSES}
    for one in alone.values():  # a temperature or a bias without gradient would pass unseen
        assert one["log_scale"].abs() > 1e-4 and one.get("bias", torch.ones(1)).abs() > 1e-4
    assert alone["infonce"]["loss"] != alone["unmasked"]["loss"]
    for world in (2, 3):
        spawn(_one_of, tmp_path, tiny_run.corpus, world=world)
    checked = 0
    for world in (2, 3):
        others = torch.load(tmp_path / f"{world}.pt", weights_only=True)
        for kind, one in alone.items():
            for name, expected in one.items():
                error = (others[kind][name] - expected).norm() / expected.norm().clamp_min(1e-12)
                assert error < 1e-5, f"{world} processes, {kind}, {name}: relative error {error}"
                checked += 1
    assert checked == 2 * sum(map(len, alone.values()))


def _write_patience(rank: int, world: int, folder: Path, port: int) -> None:
    leave()
    os.environ["MASTER_PORT"] = str(port)
    accelerator = init_accelerator(bf16=False, trackers=[], run=folder)
    accelerator.wait_for_everyone()  # see `spawn`
    assert accelerator.num_processes == world
    assert dist.group.WORLD is not None
    backend = dist.group.WORLD._get_backend(torch.device("cpu"))
    (folder / f"{rank}").write_text(str(backend.options._timeout.total_seconds()))


def test_a_process_waits_for_the_others_as_long_as_is_said(tmp_path: Path) -> None:
    # A store of its own: that of the tests has the addresses of their group, and a process that
    # reads the other's before it is written anew finds nobody there. It is held here, since one of
    # the processes may have ended before the other has asked it for the last time.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    spawn(_write_patience, tmp_path, store.port, world=2)
    said = [(tmp_path / f"{rank}").read_text() for rank in (0, 1)]
    assert said == [str(PATIENCE.total_seconds())] * 2


def gloo_threads() -> int:
    tasks = Path("/proc/self/task").glob("*/comm")
    return sum("gloo" in task.read_text() for task in tasks)


def _write_threads(rank: int, world: int, folder: Path) -> None:
    joined = gloo_threads()
    leave()
    (folder / f"{rank}").write_text(f"{joined} {gloo_threads()}")
    leave()  # once more is nothing


def test_no_thread_of_a_group_outlives_it(tmp_path: Path) -> None:
    spawn(_write_threads, tmp_path, world=2)
    for rank in (0, 1):
        joined, left = map(int, (tmp_path / f"{rank}").read_text().split())
        assert joined > 0 and left == 0
