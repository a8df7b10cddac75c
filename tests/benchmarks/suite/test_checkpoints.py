# pyright: standard
"""The command measures every checkpoint that is kept, and the untrained encoder, once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.suite.checkpoints import CheckpointsConfig, losses_of, measure
from clue.data.corpus import Corpus
from clue.evaluation.matching import evaluate_matching, matching_pairs, mean_entropy
from clue.inference.text_encoder import TextEncoder
from tests.conftest import TinyRun


@pytest.fixture(scope="module")
def config(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> CheckpointsConfig:
    """The tiny run with its checkpoint twice, as of step 3 with another loss and as of step 6."""
    root = tmp_path_factory.mktemp("checkpoints")
    run = root / "run"
    shutil.copytree(tiny_run.run, run)
    shutil.copytree(run / "checkpoints/step_00000006", run / "checkpoints/step_00000003")
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "valid", "step": 3, "entropy": 9.0, "matching": {}}) + "\n")
    suite = root / "suite.yaml"
    suite.write_text(
        f"corpus: {tiny_run.corpus}\npretrain_corpus: {tiny_run.corpus}\n"
        "matching: [{name: matching/one, pairs: [[shop, news]]}, {name: other/two, pairs: []}]\n"
    )
    return CheckpointsConfig(run=run, suite=suite, out=root / "out", resamples=20)


def test_every_checkpoint_is_measured_once(config: CheckpointsConfig) -> None:
    file = measure(config)
    tree = json.loads(file.read_text())
    assert [each["name"] for each in tree["checkpoints"]] == ["step 0", "step 3", "step 6"]
    assert list(tree["tasks"]) == ["matching/one"]
    first, middle, last = tree["checkpoints"]
    assert middle["values"] == last["values"] != first["values"]  # equal weights, equal vectors
    assert middle["loss"] == 9.0
    scores = config.out / "scores.jsonl"
    written = scores.stat().st_mtime_ns
    assert len(scores.read_text().splitlines()) == 3 and measure(config) == file
    assert scores.stat().st_mtime_ns == written


def test_the_loss_of_the_untrained_encoder_is_that_of_its_weights(
    config: CheckpointsConfig, tiny_run: TinyRun
) -> None:
    corpus = Corpus.open(tiny_run.corpus)
    encoder = TextEncoder.load(config.run, seed=5)
    limit = 16  # views.max_events of the run
    pairs = matching_pairs(corpus, corpus.users_in("valid"), max_events=limit)
    items = encoder.item_inputs(corpus)
    metrics = evaluate_matching(
        pairs, lambda rows: encoder.encode_histories(corpus, rows, items=items), encoder.scale
    )
    found = losses_of(config.run, tiny_run.corpus, 5)
    assert found[0] == pytest.approx(mean_entropy(metrics), rel=1e-4)
    assert set(found) == {0, 3, 6}


def test_another_corpus_and_another_objective_are_refused(
    config: CheckpointsConfig, tiny_run: TinyRun, tiny_items: TinyRun, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is of objective next_item, which has no contrastive"):
        losses_of(tiny_items.run, tiny_items.corpus, 0)
    other = tmp_path / "corpus"
    shutil.copytree(tiny_run.corpus, other)
    manifest = other / "manifest.json"
    tree = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**tree, "fingerprint": "other"}))
    with pytest.raises(ValueError, match="did not learn from"):
        losses_of(config.run, other, 0)


def test_a_run_of_one_checkpoint_has_no_correlation(
    config: CheckpointsConfig, tiny_run: TinyRun, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="2 checkpoints with a loss; a correlation needs 3"):
        measure(replace(config, run=tiny_run.run, out=tmp_path))
