"""Next-item models in the suite: figures equal a slow sort, runs that know too much are refused."""

# pyright: standard

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.next_item_models import (
    ItemPopularity,
    TrainedItems,
    learning_curve,
    training_seconds,
)
from benchmarks.external.rectools_sasrec import RectoolsConfig
from benchmarks.suite import paired, results
from benchmarks.suite.runner import SuiteConfig, run
from benchmarks.tasks.conditions import Answers, parts
from benchmarks.tasks.item_ranking import ItemRankingConfig, leave_one_out
from clue.data.corpus import Corpus
from clue.data.sequences import EvalQueries, SequencesConfig
from clue.run import checkpoint
from tests.benchmarks.item_runs import saved_run, two_services
from tests.benchmarks.tasks.ring import Ring, questions
from tests.conftest import TinyRun

TAIL = SequencesConfig(join="service", held_out=6)
OWN = SequencesConfig(join="service", services=["shop"])
BOTH = SequencesConfig(join="service")
LADDER = (
    ItemRankingConfig(name="long-tail", kind="long tail", sequences=TAIL),
    ItemRankingConfig(name="cold-start", kind="cold start", sequences=TAIL, lengths=[1, 4]),
    ItemRankingConfig(name="corruption", kind="corruption", sequences=TAIL, rates=[0.0, 0.5]),
    ItemRankingConfig(name="rollout", kind="rollout", sequences=TAIL, steps=5),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return two_services(tmp_path_factory.mktemp("two"))


def suite(
    corpus: Corpus, out: Path, models: dict[str, list[Path]], *tasks: ItemRankingConfig
) -> SuiteConfig:
    return SuiteConfig(
        name="items",
        corpus=corpus.path,
        out=out,
        item_models=models,
        item_ranking=list(tasks),
        resamples=40,
    )


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
    config = ItemRankingConfig(name="films", kind="leave one out", sequences=BOTH, filter_seen=True)
    whole = suite(corpus, tmp_path / "out", {"small": runs}, config)
    assert run(replace(whole, pairs=[["small", "popularity"]])) == 3
    made = {(one.model, one.seed): one for one in results.read(whole.out)}
    asked = config.build(corpus).queries
    assert len(asked.targets) == 32
    checked = 0
    for seed, path in enumerate(runs):
        model, result = TrainedItems.open(path), made["small", seed]
        assert result.main == "NDCG@10 [seen left out]" and result.count == 32
        assert result.about["model_fingerprint"] == checkpoint.find(path).fingerprint
        assert (result.chosen["step"], result.chosen["parameters"] > 0) == (5, True)
        queries = pq.read_table(result.queries)
        for seen in ("seen kept", "seen left out"):
            ranks, nats = by_sorting(model, asked, seen == "seen left out")
            assert queries[f"rank [{seen}]"].to_pylist() == ranks
            top = np.array(ranks) <= 10
            truth = {
                "HR@10": top.mean(),
                "NDCG@10": (top / np.log2(np.array(ranks) + 1)).mean(),
                "MRR": (1 / np.array(ranks)).mean(),
                "cross-entropy": np.mean(nats),
            }
            for name, value in truth.items():
                assert result.values[f"{name} [{seen}]"].value == pytest.approx(value)
                checked += 1
    assert checked == 16
    (pair,) = paired.read(whole.out)
    for name, delta in pair.deltas.items():
        each = [made["small", seed].values[name].value for seed in (0, 1)]
        gap = np.mean(each) - made["popularity", 0].values[name].value
        assert delta.value == pytest.approx(gap)
        assert delta.low <= delta.high
    assert len(pair.deltas) == 10


def test_every_task_of_a_ladder_is_measured_once_and_its_ends_are_subtracted(
    corpus: Corpus, tmp_path: Path
) -> None:
    models = {
        size: [saved_run(tmp_path / "runs", f"tail_{size}", corpus, TAIL, width=width)]
        for size, width in {"small": 8, "large": 12}.items()
    }
    config = replace(suite(corpus, tmp_path / "out", models, *LADDER), pairs=[["large", "small"]])
    assert run(config) == 4 * 3  # two sizes and popularity
    made = {(one.task, one.model): one for one in results.read(config.out)}
    pairs = paired.read(config.out)
    assert [pair.task for pair in pairs] == sorted(task.name for task in LADDER)
    checked = 0
    for pair in pairs:
        rows = [made[pair.task, model] for model in ("large", "small", "popularity")]
        assert [row.users for row in rows] == [16] * 3
        for name, delta in pair.deltas.items():
            gap = rows[0].values[name].value - rows[1].values[name].value
            assert delta.value == pytest.approx(gap) and not delta.low > delta.high
            checked += 1
    assert checked == 8 + 2 * 3 + 2 * 2 * 3 + 6
    before = (config.out / "paired.jsonl").read_text()
    assert run(config) == 0
    assert (config.out / "paired.jsonl").read_text() == before
    shorter = replace(LADDER[1], lengths=[1, 2])
    assert run(replace(config, item_ranking=[LADDER[0], shorter])) == 3  # cold start alone
    with pytest.raises(ValueError, match="pairs: no task has both large and middle"):
        run(replace(config, pairs=[["large", "middle"]]))


def test_models_of_more_services_answer_the_questions_of_one(
    corpus: Corpus, tmp_path: Path
) -> None:
    models = {
        kind: [saved_run(tmp_path / "runs", kind, corpus, sequences)]
        for kind, sequences in {"scratch": OWN, "mix": BOTH}.items()
    }
    news = SequencesConfig(join="service", services=["news"])
    models["news"] = [saved_run(tmp_path / "runs", "news", corpus, news)]
    task = ItemRankingConfig(name="to-shop", kind="leave one out", sequences=OWN)
    config = suite(corpus, tmp_path / "out", models, task)
    assert run(replace(config, pairs=[["mix", "scratch"]])) == 3  # and popularity, without news
    made = {one.model: one for one in results.read(config.out)}
    assert set(made) == {"scratch", "mix", "popularity"}
    for row in made.values():
        assert row.count == 16 and row.about["recipe"]["items"] == 30
    (pair,) = paired.read(config.out)
    name = "NDCG@10 [seen kept]"
    gap = made["mix"].values[name].value - made["scratch"].values[name].value
    assert gap != 0 and pair.deltas[name].value == pytest.approx(gap)


def test_a_model_that_may_know_the_answers_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    def asked(name: str, sequences: SequencesConfig, of: SequencesConfig = OWN) -> int:
        models = {name: [saved_run(tmp_path / "runs", name, corpus, sequences)]}
        task = ItemRankingConfig(name="t", kind="long tail", sequences=of)
        return run(suite(corpus, tmp_path / name, models, task))

    with pytest.raises(ValueError, match=r"sequences\.join=time, which may hold the answers"):
        asked("joined", SequencesConfig())
    with pytest.raises(ValueError, match=r"sequences\.split=temporal and"):
        asked("moments", SequencesConfig(join="service", split="temporal"))
    with pytest.raises(ValueError, match="compare models of equal sequences"):
        asked("tail", TAIL, BOTH)
    short = ItemRankingConfig(name="r", kind="rollout", sequences=BOTH, steps=5)
    models = {"short": [saved_run(tmp_path, "short", corpus, BOTH)]}
    with pytest.raises(ValueError, match=r"sequences\.held_out=6"):
        run(suite(corpus, tmp_path / "short", models, short))


def test_wrong_runs_are_refused_by_name(corpus: Corpus, tmp_path: Path, tiny_run: TinyRun) -> None:
    task = ItemRankingConfig(name="t", kind="long tail", sequences=BOTH)
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*lost"):
        run(suite(corpus, tmp_path / "x", {"lost": [tmp_path / "lost"]}, task))
    other = two_services(tmp_path / "other", items=29)
    alien = {"alien": [saved_run(tmp_path, "alien", other, BOTH)]}
    with pytest.raises(ValueError, match=r"alien.* does not know 2 of 60 items of news, shop"):
        run(suite(corpus, tmp_path / "x", alien, task))
    with pytest.raises(ValueError, match="is a contrastive model"):
        TrainedItems.open(tiny_run.run)
    with pytest.raises(ValueError, match="item_models names no run"):
        run(suite(corpus, tmp_path / "x", {}, task))


def test_who_knows_the_ring_is_right() -> None:
    asked = questions(40, [3, 20])
    columns = leave_one_out(Ring(40), asked, filter_seen=False).columns
    assert columns["rank [seen kept]"].tolist() == [1, 1]
    assert columns["cross-entropy [seen kept]"] == pytest.approx([np.log(np.e + 39) - 1] * 2)
    assert columns["coverage@10 [seen kept]"][:, 0].tolist() == asked.targets.tolist()


def test_popularity_has_the_cross_entropy_of_its_shares() -> None:
    asked = questions(4, [1, 2])  # targets 1 and 3
    model = ItemPopularity(np.array([3, 1, 0, 0]))
    columns = leave_one_out(model, asked, filter_seen=False).columns
    assert columns["cross-entropy [seen kept]"] == pytest.approx(np.log([8 / 2, 8 / 1]))
    assert columns["rank [seen kept]"].tolist() == [2, 3.5]


def test_each_measure_is_over_what_its_condition_asks() -> None:
    answers = Answers(np.arange(4))
    hit = np.array([1.0, 0.0, 0.5, 0.0])
    for name, members in (("a", [1, 1, 0, 0]), ("b", [0, 0, 1, 1])):
        answers.subset_mean("hit", name, hit, np.array(members, bool))
    answers.coverage("all", np.array([[0, 1], [1, 2], [0, 1], [0, 2]]), 6)
    whole = answers.mean("gain", "whole", np.ones(4))
    half = answers.mean("gain", "half", np.array([1.0, 0.0, 1.0, 0.0]))
    answers.ratio("retained", "half", half, whole)
    scored = answers.scored(pa.array(["u", "v", "w", "x"]), {})
    found, _ = results.measured(scored, resamples=2000, seed=0)
    assert {name: x.value for name, x in found.items()} == {
        "hit [a]": 0.5,
        "hit [b]": 0.25,
        "coverage@2 [all]": 0.5,
        "gain [whole]": 1.0,
        "gain [half]": 0.5,
        "retained [half]": 0.5,
    }
    assert all(x.low <= x.value <= x.high for x in found.values())
    covered = found["coverage@2 [all]"]  # a resample covers less: its draws are moved to the value
    assert covered.low < 0.5 < covered.high
    assert parts("hit [a]") == ("hit", "a") and parts("MRR") == ("MRR", "")


def test_training_seconds_and_the_curve_count_steps_alone(corpus: Corpus, tmp_path: Path) -> None:
    path = saved_run(tmp_path, "timed", corpus, BOTH)
    assert np.isnan(training_seconds(path, 5)) and learning_curve(path) == []
    figures = {"cross_entropy": 6.0, "recall_at_10": 0.2, "ndcg_at_10": 0.1}
    second = {"seconds": 0.5, "processor_seconds": 1.0}
    lines = [
        {"kind": "start", "step": 0},
        {"kind": "train", "step": 2, "seconds": 1.0, "processor_seconds": 0.5},
        {"kind": "train", "step": 4, **second},
        {"kind": "valid", "step": 4, "next_item": {"next item": figures}},
        {"kind": "train", "step": 8, "seconds": 2.0, "processor_seconds": 2.0},
        {"kind": "valid", "step": 8, "next_item": {"next item": {**figures, "cross_entropy": 5}}},
    ]
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # of the checkpoint of step 5: two steps of 1 s, two of 0.5 s, one of 2 s
    assert training_seconds(path, 5) == 5.0
    curve = learning_curve(path)
    assert [line["processor_seconds"] for line in curve] == [3.0, 11.0]
    assert curve[0]["HR@10 seen kept"] == 0.2 and curve[1]["loss"] == 5


def test_configs_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rates are \[0.1\]"):
        ItemRankingConfig(name="x", kind="corruption", rates=[0.1])
    with pytest.raises(ValueError, match=r"lengths are \[0\]"):
        ItemRankingConfig(name="x", kind="cold start", lengths=[0])
    with pytest.raises(ValueError, match="steps is 0"):
        ItemRankingConfig(name="x", kind="rollout", steps=0)
    with pytest.raises(ValueError, match="rectools answers leave one out alone"):
        ItemRankingConfig(name="x", kind="rollout", rectools=RectoolsConfig())
