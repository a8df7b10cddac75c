"""Nothing that a log says can become markup in the report."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.metrics.bootstrap import Interval
from benchmarks.models import Vectors
from benchmarks.report.run_page import benchmark_table, person_card, read_log
from benchmarks.results import Row, Table
from benchmarks.suite.user_map import flat_map, groups_of, three_people
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import Lookup, corpus_of, parts

EVIL = "<script>alert('x')</script>&\""


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


def model_of(corpus: Corpus) -> Vectors:
    return Lookup(np.random.default_rng(0).normal(size=(corpus.num_items, 5)))


def test_texts_of_the_log_stay_text(hostile: Corpus) -> None:
    groups = groups_of(hostile, None, None)
    cards = [person_card(one, groups) for one in three_people(hostile, groups, model_of(hostile))]
    assert len(cards) == 3
    for card in cards:
        assert "<script" not in card and "<b>" not in card
        assert "&lt;script&gt;" in card and "&lt;b&gt;shop&lt;/b&gt;" in card


def test_names_of_a_table_stay_text() -> None:
    row = Row({EVIL: Interval(0.5, 0.4, 0.6)})
    table = Table(
        task=EVIL,
        part=EVIL,
        users="test alone",
        main=True,
        count=3,
        headline=(EVIL,),
        chance={},
        note=EVIL,
        rows={"trained": row, "untrained": row},
    )
    assert "<script" not in benchmark_table([table])


def test_neighbours_are_near_unseen_and_of_the_service(hostile: Corpus) -> None:
    groups, model = groups_of(hostile, None, None), model_of(hostile)
    people = three_people(hostile, groups, model)
    user = hostile.user_ids.to_pylist().index(people[0].user_id)
    checked = 0
    for number, shelf in enumerate(people[0].shelves):
        assert shelf.service == hostile.services[number]
        seen = {str(hostile.item_texts[int(i)]) for i in hostile.items_of(number)[user]}
        assert set(shelf.newest) == seen and shelf.events == 3
        assert not seen.intersection(shelf.nearest)
        checked += len(shelf.nearest)
    assert checked == 8  # Seven items a service, three of them seen.


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


def test_a_missing_and_a_torn_log_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl"):
        read_log(tmp_path / "log.jsonl")
    (tmp_path / "log.jsonl").write_text('{"kind": "train"}\n{"ki', encoding="utf-8")
    with pytest.raises(ValueError, match="killed while writing"):
        read_log(tmp_path / "log.jsonl")
