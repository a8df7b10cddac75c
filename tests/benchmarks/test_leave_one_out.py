"""Leave-one-out of checkpoints: the figures equal a slow sort, and another catalogue is refused."""

# pyright: standard

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.next_item_models import (
    Popularity,
    TrainedItems,
    training_seconds,
)
from benchmarks.leave_one_out import LeaveOneOutConfig, answers, evaluate
from clue.data.corpus import Corpus
from clue.data.sequences import EvalQueries, Sequences, SequencesConfig
from clue.run import checkpoint
from tests.benchmarks.item_runs import saved_run, two_services
from tests.benchmarks.tasks.ring import Ring, questions
from tests.conftest import TinyRun

BOTH = SequencesConfig(join="service")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return two_services(tmp_path_factory.mktemp("two"))


def by_sorting(model: TrainedItems, asked: EvalQueries, filtered: bool) -> tuple[list, list]:
    ranks, nats = [], []
    states = model.states(asked.histories).astype(np.float64)
    for row, (state, target) in enumerate(zip(states, asked.targets, strict=True)):
        history = asked.histories[row]
        scores = model.table.astype(np.float64) @ state
        gone = set(history.tolist()) - {int(target)} if filtered else set()
        left = [item for item in range(len(scores)) if item not in gone]
        ranks.append(sorted(left, key=lambda item: -scores[item]).index(target) + 1)
        nats.append(np.log(np.exp(scores[left]).sum()) - scores[target])
    return ranks, nats


def test_the_results_are_those_of_a_slow_sort(corpus: Corpus, tmp_path: Path) -> None:
    runs = [saved_run(tmp_path, name, corpus, BOTH) for name in ("a", "bb")]
    out = tmp_path / "out" / "found.json"
    config = LeaveOneOutConfig(
        checkpoints=runs, corpus=corpus.path, out=out, filter_seen=True, resamples=50
    )
    text = evaluate(config)
    assert "seen left out (headline)" in text and "seen kept\n" in text
    found = json.loads(out.read_text())
    assert found["headline"] == "seen left out" and found["questions"] == 32
    assert found["corpus"]["fingerprint"] == corpus.fingerprint
    lines = pq.read_table(out.with_suffix(".parquet")).to_pylist()
    asked = Sequences(corpus, BOTH).questions("test")
    checked = 0
    for name, run in zip(("a", "bb"), runs, strict=True):
        model = TrainedItems.open(run, corpus)
        assert found["models"][name]["fingerprint"] == checkpoint.find(run).fingerprint
        assert found["models"][name]["step"] == 5
        for seen in ("seen kept", "seen left out"):
            ranks, nats = by_sorting(model, asked, seen == "seen left out")
            mine = [line for line in lines if (line["row"], line["seen"]) == (name, seen)]
            assert [line["rank"] for line in mine] == ranks
            measured = found["tables"][seen][name]
            top = np.array(ranks) <= 10
            assert measured["HR@10"]["value"] == pytest.approx(top.mean())
            ndcg = (top / np.log2(np.array(ranks) + 1)).mean()
            assert measured["NDCG@10"]["value"] == pytest.approx(ndcg)
            assert measured["MRR"]["value"] == pytest.approx((1 / np.array(ranks)).mean())
            assert measured["cross-entropy"]["value"] == pytest.approx(np.mean(nats))
            checked += 1
    assert checked == 4
    table = found["tables"]["seen kept"]
    two = [table[name]["MRR"]["value"] for name in ("a", "bb")]
    assert table["mean"]["MRR"]["value"] == pytest.approx(np.mean(two))
    assert found["spread"]["seen kept"]["MRR"] == pytest.approx(np.std(two, ddof=1))
    gap = table["mean"]["MRR"]["value"] - table["popularity"]["MRR"]["value"]
    assert table["mean - popularity"]["MRR"]["value"] == pytest.approx(gap)


def test_who_knows_the_ring_is_right() -> None:
    asked = questions(40, [3, 20])
    found = answers(Ring(40), asked, filter_seen=False)
    assert found.ranks.expected().tolist() == [1, 1]
    assert found.nats == pytest.approx([np.log(np.e + 39) - 1] * 2)
    assert found.lists[:, 0].tolist() == asked.targets.tolist()


def test_popularity_has_the_cross_entropy_of_its_shares() -> None:
    asked = questions(4, [1, 2])  # targets 1 and 3
    found = answers(Popularity(np.array([3, 1, 0, 0])), asked, filter_seen=False)
    assert found.nats == pytest.approx(np.log([8 / 2, 8 / 1]))
    assert found.ranks.expected().tolist() == [2, 3.5]


def test_another_catalogue_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    other = two_services(tmp_path / "other", items=29)
    run = saved_run(tmp_path, "other", other, BOTH)
    with pytest.raises(ValueError, match=r"catalogue\.arrow .* is not the catalogue of"):
        TrainedItems.open(run, corpus)
    # as many items as the corpus has, under other names
    moved = two_services(tmp_path / "moved", items=30)
    names = moved.item_ids.to_pylist()
    run = saved_run(tmp_path, "moved", moved, SequencesConfig(services=["shop"]))
    assert TrainedItems.open(run, corpus).parameters and len(names) == 60
    with pytest.raises(ValueError, match="sequences.services names shop"):
        only_news = two_services(tmp_path / "news")
        only_news.services = ("news", "sports")
        TrainedItems.open(run, only_news)


def test_a_missing_run_and_another_kind_of_model_are_refused(
    corpus: Corpus, tmp_path: Path, tiny_run: TinyRun
) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*nowhere"):
        TrainedItems.open(tmp_path / "nowhere", corpus)
    with pytest.raises(ValueError, match="is a contrastive model"):
        TrainedItems.open(tiny_run.run, Corpus.open(tiny_run.corpus))


def test_seeds_of_other_sequences_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    runs = [saved_run(tmp_path, "a", corpus, BOTH)]
    runs += [saved_run(tmp_path, "b", corpus, SequencesConfig(join="service", held_out=3))]
    config = LeaveOneOutConfig(checkpoints=runs, corpus=corpus.path, out=tmp_path / "x.json")
    with pytest.raises(ValueError, match="compare models of equal sequences"):
        evaluate(config)
    with pytest.raises(ValueError, match="names a; give runs of other names"):
        evaluate(LeaveOneOutConfig(checkpoints=[runs[0]] * 2, corpus=corpus.path))
    with pytest.raises(ValueError, match="give either checkpoint=RUN or checkpoints"):
        LeaveOneOutConfig()


def test_training_seconds_are_means_times_steps(corpus: Corpus, tmp_path: Path) -> None:
    run = saved_run(tmp_path, "timed", corpus, BOTH)
    assert np.isnan(training_seconds(checkpoint.find(run)))
    lines = [{"kind": "start", "step": 0}]
    lines += [{"kind": "train", "step": step, "seconds": s} for step, s in ((2, 1.0), (4, 0.5))]
    lines += [{"kind": "valid", "step": 4}, {"kind": "train", "step": 8, "seconds": 2.0}]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # the checkpoint is of step 5: two steps of 1 s, two of 0.5 s, one of 2 s
    assert training_seconds(checkpoint.find(run)) == 5.0
