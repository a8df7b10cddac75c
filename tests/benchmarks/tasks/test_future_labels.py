"""Labels of windows by hand, aggregates by hand, and no sale of the future in either."""

# pyright: standard

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.transactions import DAY, Aggregates, counted, read_sales, top_items
from benchmarks.protocols import WHOLE, Measure
from benchmarks.snapshot import Snapshot
from benchmarks.tasks.future_labels import WindowsConfig, WindowsTask
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import corpus_of, parts

Sale = tuple[str, str, float, str, int, float]  # user, item, day, invoice, quantity, price

# The last sale is on day 40: windows of 10 days begin a second after days 10, 20 and 30.
SIX: list[Sale] = [
    ("a", "pen", 5, "i1", 2, 1.5),
    ("b", "cup", 8, "i2", 3, 2.0),
    ("c", "pen", 9, "i3", 1, 1.0),
    ("a", "cup", 15, "i4", 1, 4.0),
    ("b", "pen", 25, "i5", 2, 1.0),
    ("a", "pen", 40, "i6", 10, 1.0),
]
SPLIT = {"a": "train", "b": "valid", "c": "test"}


def shop(directory: Path, sales: Sequence[Sale], split: dict[str, str]) -> tuple[Corpus, Path]:
    events = [(user, "retail", item) for user, item, *_ in sales]
    corpus = corpus_of(directory, events, split, [sale[2] * DAY for sale in sales])
    names = ("user_id", "item_id", "timestamp", "invoice", "quantity", "price")
    columns = dict(zip(names, map(list, zip(*sales, strict=True)), strict=True))
    columns["timestamp"] = [int(sale[2] * DAY) for sale in sales]
    file = directory / "sales.parquet"
    pq.write_table(pa.table(columns), file)
    return corpus, file


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    return shop(tmp_path_factory.mktemp("six"), SIX, SPLIT)


def task_of(made: tuple[Corpus, Path], **changes: object) -> WindowsTask:
    given = {"name": "retail/churn", "label": "churn", "sales": made[1], "window_days": 10}
    given |= {"active_days": 100, "labels": 2, "pretrained_until": 0, **changes}
    return WindowsConfig(**given).build(made[0])  # type: ignore[arg-type]


def labels(task: WindowsTask) -> list[dict[str, list[float]]]:
    ids = task.corpus.user_ids
    return [
        {str(ids[int(u)]): np.ravel(y).tolist() for u, y in zip(w.users, w.labels, strict=True)}
        for w in task.windows
    ]


def test_labels_of_six_sales_by_hand(six: tuple[Corpus, Path]) -> None:
    churn = [{"a": [0]}, {"a": [1], "b": [0]}, {"a": [0], "b": [1], "c": [1]}]
    assert labels(task_of(six)) == churn
    spend = [{"a": [5.0]}, {"a": [1.0], "b": [3.0]}, {"a": [11.0], "b": [1.0], "c": [1.0]}]
    found = [
        {user: np.exp(value) for user, value in each.items()}
        for each in labels(task_of(six, label="spend"))
    ]
    for one, other in zip(found, spend, strict=True):
        assert one == {user: pytest.approx(value) for user, value in other.items()}
    # Before the first window two bought a pen and one a cup, which is the order of the labels.
    task = task_of(six, label="propensity")
    assert [str(task.sales.items[int(n)]) for n in task.products] == ["pen", "cup"]
    assert labels(task) == [
        {"a": [0, 1]},
        {"a": [0, 0], "b": [1, 0]},
        {"a": [1, 0], "b": [0, 0], "c": [0, 0]},
    ]


def test_users_of_a_window_bought_in_the_days_before_it(six: tuple[Corpus, Path]) -> None:
    # c's only sale is 21 days before the test window, b's last one 5 days.
    assert list(labels(task_of(six, active_days=20))[2]) == ["a", "b"]
    with pytest.raises(ValueError, match="no user bought in the 1 days before 864001"):
        task_of(six, active_days=1)


def test_aggregates_by_hand(six: tuple[Corpus, Path]) -> None:
    task = task_of(six)
    found = np.expm1(Aggregates(task.sales, task.products).users(task.windows[2].past))
    second = 1 / DAY
    a = [15 + second, 25 + second]  # days since the last and the first sale
    a += [0, 0, 0, 2, 2, 7, 2, 2, 7, 2, 2, 7]  # invoices, lines, money in 7, 28, 90 days and all
    a += [3.5, 2, 1, 1]  # money an invoice, distinct items, pens and cups
    b = [5 + second, 22 + second, 1, 1, 2, 2, 2, 8, 2, 2, 8, 2, 2, 8, 4, 2, 1, 1]
    assert found[0] == pytest.approx(a, abs=1e-4)
    assert found[1] == pytest.approx(b, abs=1e-4)


def test_a_refund_is_refused_by_its_row(tmp_path: Path) -> None:
    corpus, file = shop(tmp_path, [*SIX, ("a", "mug", 15.01, "i4", -1, 6.0)], SPLIT)
    with pytest.raises(ValueError, match=r"row 7 has money -6 .* 1 rows of 7 are below 0; leave"):
        read_sales(corpus, file)


def test_several_lines_of_an_invoice_are_one_visit(tmp_path: Path) -> None:
    corpus, file = shop(tmp_path, [*SIX, ("a", "mug", 15.01, "i4", 1, 6.0)], SPLIT)
    sales = read_sales(corpus, file)
    found = np.expm1(
        counted(sales, sales.between(np.array([0]), 0, np.array(30 * DAY)), np.array([30 * DAY]),
                top_items(sales, 10 * DAY, 1))
    )  # fmt: skip
    assert found[0, 5:8] == pytest.approx([2, 3, 13])
    assert found[0, 14:16] == pytest.approx([6.5, 3])


def test_a_sale_of_the_future_never_enters_aggregates_or_vectors(six: tuple[Corpus, Path]) -> None:
    seen: list[float] = []

    class Watching:
        name, seed, fingerprint = "watching", 0, "watching"
        blocks, similarity = WHOLE, slice(None)

        def users(self, past: Snapshot) -> np.ndarray:
            for _, times in past.parts:
                late = times.values >= np.repeat(past.cutoff, times.lengths)
                seen.extend(np.repeat(past.cutoff, times.lengths) - times.values)
                assert not late.any()
            return np.random.default_rng(0).normal(size=(len(past), 3))

    task = task_of(six, label="spend")
    task.score(Watching(), "linear")
    # One sale of a before the first window, three of a and b, then five of all.
    assert len(seen) == 1 + 3 + 5 and min(seen) > 0
    sales, users = task.sales, np.arange(3)
    for moment in (10, 20, 30):
        cutoff = np.full(3, moment * DAY + 1)
        cut = [sale for sale in SIX if sale[2] <= moment]
        rows = sales.between(users, -np.inf, cutoff)
        assert len(rows.values) == len(cut)
        assert sales.time[rows.values].max() < cutoff[0]


def test_aggregates_of_a_log_without_its_future_are_the_same(
    six: tuple[Corpus, Path], tmp_path: Path
) -> None:
    cut, file = shop(tmp_path, [sale for sale in SIX if sale[2] < 30], SPLIT)
    short, long = read_sales(cut, file), read_sales(*six)
    users, cutoff = np.arange(3), np.full(3, 30 * DAY)
    products = top_items(long, 10 * DAY, 2)
    assert np.array_equal(products, top_items(short, 10 * DAY, 2))
    one, other = (
        counted(sales, sales.between(users, -np.inf, cutoff), cutoff, products)
        for sales in (short, long)
    )
    assert np.array_equal(one, other)


def test_a_sale_at_the_moment_is_of_the_window_and_not_of_the_past(
    six: tuple[Corpus, Path],
) -> None:
    sales, user = read_sales(*six), np.array([0])
    before = sales.between(user, -np.inf, np.array(15 * DAY))
    after = sales.between(user, 15 * DAY, np.array(40 * DAY))
    assert (len(before.values), len(after.values)) == (1, 1)


def test_aggregates_refuse_what_is_asked_for_and_a_moment_without_end(
    six: tuple[Corpus, Path],
) -> None:
    task = task_of(six)
    sales, cutoff = task.sales, np.full(3, 30 * DAY)
    everything = sales.between(np.arange(3), -np.inf, np.array(np.inf))
    with pytest.raises(ValueError, match="a sale -10 days before its user's moment"):
        counted(sales, everything, cutoff, task.products)
    with pytest.raises(ValueError, match="a finite moment alone"):
        counted(sales, everything, np.full(3, np.inf), task.products)


def test_windows_that_pretraining_has_read_are_refused(six: tuple[Corpus, Path]) -> None:
    begins = 10 * DAY + 1
    task_of(six, pretrained_until=int(begins))
    with pytest.raises(ValueError, match="the first window begins at 864001, but pretraining"):
        task_of(six, pretrained_until=int(begins) + 1)


def test_sales_of_another_log_are_refused(six: tuple[Corpus, Path], tmp_path: Path) -> None:
    table = pq.read_table(six[1])

    def changed(**columns: object) -> Path:
        kept = {name: table[name] for name in table.column_names}
        pq.write_table(pa.table({**kept, **columns}), tmp_path / "sales.parquet")
        return tmp_path / "sales.parquet"

    later = [int(time.as_py()) * 1000 for time in table["timestamp"]]
    with pytest.raises(ValueError, match="both must be of one log"):
        task_of((six[0], changed(timestamp=later)))
    with pytest.raises(ValueError, match="none of its users is in"):
        task_of((six[0], changed(user_id=["x"] * 6)))
    with pytest.raises(ValueError, match="1 empty cells of 'price'"):
        task_of((six[0], changed(price=[None, 1.0, 1.0, 1.0, 1.0, 1.0])))
    with pytest.raises(ValueError, match="no service 'bank'; there are retail"):
        task_of(six, service="bank")
    with pytest.raises(FileNotFoundError, match="no table .*none.parquet"):
        task_of((six[0], tmp_path / "none.parquet"))
    pq.write_table(table.drop_columns(["invoice"]), tmp_path / "few.parquet")
    with pytest.raises(ValueError, match="no column 'invoice'; there are user_id"):
        task_of((six[0], tmp_path / "few.parquet"))


class Given:
    """A model of one vector for each user and moment."""

    seed = 0
    blocks, similarity = WHOLE, slice(None)

    def __init__(self, name: str, vectors: dict[tuple[int, float], list[float]]) -> None:
        self.name = self.fingerprint = name
        self.vectors = vectors

    def users(self, past: Snapshot) -> np.ndarray:
        keys = zip(past.users.tolist(), past.cutoff.tolist(), strict=True)
        return np.array([self.vectors[key] for key in keys])


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    """400 users who buy one of four things every few days, on half of the days of each window."""
    rng, split = np.random.default_rng(0), parts(400)
    sales: list[Sale] = [("u000", "thing0", 40, "last", 1, 1.0)]
    for user in split:
        days = [rng.uniform(1, 10), *(w + rng.uniform(1, 9) for w in (10, 20, 30))]
        for day in (d for n, d in enumerate(days) if n == 0 or rng.random() < 0.5):
            thing = f"thing{rng.integers(4)}"
            sales.append((user, thing, day, f"{user}-{day}", 1, float(rng.integers(1, 50))))
    return shop(tmp_path_factory.mktemp("crowd"), sales, split)


MAIN = {"churn": "AUROC", "propensity": "mean AUROC", "spend": "R2"}


def value(measure: Measure, queries: pa.Table) -> float:
    return float(measure.statistic(queries)(np.ones((1, queries.num_rows)))[0])


@pytest.mark.parametrize("label", list(MAIN))
def test_a_planted_label_is_found_among_seen_and_unseen_users_and_noise_is_not(
    crowd: tuple[Corpus, Path], label: str
) -> None:
    task = task_of(crowd, label=label, labels=4)
    rng = np.random.default_rng(1)
    truth, noise = {}, {}
    for window in task.windows:
        for user, moment, y in zip(
            window.users.tolist(), window.past.cutoff.tolist(), window.labels, strict=True
        ):
            noise[user, moment] = rng.normal(size=6).tolist()
            truth[user, moment] = [*noise[user, moment], *np.ravel(y)]
    for model, low, high in ((Given("truth", truth), 0.95, 1.01), (Given("noise", noise), -1, 0.6)):
        scored = task.score(model, "linear")
        main = next(iter(scored.measures))
        assert main == MAIN[label]
        assert scored.queries.num_rows == len(task.windows[2].users) == 400
        for kind, count in (("seen", 200), ("unseen", 200)):
            mine = np.array(scored.queries["slice user"].to_pylist()) == kind
            part = scored.queries.filter(pa.array(mine))
            assert part.num_rows == count
            assert low < value(scored.measures[main], part) < high


def test_rivals_stand_beside_trained_encoders_alone(crowd: tuple[Corpus, Path]) -> None:
    task = task_of(crowd)
    (alone,) = task.baselines([Given("noise", {})])
    assert alone.name == "aggregates"
    for probe in task.probes:
        assert task.supports(alone, probe)
        scored = task.score(alone, probe)
        assert np.isfinite(value(scored.measures["AUROC"], scored.queries))
