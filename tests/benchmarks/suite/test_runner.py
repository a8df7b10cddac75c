# pyright: standard
"""A suite takes every encoder of the project, and a corpus without texts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.suite import results
from benchmarks.suite.runner import SuiteConfig, asked_probes, encoders_of, run
from benchmarks.tasks.matching import MatchingConfig
from clue.data.corpus import Corpus
from clue.data.sequences import SequencesConfig
from clue.inference.encoder import load
from tests.benchmarks.item_runs import saved_run, two_services
from tests.conftest import TinyRun


def a_suite(out: Path, corpus: Path, run: Path) -> SuiteConfig:
    task = MatchingConfig(name="matching/one", pairs=[["news", "shop"]], cca_dims=4)
    return SuiteConfig(
        corpus=corpus,
        pretrain_corpus=corpus,
        encoders=[run],
        out=out,
        text_dims=8,
        resamples=20,
        matching=[task],
    )


def test_a_next_item_run_is_an_encoder_of_the_suite(tiny_items: TinyRun, tmp_path: Path) -> None:
    config = a_suite(tmp_path / "out", tiny_items.corpus, tiny_items.run)
    assert run(config) == 5
    rows = [result.model for result in results.read(config.out)]
    assert rows == ["CCA baseline", "CLUE", "TF-IDF + SVD", "item mean", "untrained"]
    corpus = Corpus.open(config.corpus)
    random = encoders_of(config, corpus)[-1]
    assert random.name == "random"
    assert random.items().shape == (corpus.num_items, load(tiny_items.run).width)
    assert np.isfinite(random.items()).all()
    assert run(config) == 0


def test_texts_that_share_no_term_leave_tfidf_out_with_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = two_services(tmp_path / "corpus")  # the text of an item is its id, which no other has
    item_run = saved_run(tmp_path, "ids", corpus, SequencesConfig())
    config = a_suite(tmp_path / "out", corpus.path, item_run)
    names = [model.name for model in encoders_of(config, corpus)]
    assert names == ["CLUE", "untrained", "item mean", "random"]
    assert "no two items share a term; TF-IDF + SVD is left out" in capfd.readouterr().err
    assert run(replace(config, tasks=["matching/*"])) == 4  # too few users for a geometry


def test_more_probes_are_asked_where_they_are_named_alone() -> None:
    probes = ["linear", "raw scores", "lightgbm", "mlp", "8-shot", "16-shot", "32-shot"]
    asked = [one for probe in probes for one in asked_probes(SuiteConfig(), probe)]
    assert asked == ["linear", "raw scores", "lightgbm"]
    few = SuiteConfig(probes=["8-shot", "mlp", "mlp-2048"])
    named = [one for probe in probes for one in asked_probes(few, probe)]
    assert named == ["mlp", "mlp-2048", "8-shot"]
