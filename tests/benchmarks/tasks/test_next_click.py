"""A planted next click is found, a shuffled one not; hours read what came before them alone."""

# pyright: standard

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.baselines.click_rankers import HOUR, ClickLog
from benchmarks.baselines.hourly_probe import ClickVectors
from benchmarks.snapshot import Snapshot
from benchmarks.tasks.next_click import DAY, NextClickConfig, NextClickTask
from clue.data.corpus import Corpus
from tests.benchmarks.tasks.given import Given
from tests.benchmarks.worlds import corpus_of, parts

USERS, ITEMS, DAYS = 240, 40, 6
START = 1_599_955_200.0  # a full day
OPENS = START + 5 * DAY
Click = tuple[str, str, str, float]


def clicks(*, ring: bool, seed: int = 0) -> list[Click]:
    """Each user reads two items a day: the second is the next on a ring, or any."""
    rng, made = np.random.default_rng(seed), list[Click]()
    for user in parts(USERS):
        for day in range(DAYS):
            at = START + day * DAY + rng.uniform(0, 23 * HOUR)
            first = int(rng.integers(ITEMS))
            second = (first + 1) % ITEMS if ring else int(rng.integers(ITEMS))
            made += [(user, "globo", f"n{first:02}", at)]
            made += [(user, "globo", f"n{second:02}", at + rng.uniform(1, HOUR))]
    return made


def log_of(directory: Path, made: list[Click]) -> Corpus:
    events, times = [each[:3] for each in made], [each[3] for each in made]
    return corpus_of(directory, events, parts(USERS), times)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return log_of(tmp_path_factory.mktemp("ring"), clicks(ring=True))


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return log_of(tmp_path_factory.mktemp("coins"), clicks(ring=False))


class Last(Given):
    """The item clicked last as a user's vector, an axis for each item."""

    def __init__(self, items: int) -> None:
        super().__init__(np.zeros((0, items)), np.eye(items))

    def users(self, past: Snapshot) -> np.ndarray:
        self.pasts.append(past)
        met, _ = past.parts[0]
        return np.eye(self.vectors.shape[1])[met.values[met.offsets[1:] - 1]]


def task_of(corpus: Corpus, **changes: object) -> NextClickTask:
    return NextClickConfig(**{"name": "globo/next", "opens": OPENS, **changes}).build(corpus)  # type: ignore[arg-type]


def ndcg(task: NextClickTask, model: object, probe: str) -> float:
    scored = task.score(model, probe)  # type: ignore[arg-type]
    assert scored.queries.num_rows == len(task.test.users) > 200
    return float(scored.queries["ndcg_10"].to_numpy().mean())


def test_questions_are_the_last_clicks_of_the_day_with_all_that_came_before(ring: Corpus) -> None:
    task, compared = task_of(ring), 0
    items, times = ring.items_of(0), ring.timestamps_of(0)
    for part, start, split in (
        (task.test, OPENS, {0, 1, 2}),
        (task.valid, OPENS - DAY, {1}),
    ):
        end = OPENS if part is task.valid else OPENS + DAY
        past = task._past(part)
        for row, user in enumerate(part.users):
            inside = np.flatnonzero((times[user] >= start) & (times[user] < end))
            assert ring.split[user] in split
            assert part.times[row] == times[user][inside[-1]]
            assert part.items[row] == items[user][inside[-1]]
            assert past.parts[0][0][row].tolist() == items[user][: inside[-1]].tolist()
            compared += 1
    assert compared > USERS * 1.2


def test_a_planted_step_is_found_by_transitions_and_by_the_map_and_coins_by_none(
    ring: Corpus, coins: Corpus
) -> None:
    found, chance = list[dict[str, float]](), []
    for corpus in (ring, coins):
        task = task_of(corpus)
        rows = [Last(corpus.num_items), *task.baselines([])]
        found.append(
            {
                f"{row.name}, {probe}": ndcg(task, row, probe)
                for row in rows
                for probe in task.probes
                if task.supports(row, probe)  # type: ignore[arg-type]
            }
        )
        constant = Given(np.ones((corpus.num_users, 1)), np.ones((corpus.num_items, 1)))
        chance.append(ndcg(task, constant, "zero-shot"))
        assert 0.1 < chance[-1] < 0.16
    planted, shuffled = found
    assert len(planted) == len(shuffled) == 7
    assert planted["last-item transitions, fitted"] > 0.9
    # Two hours hold 40 clicks of 40 items: about half of the steps can be learnt from them.
    assert planted["given, vector alone"] > 0.45 and planted["given, linear"] > 0.45
    assert planted["popularity, fitted"] < 0.2
    assert all(abs(value - chance[1]) < 0.07 for value in shuffled.values())


def test_recent_popularity_is_found_and_stands_beside_a_vector_of_noise(tmp_path: Path) -> None:
    rng, made = np.random.default_rng(1), clicks(ring=False)
    # Of each day's second clicks most are on one of three items, others on another day.
    news = {day: rng.permutation(ITEMS)[:3] for day in range(DAYS)}
    for place in range(1, len(made), 2):
        user, service, _, at = made[place]
        item = rng.choice(news[min(int((at - START) // DAY), DAYS - 1)])
        if rng.random() < 0.8:
            made[place] = (user, service, f"n{item:02}", at)
    task = task_of(log_of(tmp_path, made))
    always, recent, *_ = task.baselines([])
    assert ndcg(task, recent, "fitted") > ndcg(task, always, "fitted") + 0.05
    noise = Given(rng.normal(size=(USERS, 4)), rng.normal(size=(ITEMS, 4)))
    assert ndcg(task, noise, "linear") > ndcg(task, always, "fitted") + 0.05
    assert ndcg(task, noise, "vector alone") < ndcg(task, noise, "linear") - 0.1


def test_an_hour_reads_the_clicks_before_it_alone(tmp_path: Path) -> None:
    made = clicks(ring=True)
    moment = OPENS + 12 * HOUR
    one = log_of(tmp_path / "a", made)
    # From the moment on everybody reads item 0, but for what is asked before it.
    moved = [(*each[:2], "n00" if each[3] >= moment else each[2], each[3]) for each in made]
    other = log_of(tmp_path / "b", moved)
    # In the hour of the moment users' own pasts hold it; what all share does not.
    ranked = (OPENS + 9 * HOUR, moment - HOUR)
    compared, differ = 0, 0
    hours = [{h.start: h for h in task_of(each)._query_hours["test"]} for each in (one, other)]
    for start in sorted(set(hours[0]) & set(hours[1])):
        left, right = hours[0][start], hours[1][start]
        same = all(
            np.array_equal(left.items, right.items)
            and np.array_equal(left.counts(n), right.counts(n))
            for n in (1.0, 48.0)
        )
        for row in task_of(one).baselines([]) if start in ranked else []:
            shares = [row.scores(h, row.grid[0]) for h in (left, right)]  # type: ignore[union-attr]
            same = same and np.array_equal(*shares)
        if start <= moment:
            assert same
            compared += 1
        differ += not same
    assert compared > 8 and differ > 5  # what comes later is seen later: a leak would be


def test_a_log_by_time_knows_the_click_before(tmp_path: Path) -> None:
    made = [("u000", "globo", "b", 5.0), ("u000", "globo", "a", 9.0), ("u001", "globo", "a", 7.0)]
    corpus = log_of(tmp_path, made)
    log = ClickLog(corpus, 0)
    assert log.items.tolist() == [1, 0, 0] and log.before.tolist() == [-1, -1, 1]
    assert log.users.tolist() == [0, 1, 0]
    assert (log.hours(9.0, 1.0), log.hours(9.0, 3 / HOUR)) == (slice(0, 2), slice(1, 2))


def test_a_day_outside_the_log_is_refused(ring: Corpus) -> None:
    with pytest.raises(ValueError, match="no test click of globo on an item of the 2 days before"):
        task_of(ring, opens=OPENS + DAY)


def test_the_hourly_ridge_equals_scikit_learn_on_the_clicks_before_the_hour(ring: Corpus) -> None:
    task, model, compared = task_of(ring), Last(ring.num_items), 0
    period = OPENS - DAY, OPENS + DAY
    clicks = ClickVectors.of(model, ring, "globo", task.log, period)
    assert np.array_equal(np.diff(clicks.rows) > 0, np.ones(len(clicks.rows) - 1, bool))
    for hour in task._query_hours["test"][3:6]:
        asked = task.test.clicks[hour.rows]
        known = np.arange(*np.searchsorted(task.log.times, [hour.start - 2 * HOUR, hour.start]))
        known = known[task.log.before[known] >= 0]
        one = np.eye(ring.num_items)
        x, z = one[task.log.before[known]], one[task.log.before[asked]]
        spread = np.maximum(x.std(0), 1e-6)
        y = (hour.items == task.log.items[known][:, None]).astype(float)
        fit = Ridge(alpha=30.0).fit((x - x.mean(0)) / spread, y)
        expected = fit.predict((z - x.mean(0)) / spread) - y.mean(0)
        (gain,) = clicks.gains(hour, asked, [30.0])
        assert gain == pytest.approx(expected, abs=1e-9)
        compared += gain.size
    assert compared > 1_000
