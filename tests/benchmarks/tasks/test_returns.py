"""Labels by hand, a planted habit found and a shuffled one not, nothing read from the moment on."""

# pyright: standard

from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.visits import DAY
from benchmarks.tasks.returns import ReturnsConfig, ReturnsTask
from clue.data.corpus import Corpus
from tests.benchmarks.tasks.given import GivenUsers
from tests.benchmarks.worlds import corpus_of, parts

USERS, START = 600, 1_600_000_000.0
FITTED, OPENS = START + 8 * DAY, START + 11 * DAY


def log_of(directory: Path, rate: np.ndarray, seed: int = 0) -> Corpus:
    """Users who click on a day with their own chance, over 13 days."""
    rng = np.random.default_rng(seed)
    names, events, times = list(parts(USERS)), list[tuple[str, str, str]](), list[float]()
    for user, name in enumerate(names):
        for day in np.flatnonzero(rng.random(13) < rate[user]):
            events.append((name, "globo", f"n{rng.integers(30):02}"))
            times.append(START + (day + rng.random()) * DAY)
    events.append((names[0], "globo", "n00"))
    times.append(START + 13 * DAY - 1)
    return corpus_of(directory, events, parts(USERS), times)


def task_of(corpus: Corpus, **changes: object) -> ReturnsTask:
    given = {"name": "globo/return", "fitted_at": FITTED, "opens": OPENS, **changes}
    return ReturnsConfig(**given).build(corpus)  # type: ignore[arg-type]


def figures(task: ReturnsTask, model: object, probe: str = "linear") -> dict[str, float]:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    assert scored.queries.num_rows == len(task.parts[2].users) > 300
    ones = np.ones((1, scored.queries.num_rows))
    return {n: float(m.statistic(scored.queries)(ones)[0]) for n, m in scored.measures.items()}


@pytest.fixture(scope="module")
def rate() -> np.ndarray:
    return np.random.default_rng(1).beta(0.7, 0.7, USERS)


@pytest.fixture(scope="module")
def habits(tmp_path_factory: pytest.TempPathFactory, rate: np.ndarray) -> Corpus:
    return log_of(tmp_path_factory.mktemp("habits"), rate)


def test_active_users_and_labels_equal_a_loop(habits: Corpus) -> None:
    task, compared = task_of(habits), 0
    times = habits.timestamps_of(0)
    for part, (moment, split) in zip(
        task.parts, ((FITTED, {0}), (FITTED, {1}), (OPENS, {0, 1, 2})), strict=True
    ):
        active = []
        for user in range(habits.num_users):
            seen = times[user]
            if habits.split[user] in split and ((seen < moment) & (seen >= moment - 7 * DAY)).any():
                active.append(user)
                row = int(np.searchsorted(part.users, user))
                label = ((seen >= moment) & (seen < moment + 2 * DAY)).any()
                assert part.labels[row] == label
                assert np.array_equal(part.past.parts[0][1][row], seen[seen < moment])
                compared += 1
        assert part.users.tolist() == active
    assert compared > 700


def test_a_habit_is_found_by_counts_and_by_a_vector_of_it(habits: Corpus, rate: np.ndarray) -> None:
    task, rows = task_of(habits), {row.name: row for row in task_of(habits).baselines([])}
    own = rate[[int(name[1:]) for name in habits.user_ids.to_pylist()]]
    truth = figures(task, GivenUsers(np.log(own / (1 - own))[:, None]))["AUROC"]
    found = {n: figures(task, r, getattr(r, "probe", "linear"))["AUROC"] for n, r in rows.items()}
    assert truth > 0.8 and found["prior"] == 0.5
    names = ("recency", "frequency", "sessions", "aggregates", "aggregates (trees)")
    assert set(found) == {"prior", *names}
    assert all(0.7 < found[name] < truth + 0.03 for name in names)


def test_without_a_habit_all_rows_are_at_chance(tmp_path: Path) -> None:
    corpus = log_of(tmp_path, np.full(USERS, 0.3))
    task, rng = task_of(corpus), np.random.default_rng(2)
    rows = [GivenUsers(rng.normal(size=(USERS, 4))), *task.baselines([])]
    found = [figures(task, r, p)["AUROC"] for r in rows for p in task.probes if task.supports(r, p)]
    assert len(found) == 7 and all(0.42 < area < 0.58 for area in found)


def test_what_comes_from_the_moment_on_is_in_no_feature(tmp_path: Path, rate: np.ndarray) -> None:
    corpus = log_of(tmp_path / "a", rate)
    # The same log until the later moment, and only one user of nine comes back.
    number, times = corpus.services.index("globo"), corpus.timestamps_of(0)
    ids, names = corpus.item_ids.to_pylist(), corpus.user_ids.to_pylist()
    kept = [
        (names[user], "globo", ids[item], when)
        for user in range(corpus.num_users)
        for item, when in zip(corpus.items_of(number)[user], times[user], strict=True)
        if when < OPENS or user % 9 == 0
    ]
    other = corpus_of(
        tmp_path / "b", [each[:3] for each in kept], parts(USERS), [each[3] for each in kept]
    )
    one, two, compared = task_of(corpus), task_of(other), 0
    assert one.parts[2].labels.sum() > 100 > two.parts[2].labels.sum()
    for left, right in zip(one.columns, two.columns, strict=True):
        for name, values in left.items():
            assert np.array_equal(values, right[name]), name
            compared += values.size
    assert compared > 10_000
    # Moments half a day later, which do read what was left out, differ: a leak would be seen.
    late = {"fitted_at": FITTED + DAY / 2, "opens": OPENS + DAY / 2}
    leaked = [task_of(each, **late).columns[2]["recency"] for each in (corpus, other)]
    assert not np.array_equal(leaked[0], leaked[1])


def test_moments_that_do_not_fit_are_refused(habits: Corpus) -> None:
    with pytest.raises(ValueError, match="labels and pasts must not overlap"):
        task_of(habits, opens=FITTED + DAY)
    with pytest.raises(ValueError, match=r"the log of globo ends at .* take an earlier moment"):
        task_of(habits, opens=OPENS + 5 * DAY)
    with pytest.raises(ValueError, match="0 active training users, 0 of whom return"):
        task_of(habits, fitted_at=START - 9 * DAY)
