"""A branch ends where the whole run would, to the last bit; what is no trunk is refused by name."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from clue.config import load
from clue.data.corpus import Corpus
from clue.pretrain import pretrain
from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig
from clue.run.resume import find_start
from tests.benchmarks.worlds import corpus_of
from tests.conftest import TinyRun

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """A trunk of 8 steps, constant from step 2 to 6, with a checkpoint at 3."""
    return load(
        PretrainConfig,
        None,
        [
            *("name=trunk", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("batch=32", "steps=8", "validate_every=8", "checkpoint_every=3", "log_every=1"),
            *("model.item.width=16", "model.item.layers=1", "model.item.dropout=.1"),
            *("model.user.width=16", "model.user.layers=1", "model.user.embedding=8"),
            *("precision=fp32", "optimizer.schedule=wsd", "optimizer.decay_share=.25"),
            *("optimizer.warmup_steps=2", "optimizer.ema=.9", "optimizer.kind=muon"),
        ],
    )


def only(config: PretrainConfig, step: int) -> None:
    """Leaves of a finished run the checkpoint of one step, as `keep_every` would."""
    for path in (config.run / "checkpoints").iterdir():
        if path.name != f"step_{step:08d}":
            for file in path.iterdir():
                file.unlink()
            path.rmdir()


def test_a_branch_equals_the_straight_run_bitwise(config: PretrainConfig) -> None:
    short = replace(config, steps=6, checkpoint_every=6)
    pretrain(replace(short, name="straight"))
    pretrain(replace(config, steps=7, checkpoint_every=4))
    branch = replace(short, name="branch", trunk=config.run)
    pretrain(branch)
    lines = map(json.loads, (branch.run / "log.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == [5, 6]  # from the trunk's checkpoint of step 4, where the decay starts
    one, other = (checkpoint.find_last(config.runs / name) for name in ("straight", "branch"))
    assert one is not None
    assert other is not None
    for name in ("model", "trained", "optimizer"):
        file = f"{name}.safetensors"
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes()
    assert one.metrics == other.metrics


def test_what_is_no_trunk_is_refused_by_name(config: PretrainConfig, tiny_run: TinyRun) -> None:
    pretrain(config)
    branch = replace(config, name="branch", trunk=config.run, steps=6)
    other = replace(config.optimizer, lr=1e-3)
    for change, message in (
        ({"batch": 16}, "another batch;"),
        ({"seed": 1}, "another seed;"),
        ({"optimizer": other}, "another optimizer;"),
        ({"trunk": config.runs / "nowhere"}, "nowhere has no checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            pretrain(replace(branch, **change))
    only(config, 6)
    with pytest.raises(ValueError, match="no checkpoint at or before step 4, .* of step 6"):
        pretrain(branch)
    assert not (branch.run / "checkpoints").exists()


def test_item_ids_of_another_corpus_are_refused(tiny_items: TinyRun, tmp_path: Path) -> None:
    # Nothing but the fingerprint tells: rows of the item embedding would mean other items.
    config = checkpoint.find(tiny_items.run).config
    events = [(user, "shop", name) for user in "abc" for name in ("fork", "cup", "pan", "pot")]
    other = corpus_of(tmp_path, events, {"a": "train", "b": "valid", "c": "test"})
    with pytest.raises(ValueError, match=f"begun on corpus .* is {other.fingerprint[:12]} now"):
        find_start(replace(config, corpus=other.path), other)
    kept = find_start(config, Corpus.open(tiny_items.corpus))
    assert kept is not None and kept.step == 4


def test_a_cosine_has_no_trunk_and_a_branch_outlasts_its_warm_up(config: PretrainConfig) -> None:
    cosine = replace(config.optimizer, schedule="cosine")
    with pytest.raises(ValueError, match=r"needs optimizer\.schedule=wsd"):
        replace(config, optimizer=cosine, trunk=config.run)
    with pytest.raises(ValueError, match="warmup_steps 2 last longer than the 1 of 1 steps"):
        replace(config, steps=1)
