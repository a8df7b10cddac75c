# pyright: standard
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.external import environments
from benchmarks.external.environments import Rival, RivalMissing, python_of
from benchmarks.speed import batch, interleave, loader, loss, step, step_arm
from benchmarks.speed.__main__ import main
from benchmarks.speed.batch import largest
from benchmarks.speed.interleave import Arm, ArmFailed
from benchmarks.speed.padded import PaddedViews
from benchmarks.speed.zipf_corpus import WorldConfig, open_world, views
from clue.data.batches import PairSampler
from clue.nn.dual_encoder import DualEncoderConfig
from clue.train.packing import Budget, pack

TINY = {"layers": 1, "width": 8, "heads": 2}
WORLD = {"users": 20, "items": 5, "catalogue": 30, "vocabulary": 50, "max_tokens": 9}


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    item, user = TINY | {"max_tokens": 16}, TINY | {"max_events": 5, "embedding": 8}
    return {
        "batch": 12,
        "world": {**WORLD, "least_items": 1, "unique": False, "tokens": 4},
        "worlds": str(tmp_path),
        "model": {"item": item, "user": user, "initial_scale": 20.0},
        "chunk_tokens": 40,
        "compile": False,
        "repeats": 1,
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
        "peak_tflops": 0.0,
    }


def test_our_loss_equals_the_formula_and_a_wrong_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def off_by_one(spec: dict[str, Any]) -> loss.Loss:  # a row's own column is its neighbour's
        right = loss.dense(spec)
        return lambda a, b: right(a, b.roll(1, 0))

    monkeypatch.setitem(loss.IMPLEMENTATIONS, "wrong", off_by_one)
    same = {"batch": 20, "width": 8, "device": "cpu", "repeats": 0, "threads": 1}
    impls = ("dense", "ours", "wrong")
    results = {name: loss.measure_arm(same | {"impl": name}) for name in impls}
    assert not interleave.difference([results["ours"]], [results["dense"]])
    assert interleave.difference([results["wrong"]], [results["dense"]]).startswith("loss")
    assert math.isnan(results["ours"]["figures"]["seconds"])  # a gate is not timed


def test_our_variants_give_one_loss_and_one_gradient(spec: dict[str, Any]) -> None:
    names = ("ours", "without de-duplication", "without length sort")
    results = {name: step_arm.arm(spec | {"impl": name}) for name in names}
    ours = results["ours"]
    for name in names[1:]:
        assert not interleave.difference([results[name]], [ours]), name
    assert ours["pairs"] == 12
    assert ours["distinct_tokens"] < ours["tokens"]
    # by hand: 12 D^2 weights a block, D^2 for each side of the user encoder
    block, ends = 12 * 8 * 8, 2 * 8 * 8
    tokens, events = ours["distinct_tokens"], ours["events"]
    assert ours["flops"] == 6 * (block * tokens + (block + ends) * events)
    figures = ours["figures"]
    assert figures["pairs/s"] == 12 / figures["seconds"]
    assert figures["useful TFLOP/s"] == ours["flops"] / figures["seconds"] / 1e12


@pytest.mark.parametrize("strong", [True, False])
def test_the_rivals_wrapper_computes_the_same_vectors(spec: dict[str, Any], strong: bool) -> None:
    sampler = step_arm.make_sampler(spec)
    torch.manual_seed(0)
    model = step_arm.make_model(spec)
    torch.nn.init.normal_(model.users.recency.weight)  # zero at the start: order would not matter
    torch.nn.init.normal_(model.items.position.weight)
    batch = sampler.at(0)
    wrapper = PaddedViews(model, strong=strong)
    pair = step_arm.padded_pair(batch, spec)
    theirs = torch.cat([wrapper(side)["sentence_embedding"] for side in pair])
    ours, *_ = model(pack(batch, Budget(1000))[0])
    torch.testing.assert_close(theirs, ours)
    # a mini-batch, which sentence-transformers cuts at its longest history
    few = {name: values[:3] for name, values in pair[0].items()}
    torch.testing.assert_close(wrapper(few)["sentence_embedding"], ours[:3])


def test_the_world_is_what_its_config_says(tmp_path: Path) -> None:
    config = WorldConfig(users=400, items=8, catalogue=1000)
    corpus = open_world(config, tmp_path)
    lengths = corpus.items_of(0).lengths
    assert (lengths.min(), lengths.max(), corpus.num_users) == (1, 8, 400)
    texts = corpus.item_tokens.lengths
    assert 11 <= sorted(texts)[500] <= 13 and texts.max() <= 64
    batch_ = PairSampler(corpus, views(config), batch=100, seed=0).at(0)
    assert len(batch_.token_lengths) < 0.75 * len(batch_.events)  # Zipf repeats items
    control = WorldConfig(users=30, items=8, least_items=8, unique=True)
    batch_ = PairSampler(open_world(control, tmp_path), views(control), batch=30, seed=0).at(0)
    assert len(batch_.token_lengths) == len(batch_.events) == 2 * 30 * 8
    assert set(batch_.token_lengths) == {16} and set(batch_.event_lengths) == {8}


def run_here(functions: Mapping[str, Any]) -> Any:
    """Return a `run` that calls the arm in this process, as fast as that is."""

    def run(arm: Arm, change: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**functions[arm.module]({**arm.spec, **change}), "versions": {"torch": "1"}}

    return run


def test_the_loss_command_writes_its_json_and_prints_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interleave, "run", run_here({"benchmarks.speed.loss": loss.measure_arm}))
    keys = ["batches=[128, 256]", "width=16", "rivals=[]", "threads=1", f"out={tmp_path}/loss.json"]
    main(["loss", *keys])
    tree = json.loads((tmp_path / "loss.json").read_text())
    assert tree["command"].startswith("python -m benchmarks.speed loss batches=[128, 256]")
    assert [(row["case"], row["arm"], row["status"]) for row in tree["rows"]] == [
        ("B = 128", "dense reference", "measured"),
        ("B = 128", "ours", "measured"),
        ("B = 256", "dense reference", "measured"),
        ("B = 256", "ours", "measured"),
    ]
    assert set(tree["rows"][0]["figures"]) == {"seconds", "peak MiB", "warm-up s"}
    assert len(tree["rows"][0]["figures"]["seconds"]["rounds"]) == 3
    assert [claim["holds"] for claim in tree["claims"]][1] is None  # open_clip was left out
    assert tree["machine"]["threads"] == 1
    assert "| B = 256 | ours |" in capsys.readouterr().out


def test_the_step_command_writes_a_row_for_each_of_our_arms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleave, "run", run_here({"benchmarks.speed.step_arm": step_arm.arm}))
    world = [f"world.{key}={value}" for key, value in WORLD.items()]
    model = [
        f"model.{part}.{key}={value}" for part in ("item", "user") for key, value in TINY.items()
    ]
    keys = ["pairs=18", "control_pairs=17", "rows=[]", "plain_rows=[]", "rounds=1", "peak_tflops=1"]
    main(["step", *world, *model, *keys, f"worlds={tmp_path}", f"out={tmp_path}/step.json"])
    tree = json.loads((tmp_path / "step.json").read_text())
    assert [(row["case"], row["arm"], row["status"]) for row in tree["rows"]] == [
        ("Zipf", "ours", "measured"),
        ("Zipf", "without de-duplication", "measured"),
        ("Zipf", "without length sort", "measured"),
        ("control", "ours", "measured"),
    ]
    assert "MFU" in tree["rows"][0]["figures"]
    assert tree["notes"][1].startswith("control: 17 pairs, 170 events of 170 distinct items")
    assert all(claim["holds"] is None for claim in tree["claims"])


def test_a_model_reads_the_longest_text_and_history_of_its_world() -> None:
    model = step.reading(DualEncoderConfig(), WorldConfig(max_tokens=65, items=7))
    assert (model.item.max_tokens, model.user.max_events) == (65, 32)
    model = step.reading(DualEncoderConfig(), WorldConfig(max_tokens=9, items=33))
    assert (model.item.max_tokens, model.user.max_events) == (32, 33)


def test_more_pairs_than_the_world_has_users_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pairs 41 .* world\.users"):
        step.Config(pairs=41, world=WorldConfig(users=40))
    with pytest.raises(ValueError, match=r"most 16384 is above world\.users 40"):
        batch.Config(world=WorldConfig(users=40))
    with pytest.raises(ValueError, match=r"batches \(41,\) .* world\.users"):
        loader.Config(batches=(41,), world=WorldConfig(users=40))


def test_the_search_finds_the_largest_batch_to_a_tenth() -> None:
    tried: list[int] = []

    def below(limit: int) -> Any:
        return lambda b: (tried.append(b), b <= limit)[1]

    config = batch.Config(first=64, most=4096)
    checked = 0
    for limit in (64, 65, 127, 128, 700, 999, 4095):
        most = largest(below(limit), config)
        assert most <= limit <= 1.1 * most + 1
        checked += 1
    assert checked == 7
    assert largest(below(10**9), config) == 4096 and max(tried) == 4096
    with pytest.raises(ValueError, match="first=64"):
        largest(below(63), config)


def test_a_step_beyond_the_limit_is_seen_not_to_fit(spec: dict[str, Any]) -> None:
    wide = {"layers": 1, "width": 64, "heads": 2}
    spec["model"]["item"] |= wide
    spec["model"]["user"] |= wide
    spec |= {"impl": "trainer", "corpus": None, "limit_mib": 1, "chunked": False}
    tight = Arm("x", "benchmarks.speed.step_arm", spec)
    with pytest.raises(ArmFailed) as failure:
        interleave.run(tight, {})
    assert any(word in str(failure.value).lower() for word in batch.SPENT), failure.value
    roomy = interleave.run(tight, {"limit_mib": 4000})
    assert roomy["figures"]["pairs/s"] > 0 and roomy["loss"] > 0


def test_our_loader_counts_the_views_it_drew(tmp_path: Path) -> None:
    world = WorldConfig(users=50, items=20, least_items=2)
    config = loader.Config(world=world, batches=(16,), worlds=tmp_path, steps=3)
    ours, *theirs = loader.arms(config, 16, loader.export(config))
    result = loader.measure_arm(dict(ours.spec))
    views, events = result["views"], result["events"]
    assert views == 3 * 2 * 16 and views <= events <= 16 * views
    assert result["figures"]["events a view"] == events / views
    assert [arm.rival for arm in theirs] == [environments.LIFESTREAM] * 2


def test_a_wrong_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fast"])
    names = "loss, step, batch, loader, optim, precision, lr_width, embed, faiss, faults"
    more = "offline_faults, engines, prepare, retrieve, serve, soak, gpu"
    assert f"no benchmark 'fast'; there are {names}, {more}" in capsys.readouterr().err


def test_a_rival_is_installed_once_and_its_failure_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    class Done:
        stderr = "WARNING: cache\nERROR: no such version\nhint\n"

        def __init__(self, returncode: int) -> None:
            self.returncode = returncode

    def pip(command: list[str], **_: Any) -> Done:
        ran.append(command)
        (tmp_path / "wrong").mkdir(exist_ok=True)
        (tmp_path / "right").mkdir(exist_ok=True)
        return Done(int("wrong" in command[0]))

    monkeypatch.setattr(environments.subprocess, "run", pip)
    right = Rival(name="right", bare=("bare==1",), needs=("needs==2",))
    assert python_of(right, tmp_path) == tmp_path / "right/bin/python"
    installed = [command[command.index("install") + 1 :] for command in ran[1:]]
    assert [words[2:] for words in installed] == [
        [environments.TORCH],
        ["--no-deps", "bare==1"],
        [environments.TORCH, "needs==2"],
    ]
    python_of(right, tmp_path)
    assert len(ran) == 4
    with pytest.raises(RivalMissing, match="wrong: .* failed: ERROR: no such version"):
        python_of(Rival(name="wrong"), tmp_path)
