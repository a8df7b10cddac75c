"""Each block is left out once, on valid users alone, and the others stay what they are."""

# pyright: standard

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.concatenated import WithoutBlock, whole_items
from benchmarks.baselines.representations import EncoderModel
from benchmarks.metrics.bootstrap import Interval
from benchmarks.snapshot import snapshot_at
from benchmarks.suite import ablation, paired, results
from benchmarks.suite.ablation import on_valid_users, run
from clue.data.corpus import Corpus
from tests.benchmarks.suite.test_runner import a_suite
from tests.conftest import TinyRun


def test_valid_users_stand_for_test_users_and_a_tenth_of_training_for_them(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.open(tiny_run.corpus)
    view = on_valid_users(corpus)
    assert np.array_equal(view.users_in("test"), corpus.users_in("valid"))
    drawn, training = view.users_in("valid"), corpus.users_in("train")
    both = np.concatenate([drawn, view.users_in("train")])
    assert set(both) == set(training) and len(drawn) == len(training) // 10 > 10
    monkeypatch.setattr(ablation, "FITTED", 40)
    fewer = on_valid_users(corpus)
    for number in range(len(corpus.services)):
        some = corpus.items_of(number).lengths[np.isin(fewer.split, (0, 1))] > 0
        assert 40 <= some.sum() <= 40 * len(corpus.services) < len(training)
    assert set(view.split[corpus.split == 2].tolist()) == {3}
    assert view.fingerprint != corpus.fingerprint
    assert np.array_equal(corpus.split, Corpus.open(tiny_run.corpus).split)


def test_without_a_block_the_others_stay_what_they_are(tiny_universal: TinyRun) -> None:
    corpus = Corpus.open(tiny_universal.corpus)
    whole = EncoderModel("CLUE", tiny_universal.run, corpus, seed=0, untrained=False)
    past = snapshot_at(corpus, np.arange(20))
    vectors, items, compared = whole.users(past), whole.whole_items, 0
    for left_out in whole.blocks:
        model = WithoutBlock(whole, left_out)
        users, of_items = model.users(past), whole_items(model)
        assert left_out not in model.blocks and len(model.blocks) == len(whole.blocks) - 1
        for name, columns in model.blocks.items():
            assert np.array_equal(users[:, columns], vectors[:, whole.blocks[name]])
            assert np.array_equal(of_items[:, columns], items[:, whole.blocks[name]])
            compared += users[:, columns].size
        ranked = np.flatnonzero((model.items() != 0).any(0))
        if left_out != "predictive":
            assert set(ranked) <= set(
                range(*model.blocks["predictive"].indices(users.shape[1])[:2])
            )
        else:
            assert len(ranked) > whole.blocks["predictive"].stop - whole.blocks["predictive"].start
    assert compared > 5_000
    with pytest.raises(ValueError, match="nothing cannot go"):
        WithoutBlock(whole, "nothing")


def test_the_command_scores_the_whole_and_each_block_left_out(
    tiny_universal: TinyRun, tmp_path: Path
) -> None:
    config = a_suite(tmp_path / "out", tiny_universal.corpus, tiny_universal.run)
    assert run(config) == 8 and run(config) == 0
    out = tmp_path / "out" / "ablation"
    made = results.read(out)
    valid = len(Corpus.open(tiny_universal.corpus).users_in("valid"))
    assert len(made) == 8 and all(0 < result.users <= valid for result in made)
    assert not any(result.slices for result in made)
    assert len({tuple(result.values.items()) for result in made}) > 1  # a block changes something
    differences = paired.read(out)
    assert {pair.model for pair in differences} == {r.model for r in made} - {"CLUE"}
    table = (out / "ablation.md").read_text()
    assert table.startswith("| task | measure | CLUE | without contrastive |")
    assert table.count("\n") == 3

    whole = next(result for result in made if result.model == "CLUE")
    seeds = [
        replace(whole, seed=seed, values={whole.main: Interval(value, 0.0, 1.0)})
        for seed, value in enumerate((0.25, 0.5, 0.3))
    ]
    assert ablation.table(seeds, []).endswith(f"| {whole.task} | {whole.main} | .350 |\n")
