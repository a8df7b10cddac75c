# pyright: standard
"""The page of a run shows all of it, asks for nothing, and what a log says stays text."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.baselines.representations import EncoderModel
from benchmarks.metrics.format import number
from benchmarks.protocols import one_block
from benchmarks.report.run_page import RunReportConfig, curves, report
from benchmarks.report.sections import slices
from benchmarks.snapshot import Snapshot
from benchmarks.suite import results
from benchmarks.suite.summary import tables
from benchmarks.suite.user_map import MAX_GROUPS, example_users, flat_map, groups_of
from benchmarks.tasks.matching import MatchingConfig
from clue.data.corpus import Corpus
from clue.data.sequences import SequencesConfig
from clue.monitor.read_log import RunHistory
from tests.benchmarks.item_runs import saved_run
from tests.benchmarks.report.offline import offline
from tests.benchmarks.results_fixture import FakeModel, FakeTask
from tests.benchmarks.worlds import corpus_of, parts
from tests.conftest import TinyRun

PAIRS = [["shop", "news"], ["shop", "films"], ["news", "films"]]
EVIL = "<script>alert('x')</script>&\"$y$"


@dataclass
class Vectors:
    """A model of given vectors: a user's is that of their newest item."""

    items_: np.ndarray
    name: str = "given"
    seed: int = 0
    fingerprint: str = "given"

    @property
    def blocks(self) -> Mapping[str, slice]:
        return one_block(self.items_.shape[1])

    @property
    def similarity(self) -> slice:
        return slice(None)

    def users(self, past: Snapshot) -> np.ndarray:
        newest = [np.array([row[-1] for row in items]) for items, _ in past.parts[:1]]
        return self.items_[newest[0]]

    def items(self) -> np.ndarray:
        return self.items_


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    split = {f"{user}{EVIL}": part for user, part in parts(24).items()}
    events = [
        (user, service, f"{EVIL}{number % 7}")
        for number, user in enumerate(split)
        for service in ("<b>shop</b>", "news")
        for number in range(number, number + 3)
    ]
    return corpus_of(tmp_path_factory.mktemp("hostile"), events, split)


def scored(run: Path, corpus: Path, out: Path, names: Sequence[str] = ("CLUE",)) -> Path:
    """The run and its controls on matching, by the suite's own task."""
    opened = Corpus.open(corpus)
    task = MatchingConfig(name="matching/all", pairs=PAIRS, cca_dims=0).build(opened)
    models = [
        *(EncoderModel(name, run, opened, seed=0, untrained=False) for name in names),
        EncoderModel("untrained", run, opened, seed=0, untrained=True),
    ]
    for model in models:
        results.make(out, task, model, "zero-shot", resamples=20, seed=0)
    return out


@dataclass(frozen=True)
class Made:
    text: str
    config: RunReportConfig


@pytest.fixture(scope="module")
def made(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("page")
    config = RunReportConfig(
        run=tiny_run.run,
        corpus=tiny_run.corpus,
        results=scored(tiny_run.run, tiny_run.corpus, folder / "results"),
        users=tiny_run.corpus.parent / "logs" / "users.parquet",
        label="category",
        out=folder / "report.html",
    )
    return Made(report(config).read_text(encoding="utf-8"), config)


def test_the_page_is_one_file_that_fetches_nothing(made: Made) -> None:
    tags = offline(made.text)
    assert tags.count("svg") == 4 and tags.count("path") > 100  # three curves and the map


def test_the_page_shows_curves_map_users_and_table(made: Made) -> None:
    page, config = made.text, made.config
    for words in ("Training loss", "R@10", "contrastive entropy", "true category", "chance"):
        assert words in page
    assert page.count("<h3>User ") == 3
    groups = groups_of(Corpus.open(config.corpus), config.users, "category")
    for name in groups.names:
        assert f"</b> {name}</span>" in page  # in the legend
    ours, untrained = (
        next(r for r in results.read(config.results) if r.model == name)
        for name in ("CLUE", "untrained")
    )
    assert ours.about["model_fingerprint"] in page
    table = page.split("Against its controls")[1]
    checked = 0
    for name in list(ours.values)[:2]:
        texts = [number(name, one.values[name].value) for one in (ours, untrained)]
        cells = [rf"<td[^>]*>{re.escape(text)}<small>.*?</td>" for text in texts]
        assert re.search(r"\s*".join(cells), table, re.DOTALL), name
        checked += 1
    assert checked == 2


def test_every_measure_and_slice_is_in_the_details(made: Made) -> None:
    page, scores = made.text, results.read(made.config.results)
    details = page.split("Every measure, every seed")[1]
    checked = 0
    for result in scores:
        for name, found in result.values.items():
            assert f"{number(name, found.value)} [{number(name, found.low)}" in details
            checked += 1
    assert checked == 2 * 5
    kinds = [one.kind for one in slices(tables(scores, resamples=10)[0])]
    assert kinds == ["direction", "history"] and "By direction, history" in page


def test_results_of_another_model_are_refused(made: Made, tmp_path: Path) -> None:
    scores = made.config.results / results.FILE
    fingerprint = results.read(made.config.results)[0].about["model_fingerprint"]
    (tmp_path / results.FILE).write_text(scores.read_text().replace(fingerprint, "another"))
    config = RunReportConfig(run=made.config.run, corpus=made.config.corpus, results=tmp_path)
    with pytest.raises(ValueError, match="results of another model"):
        report(config)


def test_a_run_without_scores_has_a_page_that_says_how_to_make_them(
    made: Made, tmp_path: Path
) -> None:
    config = RunReportConfig(
        run=made.config.run,
        corpus=made.config.corpus,
        results=tmp_path / "none",
        out=tmp_path / "report.html",
    )
    page = report(config).read_text()
    assert f"python -m benchmarks.suite SUITE.yaml encoders=[{config.run}]" in page
    assert page.count("<h3>User ") == 3 and "<h2>How it learned" in page


def test_a_next_item_run_opens_too(tiny_items: TinyRun, tmp_path: Path) -> None:
    config = RunReportConfig(
        run=tiny_items.run,
        corpus=tiny_items.corpus,
        results=scored(tiny_items.run, tiny_items.corpus, tmp_path / "results"),
        out=tmp_path / "report.html",
    )
    page = report(config).read_text()
    offline(page)
    for words in ("Training loss", "Next items of valid users, HR@10", "cross-entropy", "chance"):
        assert words in page
    assert "reads the ids of a user" in page and page.count("<h3>User ") == 3
    assert "matching/all" in page


def test_a_universal_run_opens_with_the_curves_of_both_parts(
    tiny_universal: TinyRun, tmp_path: Path
) -> None:
    config = RunReportConfig(
        run=tiny_universal.run,
        corpus=tiny_universal.corpus,
        results=scored(tiny_universal.run, tiny_universal.corpus, tmp_path / "results"),
        out=tmp_path / "report.html",
    )
    page = report(config).read_text()
    offline(page)
    titles = ("Training loss", "Matching on valid users, R@10", "Next items of valid users, HR@10")
    for words in (*titles, "made of blocks", "next films", "shop-news"):
        assert words in page
    assert page.count("<h3>User ") == 3


def test_each_part_of_a_universal_run_has_its_line_of_the_loss() -> None:
    steps: list[Any] = [{"step": 1, "loss": 6.0, "in_batch_recall": 0.1}, {"step": 2, "loss": 9.0}]
    (_, both), (_, one) = (curves(RunHistory(train=train))[0] for train in (steps, steps[:1]))
    assert [f">{name}<" in both for name in ("views", "next item")] == [True, True]
    assert ">next item<" not in one


def test_texts_of_the_log_and_of_the_scores_stay_text(hostile: Corpus, tmp_path: Path) -> None:
    run = saved_run(tmp_path, "evil", hostile, SequencesConfig())
    valid = {"kind": "valid", "step": 1, "entropy": 2.0}
    figures = {"recall_at_10": 0.5, "cross_entropy": None, "negatives": 6.0}
    lines = [{"kind": "train", "step": 1, "loss": 2.0}, {**valid, "next_item": {EVIL: figures}}]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.yaml").write_text(f"name: {EVIL}\n")
    task = FakeTask(EVIL, EVIL, "auroc", {"CLUE": 0.5, EVIL: 0.2, "untrained": 0.1})
    model = EncoderModel("CLUE", run, hostile, seed=0, untrained=False)
    for name in task.quality:
        print_ = model.fingerprint if name == "CLUE" else "other"
        fake = FakeModel(name, fingerprint=print_)
        results.make(tmp_path, task, fake, "linear", resamples=10, seed=0)
    page = report(RunReportConfig(run=run, corpus=hostile.path, results=tmp_path)).read_text()
    offline(page)
    assert "<script" not in page and "<b>shop" not in page
    assert page.count("&lt;script&gt;") > 20 and "&lt;b&gt;shop&lt;/b&gt;" in page


def test_curves_of_many_pairs_are_their_mean_over_thin_lines() -> None:
    figures = {"recall_at_10": 0.5, "calibrated_entropy": 2.0, "negatives": 99.0}
    pairs = {f"pair {number}": figures for number in range(6)}
    log: list[Any] = [{"step": step, "entropy": 2.0, "matching": pairs} for step in (10, 20)]
    charts = curves(RunHistory(valid=log))
    assert [title.split(", ")[1] for title, _ in charts] == ["R@10", "contrastive entropy"]
    for _, chart in charts:
        assert ">mean<" in chart and ">chance<" in chart and "pair" not in chart
    one: list[Any] = [{"step": 1, "entropy": 2.0, "matching": {"a-b": figures}}]
    assert all(">a-b<" in chart for _, chart in curves(RunHistory(valid=one)))
    assert curves(RunHistory()) == []


def test_neighbours_are_near_unseen_and_of_the_service(hostile: Corpus) -> None:
    model = Vectors(np.random.default_rng(0).normal(size=(hostile.num_items, 5)))
    groups = groups_of(hostile, None, None)
    examples = example_users(hostile, groups, model)
    assert len({one.user_id for one in examples}) == 3
    checked = 0
    for example in examples:
        user = hostile.user_ids.to_pylist().index(example.user_id)
        assert groups.number[groups.users == user].tolist() == [example.group]
        vector = model.items_[hostile.items_of(0)[user][-1]]
        for number_, shelf in enumerate(example.services):
            assert shelf.service == hostile.services[number_] and shelf.events == 3
            seen = hostile.items_of(number_)[user].tolist()
            assert shelf.newest == [str(hostile.item_texts[i]) for i in reversed(seen)]
            of_service = np.flatnonzero(hostile.item_service == number_)
            unseen = [i for i in of_service.tolist() if i not in seen]
            best = sorted(unseen, key=lambda i: -float(model.items_[i] @ vector))
            assert shelf.nearest == [str(hostile.item_texts[i]) for i in best]
            checked += len(best)
    assert checked == 3 * 8  # seven items a service, three of them seen


def test_without_a_table_users_are_grouped_by_their_service(tiny_run: TinyRun) -> None:
    corpus = Corpus.open(tiny_run.corpus)
    groups = groups_of(corpus, None, None)
    events = [corpus.items_of(service).lengths for service in range(3)]
    assert groups.meaning == "most used service" and len(groups.users) > 20
    for user, number_ in zip(groups.users, groups.number, strict=True):
        most = corpus.services.index(groups.names[number_])
        assert events[most][user] == max(each[user] for each in events)
    sizes = np.bincount(groups.number, minlength=3)
    assert sizes.tolist() == sorted(sizes, reverse=True) and len(groups.names) <= MAX_GROUPS


@pytest.mark.parametrize("users", [1, 3, 60])
def test_maps_of_few_and_of_equal_users_are_finite(users: int) -> None:
    assert flat_map(np.random.default_rng(0).normal(size=(users, 8))).shape == (users, 2)
    assert np.isfinite(flat_map(np.ones((users, 8)))).all()


def test_a_map_keeps_far_groups_apart() -> None:
    rng = np.random.default_rng(1)
    centers = np.repeat(np.eye(3) * 10, 30, axis=0)
    points = flat_map(centers + rng.normal(size=(90, 3)) * 0.1)
    middles = points.reshape(3, 30, 2).mean(1)
    inside = np.linalg.norm(points.reshape(3, 30, 2) - middles[:, None], axis=2).max()
    between = np.linalg.norm(middles[0] - middles[1])
    assert between > 2 * inside
