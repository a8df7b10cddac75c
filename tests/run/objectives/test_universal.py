# pyright: standard

"""The universal objective in the one trainer: turns, gradients, resume, what it learns."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from clue.config import load
from clue.data.batches import Batch
from clue.data.corpus import Corpus
from clue.data.windows import WindowBatch
from clue.run import checkpoint
from clue.run.objectives.universal import Universal
from clue.run.pretrain_config import PretrainConfig
from clue.train.factors import token_factors
from clue.train.packing import Budget
from tests.conftest import TinyRun
from tests.data.logs import Row, chains, corpus_of, hours, write_log
from tests.processes import spawn, train

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function

SMALL = (
    *("objective=universal", "trackers=[]", "batch=32", "log_every=1", "precision=fp32"),
    *("model.item.width=16", "model.item.layers=0", "model.user.width=16"),
    *("model.user.layers=1", "model.user.embedding=12", "model.user.max_events=16"),
    *("predictive.width=16", "predictive.layers=1", "predictive.text_width=8"),
    *("windows.batch=16", "windows.max_events=8", "windows.softmax.negatives=20"),
    *("factors.items=4", "factors.tokens=6", "factors.aligned=5"),
    *("factors.contrastive=.5", "optimizer.lr=3e-3"),
)


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """Eight steps of both parts, with dropout, which a resume must draw again."""
    return load(
        PretrainConfig,
        None,
        [
            *("name=short", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", *SMALL),
            *("steps=8", "validate_every=4", "checkpoint_every=3"),
        ],
    )


def gradients(config: PretrainConfig, rank: int, world: int) -> list[torch.Tensor]:
    """Return losses and gradients of a step of each part: whole, or averaged over processes."""
    objective = Universal(config, Corpus.open(config.corpus))
    torch.manual_seed(0)
    model: torch.nn.Module = objective.model().eval()  # no dropout
    shared = model
    if world > 1:
        shared = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    objective.window_budget = Budget(40, 0.0, 1.0, 1.0)
    found: list[torch.Tensor] = []
    for kind in (Batch, WindowBatch):
        step = next(s for s in range(20) if isinstance(objective.draw(s), kind))
        batch = objective.draw(step, rank, world)
        model.zero_grad()
        seen = objective.forward(shared, batch, Budget(40, 0.0, 1.0, 1.0), torch.device("cpu"))
        seen.loss.backward()
        grads = {n: w.grad for n, w in model.named_parameters() if w.grad is not None}
        used = {name.split(".")[0] for name, grad in grads.items() if grad.abs().max() > 0}
        assert used == {"contrastive" if kind is Batch else "predictive"}
        found += [seen.loss.detach(), *(g.clone() for g in grads.values() if g.abs().max() > 0)]
    return found


def _process(rank: int, world: int, folder: Path, config: PretrainConfig) -> None:
    found = gradients(config, rank, world)
    if rank == 0:
        torch.save(found, folder / "found.pt")


def test_two_processes_have_the_loss_and_gradients_of_one(
    config: PretrainConfig, tmp_path: Path
) -> None:
    alone = gradients(config, 0, 1)
    spawn(_process, tmp_path, config, world=2)
    shared = torch.load(tmp_path / "found.pt")
    assert len(alone) == len(shared) > 20
    for one, other in zip(alone, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-6)


def test_resume_equals_straight_bitwise(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, stopped = replace(config, name="straight"), replace(config, name="stopped")
    assert trainer.pretrain(straight)
    real, calls = cast("Callable[..., object]", trainer.train_step), [0]

    def step(*args: object, **keywords: object) -> object:
        calls[0] += 1
        if calls[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", step)
        assert not trainer.pretrain(stopped)
    assert trainer.pretrain(stopped)
    ends = [checkpoint.find_last(run.run) for run in (straight, stopped)]
    weights = [end.weights() for end in ends if end is not None]
    assert len(weights) == 2
    assert weights[0].keys() == weights[1].keys()
    assert len(weights[0]) > 20
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    curves = [
        [(line["step"], line["loss"]) for line in lines(run, "train")]
        for run in (straight, stopped)
    ]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 8


def lines(config: PretrainConfig, kind: str) -> list[dict[str, Any]]:
    read = (config.run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, read) if line["kind"] == kind]


def test_a_run_begins_at_the_factors_and_leaves_them(config: PretrainConfig) -> None:
    corpus = Corpus.open(config.corpus)
    objective = Universal(config, corpus)
    model = objective.model()
    objective.begin(model)
    assert trainer.pretrain(replace(config, steps=3))
    trained = checkpoint.find(config.run).weights()
    assert torch.equal(trained["item_factors"], model.item_factors)
    assert torch.equal(trained["token_factors"], model.token_factors)
    assert not torch.equal(trained["predictive.identity.weight"], model.predictive.identity.weight)


def test_tokens_begin_at_the_factors_where_asked(config: PretrainConfig) -> None:
    asked = replace(config, factors=replace(config.factors, start=True))
    corpus = Corpus.open(config.corpus)
    objective = Universal(asked, corpus)
    model = objective.model()
    fresh = model.contrastive.items.token.weight.detach().clone()
    objective.begin(model)
    table = model.contrastive.items.token.weight.detach()
    factors = token_factors(corpus, corpus.users_in("train"), 16, config.seed)
    known = factors.square().sum(1) > 0
    assert 100 < int(known.sum()) < len(known)
    assert torch.equal(table[~known], fresh[~known])
    # the same inner products but for one scale: the size that fresh tokens have
    grams = [rows[known] @ rows[known].T for rows in (table, factors)]
    scale = grams[0].norm() / grams[1].norm()
    torch.testing.assert_close(grams[0], grams[1] * scale, rtol=1e-3, atol=1e-3)
    assert float(table[known].std()) == pytest.approx(float(fresh.std()), rel=1e-3)
    assert model.rate_share("contrastive.items.token.weight") == asked.factors.start_share


def next_item_entropy(tmp_path: Path, name: str, rows: list[Row], *overrides: str) -> float:
    """Return the cross-entropy of valid users' last items, trained on a log of one service."""
    file = write_log(tmp_path / f"{name}.parquet", rows)
    corpus_of(tmp_path / name, f"events=[{file}]")
    run = load(
        PretrainConfig,
        None,
        [
            *(f"name={name}", f"corpus={tmp_path / name}", f"runs={tmp_path}", *SMALL),
            *("steps=150", "validate_every=150", "factors.contrastive=.05"),
            *("views.cross_service=0", "views.past_future=.5", "views.slices=.5"),
            *("predictive.width=32", "windows.batch=60", "optimizer.lr=1e-2"),
            *("predictive.dropout=0", "optimizer.warmup_steps=5", *overrides),
        ],
    )
    train(run)
    return lines(run, "valid")[-1]["held_out"]["next shop"]["cross_entropy"]


def test_a_planted_chain_is_found_and_a_shuffled_one_is_not(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    planted, shuffled = (chains(200, draw, shuffled=each) for each in (False, True))
    assert next_item_entropy(tmp_path, "chain", planted) < 0.3
    assert next_item_entropy(tmp_path, "shuffled", shuffled) > 0.9 * np.log(31)


def test_a_planted_time_effect_is_found_and_a_shuffled_one_is_not(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    planted, shuffled = (hours(300, draw, shuffled=each) for each in (False, True))
    context = ("predictive.context=true", "predictive.identity_dropout=0", "steps=250")
    assert next_item_entropy(tmp_path, "hours", planted, *context) < 0.45
    coin = np.log(2)  # what is left of who knows both chains and not which
    assert next_item_entropy(tmp_path, "shuffled", shuffled, *context) > 0.9 * coin
    assert next_item_entropy(tmp_path, "unread", planted, "steps=250") > 0.9 * coin
