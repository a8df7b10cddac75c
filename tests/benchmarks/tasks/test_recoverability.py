"""Quantities by hand; a vector that holds them has an R2 of 1, and a random one of about 0."""

# pyright: standard

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.representations import RandomModel
from benchmarks.baselines.transactions import DAY
from benchmarks.protocols import WHOLE, Measure
from benchmarks.snapshot import Snapshot
from benchmarks.suite.results import measured
from benchmarks.tasks.recoverability import RecoverabilityConfig, RecoverabilityTask
from clue.data.corpus import Corpus
from tests.benchmarks.tasks.test_future_labels import SIX, SPLIT, Sale, shop
from tests.benchmarks.worlds import corpus_of, parts

START = 1_600_000_000 / DAY  # days: the sales are dated in this century, so that a clock is read
NAMES = ["recency", "count", "tenure", "spend"]


def dated(sales: Sequence[Sale]) -> list[Sale]:
    return [(*sale[:2], START + sale[2], *sale[3:]) for sale in sales]


def task_of(made: tuple[Corpus, Path], days: float, **changes: object) -> RecoverabilityTask:
    given = {"name": "r", "service": "retail", "sales": made[1], "days_before_end": days}
    return RecoverabilityConfig(**{**given, **changes}).build(made[0])  # type: ignore[arg-type]


def test_quantities_by_hand(tmp_path: Path) -> None:
    # Each of the six sales is made by two more users, so that every split has several.
    sales: list[Sale] = [(f"{sale[0]}{k}", *sale[1:]) for sale in SIX for k in range(3)]
    split = {f"{user}{k}": part for user, part in SPLIT.items() for k in range(3)}
    task = task_of(shop(tmp_path, dated(sales), split), 10)  # a second after day 30
    assert list(task.quantities) == NAMES
    ids = task.corpus.user_ids.take(task.past.users).to_pylist()
    found = {name: np.expm1(values) for name, values in task.quantities.items()}
    expected = {"a": [15, 2, 25, 7], "b": [5, 2, 22, 8], "c": [21, 1, 21, 1]}
    assert len(ids) == 9
    for row, user in enumerate(ids):
        values = [found[name][row] for name in NAMES]
        assert values == pytest.approx(expected[user[0]], abs=1e-4)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    """400 users with 1 to 9 sales in 100 days."""
    rng = np.random.default_rng(0)
    sales: list[Sale] = [("u000", "pen", 100.0, "last", 1, 1.0)]
    for user in parts(400):
        for day in rng.uniform(0, 100, rng.integers(1, 10)):
            sales.append((user, "pen", day, f"{user}-{day}", 1, float(rng.integers(1, 50))))
    return shop(tmp_path_factory.mktemp("crowd"), dated(sales), parts(400))


class Holding:
    """The quantities themselves, turned, beside noise."""

    name, seed, fingerprint = "holding", 0, "holding"
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, task: RecoverabilityTask) -> None:
        rng = np.random.default_rng(1)
        values = np.stack([*task.quantities.values()], axis=1)
        turned = values @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
        self.vectors = np.c_[turned, rng.normal(size=(len(values), 3))]

    def users(self, past: Snapshot) -> np.ndarray:
        return self.vectors


def figures(task: RecoverabilityTask, model: object) -> dict[str, float]:
    scored = task.score(model, "linear")  # type: ignore[arg-type]
    assert scored.queries.num_rows == len(task.parts[2])
    return {name: one.value for name, one in measured(scored, resamples=5, seed=0)[0].items()}


def test_what_a_vector_holds_is_found_and_what_it_does_not_is_not(
    crowd: tuple[Corpus, Path],
) -> None:
    task = task_of(crowd, 20)
    held = figures(task, Holding(task))
    assert list(held) == ["R2", *(f"R2 {name}" for name in NAMES)]
    assert min(held.values()) > 0.999
    chance = figures(task, RandomModel(crowd[0], width=8, seed=0))
    assert max(abs(value) for value in chance.values()) < 0.15
    assert chance["R2"] == pytest.approx(np.mean([chance[f"R2 {name}"] for name in NAMES]))
    (aggregates,) = task.baselines([])
    assert min(figures(task, aggregates).values()) > 0.99


def test_without_sales_there_is_no_spend(crowd: tuple[Corpus, Path]) -> None:
    task = task_of(crowd, 20, sales=None)
    assert list(task.quantities) == NAMES[:3]
    (counts,) = task.baselines([])
    assert counts.name == "log counts" and figures(task, counts)["R2 count"] > 0.999
    assert task.supports(counts, "linear")
    assert isinstance(task.score(counts, "linear").measures["R2"], Measure)


def test_positions_and_splits_without_users_are_refused(
    crowd: tuple[Corpus, Path], tmp_path: Path
) -> None:
    events = [(user, "retail", "pen") for user in parts(8)]
    positions = corpus_of(tmp_path, events, parts(8))
    with pytest.raises(ValueError, match="the times of retail in .* are positions"):
        RecoverabilityConfig(name="r", service="retail").build(positions)
    with pytest.raises(ValueError, match="0 training users have an event of retail 200 days"):
        task_of(crowd, 200)
