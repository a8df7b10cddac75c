"""The command runs every task on a real, tiny run, and the report of it needs nothing else."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.demo import summary
from benchmarks.evaluate import AttributeConfig, EvaluateConfig, evaluate, main
from benchmarks.models import EncoderVectors
from benchmarks.next_item import questions, standings
from benchmarks.results import read_results
from clue.data.corpus import Corpus
from clue.evaluation.encode import last_states
from clue.evaluation.ranking import table_ranks
from clue.inference.item_id_encoder import ItemIdEncoder
from tests.benchmarks.worlds import corpus_of
from tests.conftest import TinyRun


@pytest.fixture(scope="module")
def evaluated(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> EvaluateConfig:
    """The tiny run's results, and as its printed text OUT/printed.txt."""
    out = tmp_path_factory.mktemp("results")
    users = tiny_run.corpus.parent / "logs" / "users.parquet"
    config = EvaluateConfig(
        name="tiny",
        checkpoint=tiny_run.run,
        corpus=tiny_run.corpus,
        out=out,
        attributes=[AttributeConfig(users=users, label="category")],
        text_dims=16,
        resamples=50,
    )
    (out / "printed.txt").write_text(evaluate(config), encoding="utf-8")
    return config


def test_every_task_has_its_rows(evaluated: EvaluateConfig) -> None:
    tables, about = read_results(evaluated.out / "results.json")
    main = {(table.task, table.users): table for table in tables if table.main}
    controls = {"trained", "untrained", "text", "popularity"}
    assert set(main["matching", "test alone"].rows) == {*controls, "floor"}
    assert set(main["attribute", "test alone"].rows) == {*controls, "prior"}
    assert set(main["next item", "test alone"].rows) == controls
    assert {task for task, _ in main} == {"matching", "attribute", "next item"}
    assert about["corpus"]["fingerprint"] == Corpus.open(evaluated.corpus).fingerprint
    assert set(about["seconds"]) == {"matching", "attribute category", "next item"}
    for table in tables:
        assert set(table.headline) <= set(table.rows["trained"].measures)
        for row in table.rows.values():
            for found in row.measures.values():
                assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    printed = (evaluated.out / "printed.txt").read_text(encoding="utf-8")
    assert "Test users alone" in printed and "nan" not in printed


def test_per_user_results_name_the_users_of_the_table(evaluated: EvaluateConfig) -> None:
    lines = pq.read_table(evaluated.out / "per_user.parquet").to_pandas()
    tables, _ = read_results(evaluated.out / "results.json")
    table = next(t for t in tables if t.task == "attribute")
    mine = lines[(lines.task == "attribute") & (lines.row == "trained")]
    assert len(mine) == table.count
    held_out = lines[lines.task != "attribute"].user_id
    corpus = Corpus.open(evaluated.corpus)
    split = dict(zip(corpus.user_ids.to_pylist(), corpus.split.tolist(), strict=True))
    assert {split[user] for user in held_out} == {1, 2}
    assert {split[user] for user in mine.user_id} == {2}


def test_the_same_command_gives_the_same_results(evaluated: EvaluateConfig, tmp_path: Path) -> None:
    evaluate(dataclasses.replace(evaluated, out=tmp_path, matching=False, attributes=[]))
    again, _ = read_results(tmp_path / "results.json")
    before, _ = read_results(evaluated.out / "results.json")
    assert again == [table for table in before if table.task == "next item"] != []


def test_a_next_item_checkpoint_has_the_same_rows(
    evaluated: EvaluateConfig, tiny_items: TinyRun, tmp_path: Path
) -> None:
    evaluate(dataclasses.replace(evaluated, checkpoint=tiny_items.run, out=tmp_path))
    tables, about = read_results(tmp_path / "results.json")
    others, _ = read_results(evaluated.out / "results.json")
    assert [set(table.rows) for table in tables] == [set(table.rows) for table in others]
    assert about["model"]["width"] == 17
    trained = [table.rows["trained"].measures for table in tables if table.task == "matching"]
    assert trained and not any("entropy at own scale" in measures for measures in trained)


def test_next_items_are_ranked_as_the_model_ranks_them(tiny_items: TinyRun) -> None:
    corpus, encoder = Corpus.open(tiny_items.corpus), ItemIdEncoder.load(tiny_items.run)
    asked = questions(corpus, 0, np.flatnonzero(corpus.split > 0))
    vectors = EncoderVectors(encoder, corpus)
    found = standings(corpus, asked, {"trained": vectors}, filter_seen=False)["trained"]
    history = asked.past[asked.service]
    states = last_states(encoder.model, history)
    table = encoder.model.decoder.item.weight.detach()[torch.from_numpy(asked.catalogue)]
    expected = table_ranks(states, torch.from_numpy(asked.targets), table).expected()
    assert len(asked.users) > 20
    # two items may lie within the rounding of a score
    np.testing.assert_allclose(found.expected(), expected, atol=1)
    assert (found.expected() == expected).mean() > 0.9


def test_a_corpus_of_another_catalogue_ends_with_one_line(
    tiny_items: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    events = [(user, "shop", name) for user in "abc" for name in ("spoon", "fork")]
    corpus = corpus_of(tmp_path, events, {"a": "train", "b": "valid", "c": "test"})
    arguments = [f"checkpoint={tiny_items.run}", f"corpus={corpus.path}", f"out={tmp_path / 'x'}"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "error: " in (said := capfd.readouterr().err) and "the first of them 'fork'" in said


def test_a_wrong_command_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", f"corpus={tmp_path / 'none'}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capfd.readouterr().err.startswith("error: no corpus in")


def test_configs_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no task"):
        EvaluateConfig(matching=False, next_item=None)
    with pytest.raises(ValueError, match="resamples is 0"):
        EvaluateConfig(resamples=0)


def test_the_summary_counts_what_is_clearly_ahead(evaluated: EvaluateConfig) -> None:
    tables, _ = read_results(evaluated.out / "results.json")
    text = summary(tables)
    assert "matching: all pairs of services" in text and "shop-news" not in text
    assert re.search(r"in \d of 5 measures", text)
