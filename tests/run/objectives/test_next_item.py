# pyright: standard

"""The next-item objective in the one trainer: figures, gradients, resume, switch and refusals."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch

from clue.config import load
from clue.data.corpus import Corpus
from clue.data.negatives import SoftmaxConfig
from clue.data.ragged import Ragged
from clue.data.sequences import EvalQueries
from clue.nn.decoder import DecoderConfig, NextItemDecoder
from clue.nn.transformer import Block
from clue.run import checkpoint
from clue.run.objectives.next_item import NextItemObjective, evaluate
from clue.run.pretrain_config import PretrainConfig
from clue.train.packing import Budget
from tests.conftest import TinyRun
from tests.data.logs import Row, chains, corpus_of, write_log
from tests.processes import spawn, train

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """Eight steps with dropout and sampled negatives, which a resume must draw again."""
    return load(
        PretrainConfig,
        None,
        [
            *("name=short", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("objective=next_item", "batch=32", "steps=8", "validate_every=2"),
            *("checkpoint_every=3", "log_every=1", "precision=fp32", "optimizer.lr=3e-3"),
            *("decoder.layers=2", "decoder.width=16", "decoder.dropout=[.2,.1]"),
            *("decoder.max_events=8", "softmax.negatives=40"),
        ],
    )


def lines(config: PretrainConfig, kind: str) -> list[dict[str, Any]]:
    read = (config.run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, read) if line["kind"] == kind]


@torch.no_grad()
def test_figures_equal_a_slow_ranking() -> None:
    torch.manual_seed(0)
    model = NextItemDecoder(DecoderConfig(layers=1, width=8, heads=2, max_events=3), 20).eval()
    histories = [[1], [2, 3], [4, 5, 6, 7], [1, 1, 1]]
    flat = np.concatenate(histories)
    offsets = np.cumsum([0, *map(len, histories)])
    targets = np.array([5, 0, 19, 7])
    found = evaluate(model, EvalQueries(np.arange(4), Ragged(flat, offsets), targets))
    table, ranks, losses = model.decoder.item.weight.detach(), [], []
    for history, target in zip(histories, targets, strict=True):
        x = table[history[-3:]] + model.decoder.position.weight[: len(history[-3:])]  # pyright: ignore[reportOptionalMemberAccess]
        for block in model.decoder.blocks:
            assert isinstance(block, Block)
            normed = block.norm_attention(x)
            q, k, v = block.attention.qkv(normed).view(len(x), 3, 2, 4).permute(1, 2, 0, 3)
            scores = (q @ k.transpose(1, 2) / 2).masked_fill(
                torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf
            )
            mixed = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
            x = x + block.attention.out(mixed)
            inner = torch.nn.functional.gelu(block.widen(block.norm_mlp(x)))
            x = x + block.narrow(inner)
        logits = model.decoder.norm(x[-1]) @ table.T
        ranks.append(1 + int((logits > logits[target]).sum()))
        losses.append(float(logits.logsumexp(0) - logits[target]))
    assert found["cross_entropy"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["mrr"] == pytest.approx(np.mean([1 / r for r in ranks]), rel=1e-6)
    hits = [r <= 10 for r in ranks]
    assert 0 < sum(hits) < 4
    assert found["recall_at_10"] == pytest.approx(np.mean(hits))
    gains = [1 / np.log2(r + 1) if r <= 10 else 0 for r in ranks]
    assert found["ndcg_at_10"] == pytest.approx(np.mean(gains), rel=1e-6)
    assert (found["negatives"], found["queries"]) == (19, 4)


def test_a_planted_chain_is_found_and_a_shuffled_one_is_not(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    found: dict[str, float] = {}
    for kind in ("chain", "shuffled"):
        rows = chains(120, draw, shuffled=kind == "shuffled")
        file = write_log(tmp_path / f"{kind}.parquet", rows)
        corpus_of(tmp_path / kind, f"events=[{file}]")
        run = load(
            PretrainConfig,
            None,
            [
                *(f"name={kind}", f"corpus={tmp_path / kind}", f"runs={tmp_path}", "trackers=[]"),
                *("objective=next_item", "batch=60", "steps=60", "validate_every=60"),
                *("decoder.layers=1", "decoder.width=32", "decoder.dropout=[0.0]"),
                *("optimizer.lr=1e-2", "precision=fp32", "optimizer.warmup_steps=5"),
            ],
        )
        train(run)
        found[kind] = lines(run, "valid")[-1]["next_item"]["next item"]["cross_entropy"]
    assert found["chain"] < 0.1
    assert found["shuffled"] > 0.9 * np.log(31)


def gradients(config: PretrainConfig, rank: int, world: int) -> list[torch.Tensor]:
    """Return the gradients of a step: of the whole batch, or averaged over the processes."""
    objective = NextItemObjective(config, Corpus.open(config.corpus))
    torch.manual_seed(0)
    model: torch.nn.Module = objective.model().eval()  # no dropout
    shared = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
    batch = objective.draw(3, rank, world)
    seen = objective.forward(shared, batch, Budget(20, 0.0, 0.0, 1.0), torch.device("cpu"))
    seen.loss.backward()
    return [seen.loss.detach(), *(w.grad for w in model.parameters() if w.grad is not None)]


def _process(rank: int, world: int, folder: Path, config: PretrainConfig) -> None:
    found = gradients(config, rank, world)
    if rank == 0:
        torch.save(found, folder / "found.pt")


@pytest.mark.parametrize("negatives", [0, 40])
def test_two_processes_have_the_gradient_of_one(
    config: PretrainConfig, tmp_path: Path, negatives: int
) -> None:
    config = replace(config, softmax=SoftmaxConfig(negatives=negatives))
    alone = gradients(config, 0, 1)
    spawn(_process, tmp_path, config, world=2)
    shared = torch.load(tmp_path / "found.pt")
    assert len(shared) == len(alone) == 1 + 1 + 1 + 2 * 6 + 1
    for one, other in zip(alone, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        assert float(one.abs().max()) > 0


def stopped_at(at: int, monkeypatch: pytest.MonkeyPatch, config: PretrainConfig) -> None:
    """Trains until a real SIGTERM arrives during step `at`."""
    real = cast("Callable[..., object]", trainer.train_step)
    calls = [0]

    def step(*args: object, **keywords: object) -> object:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", step)
        assert not trainer.pretrain(config)


def test_resume_equals_straight_bitwise(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, stopped = replace(config, name="straight"), replace(config, name="stopped")
    assert trainer.pretrain(straight)
    stopped_at(5, monkeypatch, stopped)
    assert trainer.pretrain(stopped)
    assert_equal_runs(straight, stopped)


def assert_equal_runs(one: PretrainConfig, other: PretrainConfig) -> None:
    ends = [checkpoint.find_last(run.run) for run in (one, other)]
    assert ends[0] is not None
    assert ends[1] is not None
    weights = [end.weights() for end in ends if end is not None]
    assert weights[0].keys() == weights[1].keys()
    assert len(weights[0]) == 1 + 1 + 2 * 6 + 1
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    keys = ("step", "loss", "grad_norm", "lr")
    curves = [[[line[k] for k in keys] for line in lines(run, "train")] for run in (one, other)]
    assert curves[0] == curves[1]
    assert [[x["phase"], x["step"]] for x in lines(one, "phase")] == [
        [x["phase"], x["step"]] for x in lines(other, "phase")
    ]


@pytest.mark.parametrize("at", [2, 7, 9])
def test_the_switch_to_sgd_resumes_bitwise(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    # a gain of 100 nats is never reached: two measurements end the first phase at step 6
    ends = {"patience": 2, "min_gain": 100.0, "sgd_lr": 0.05, "schedule": "constant"}
    optimizer = replace(config.optimizer, kind="adamw", **ends)
    config = replace(config, optimizer=optimizer, steps=40)
    straight, stopped = replace(config, name="straight"), replace(config, name="stopped")
    assert trainer.pretrain(straight)
    phases = [(line["phase"], line["step"]) for line in lines(straight, "phase")]
    assert phases == [("sgd", 6), ("done", 10)]
    rates = [line["lr"] for line in lines(straight, "train")]
    assert len(rates) == 10  # the run ended by itself
    assert rates[6:] == [0.05] * 4
    stopped_at(at, monkeypatch, stopped)
    assert trainer.pretrain(stopped)
    assert_equal_runs(straight, stopped)
    last = checkpoint.find_last(straight.run)
    assert last is not None
    assert last.progress.phase == "done"
    assert trainer.pretrain(straight)  # a run that is done takes no further step
    assert len(lines(straight, "train")) == 10


def test_a_checkpoint_names_its_catalogue(config: PretrainConfig) -> None:
    assert trainer.pretrain(replace(config, steps=2))
    found = checkpoint.find(config.run)
    assert "catalogue.arrow" in found.sha256
    (found.path / "catalogue.arrow").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"catalogue.arrow is damaged"):
        checkpoint.find(found.path)


def test_another_corpus_is_refused(config: PretrainConfig, tmp_path: Path) -> None:
    rows: list[Row] = [
        {"user_id": u, "service": "shop", "item_id": f"i{t}", "timestamp": t, "text": f"thing {t}"}
        for u in range(40)
        for t in range(6)
    ]
    file = write_log(tmp_path / "other.parquet", rows)
    other = corpus_of(tmp_path / "other", f"events=[{file}]")
    assert trainer.pretrain(replace(config, steps=2))
    with pytest.raises(ValueError, match=r"was begun on corpus \w+, .*other is \w+ now"):
        trainer.pretrain(replace(config, steps=2, corpus=other.path))


def test_a_decoder_goes_to_another_catalogue(config: PretrainConfig) -> None:
    assert trainer.pretrain(config)
    services = replace(config.sequences, services=["films"])
    learner = replace(config.optimizer, lr=1e-12, weight_decay=0.0)
    warm = replace(
        config,
        name="warm",
        sequences=services,
        optimizer=learner,
        steps=1,
        warm_start=config.run,
    )
    assert trainer.pretrain(warm)
    before, after = (checkpoint.find(c.run).weights() for c in (config, warm))
    assert before["decoder.item.weight"].shape[0] > after["decoder.item.weight"].shape[0]
    carried = [n for n in before if n != "decoder.item.weight"]
    assert len(carried) == 1 + 2 * 6 + 1
    for name in carried:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-6)
    wide = replace(warm, name="wide", decoder=replace(config.decoder, width=32))
    with pytest.raises(ValueError, match=r"has decoder.blocks.0.attention.out.weight of shape"):
        trainer.pretrain(wide)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["views.max_events=8"], "views describes objective: contrastive"),
        (["objective=contrastive"], "decoder describes objective: next_item"),
        (["warm_start=x", "objective=contrastive", "decoder={}"], "softmax describes"),
    ],
)
def test_sections_of_the_other_objective_are_refused(overrides: list[str], said: str) -> None:
    base = ["objective=next_item", "decoder.width=32", "softmax.negatives=3"]
    with pytest.raises(ValueError, match=said):
        load(PretrainConfig, None, [*base, *overrides])


@pytest.mark.parametrize(("by", "best"), [("loss", 2), ("ndcg", 4)])
def test_the_best_checkpoint_is_that_of_the_figure_asked_for(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, by: Literal["loss", "ndcg"], best: int
) -> None:
    # the loss rises from step 2 on and NDCG until step 4, as where a model grows too sure of itself
    figures = iter([(5.0, 0.1), (5.5, 0.2), (6.0, 0.15), (6.5, 0.12)])

    def measured(*_: object) -> dict[str, float]:
        loss, ndcg = next(figures)
        known = {"recall_at_10": 0.3, "negatives": 9.0}
        return {"cross_entropy": loss, "ndcg_at_10": ndcg, **known}

    monkeypatch.setattr("clue.run.objectives.next_item.evaluate", measured)
    assert trainer.pretrain(replace(config, best_by=by))
    assert checkpoint.find(config.run).step == best
