"""Tables beside a log: the same values are the same ids and the same times as in the log."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.transactions import read_sales
from benchmarks.datasets.label_tables import read_labels, read_table
from benchmarks.tasks.clicks import ClicksConfig, read_impressions
from clue.data.corpus import Corpus
from tests.benchmarks import worlds
from tests.data.logs import corpus_of

BASE, DAY, USERS = 1_700_000_000, 86_400, 300


def ids() -> np.ndarray:
    """Half with 9 digits, half with 12: from 1e10 on Arrow writes floats with an exponent."""
    return np.r_[880_000_000 + np.arange(USERS // 2), 880_000_000_000 + np.arange(USERS // 2)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """6 daily events of each user."""
    folder = tmp_path_factory.mktemp("labels")
    log = {
        "user_id": np.repeat(ids(), 6),
        "item_id": np.tile(np.arange(6), USERS),
        "timestamp": BASE + DAY * np.tile(np.arange(6), USERS),
    }
    pq.write_table(pa.table(log), folder / "log.parquet")
    return corpus_of(folder / "c", f"events=[{folder}/log.parquet]", "service=shop")


@pytest.mark.parametrize("kind", ["int64", "float64", "string"])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_labels_of_float_ids_meet_all_their_users(
    corpus: Corpus, tmp_path: Path, kind: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"users.{suffix}"
    column = [f"{user}.0" for user in ids()] if kind == "string" else ids().astype(kind)
    table = pa.table({"user_id": pa.array(column), "label": np.arange(USERS) % 2})
    if suffix == "csv":
        table.to_pandas().to_csv(file, index=True)
    else:
        pq.write_table(table, file)
    labelled = read_labels(corpus, file, "label")
    assert len(labelled.users) == USERS and labelled.classes == ["0", "1"]
    known = corpus.user_ids.to_pylist()
    truth = {str(user): n % 2 for n, user in enumerate(ids())}
    assert [truth[known[user]] for user in labelled.users] == labelled.labels.tolist()
    assert capsys.readouterr().err == ""


def test_ids_that_met_nobody_are_counted(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = pa.array([*map(str, ids()), "stranger", "other", None])
    labels = pa.array(["a", "b"] * (USERS // 2) + ["a"] * 3)
    pq.write_table(pa.table({"user_id": users, "label": labels}), tmp_path / "u.parquet")
    assert len(read_labels(corpus, tmp_path / "u.parquet", "label").users) == USERS
    assert "user_id: 2 of 302 ids are not in" in capsys.readouterr().err


def impressions_of(corpus: Corpus, file: Path, times: pa.Array) -> np.ndarray:
    table = {"user_id": ids(), "item_id": [3] * USERS, "clicked": np.arange(USERS) % 2}
    pq.write_table(pa.table({**table, "timestamp": times}), file)
    config = ClicksConfig(name="clicks", impressions=file, service="shop")
    return read_impressions(corpus, config).cutoff


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_impressions_have_the_clock_of_the_corpus(
    corpus: Corpus, tmp_path: Path, unit: str
) -> None:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    moment = BASE + 3 * DAY  # of the fourth event: what is read before it are three
    numbers = pa.array([moment * per] * USERS)
    for times in (
        numbers,
        numbers.cast(pa.timestamp(unit)),
        numbers.cast(pa.timestamp(unit, "UTC")),
    ):
        until = impressions_of(corpus, tmp_path / "i.parquet", times)
        assert until.tolist() == [moment] * USERS
    earlier = [(corpus.timestamps_of(0)[user] < moment).sum() for user in range(USERS)]
    assert earlier == [3] * USERS


def test_impressions_of_another_clock_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be of one clock"):
        impressions_of(corpus, tmp_path / "i.parquet", pa.array(range(USERS)))
    mixed = pa.array(["soon"] + ["2023-11-16"] * (USERS - 1))
    with pytest.raises(ValueError, match="row 1: timestamp is no time: soon"):
        impressions_of(corpus, tmp_path / "i.parquet", mixed)


def test_sales_with_dates_are_those_with_seconds(corpus: Corpus, tmp_path: Path) -> None:
    seconds = np.array([BASE, BASE + DAY])
    columns = {"user_id": ids()[:2], "item_id": [1.0, 2.0], "invoice": [7, 8]}
    columns |= {"quantity": [2, 1], "price": [1.5, 4.0]}
    read = []
    for name, times in (("s", pa.array(seconds)), ("d", pa.array(seconds).cast(pa.timestamp("s")))):
        pq.write_table(pa.table({**columns, "timestamp": times}), tmp_path / f"{name}.parquet")
        read.append(read_sales(corpus, tmp_path / f"{name}.parquet"))
    assert read[0].time.tolist() == read[1].time.tolist() == seconds.tolist()
    assert read[0].money.tolist() == [3.0, 4.0] and read[0].items.to_pylist() == ["1", "2"]


def test_cells_that_cannot_be_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("user_id;price\n1;2\n1234567890123456789.0;3\n")
    with pytest.raises(ValueError, match=r"row 2: user_id is no id: 1234567890123456789\.0"):
        read_table(file, {"user_id": "id"})
    file.write_text("user_id;price\n1;2\n2;cheap\n")
    with pytest.raises(ValueError, match="row 2: price is no number: cheap"):
        read_table(file, {"price": "number"})
    file.write_text("user_id;price\nNA;2\n2;3\n")
    with pytest.raises(ValueError, match="1 empty cells of 'user_id'"):
        read_table(file, {"user_id": "id"})
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read_table(tmp_path / "x.parquet", {"user_id": "id"})


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """400 users with one event each, half of them training users."""
    split = worlds.parts(400)
    events = [(user, "films", f"films_{user}") for user in split]
    return worlds.corpus_of(tmp_path_factory.mktemp("people"), events, split)


def colours() -> list[str]:
    return [f"c{number}" for number in np.random.default_rng(0).integers(0, 2, 400)]


def write(file: Path, users: list[str], labels: list[str | None]) -> Path:
    # The table's order is not the corpus's.
    pq.write_table(pa.table({"user_id": users[::-1], "colour": labels[::-1]}), file)
    return file


def test_users_without_a_label_are_left_out(people: Corpus, tmp_path: Path) -> None:
    users = [str(user) for user in people.user_ids][:300]
    labels: list[str | None] = [*colours()[:299], None]
    labelled = read_labels(people, write(tmp_path / "u.parquet", users, labels), "colour")
    assert labelled.users.tolist() == list(range(299))


def test_tables_that_do_not_fit_are_refused_by_name(people: Corpus, tmp_path: Path) -> None:
    users = [str(user) for user in people.user_ids]
    file = write(tmp_path / "u.parquet", users, list(colours()))
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        read_labels(people, tmp_path / "none.parquet", "colour")
    with pytest.raises(ValueError, match="no column 'size'; there are user_id, colour"):
        read_labels(people, file, "size")
    twice = write(tmp_path / "twice.parquet", ["u000", "u000"], ["c0", "c1"])
    with pytest.raises(ValueError, match="more than one row"):
        read_labels(people, twice, "colour")
    strangers = write(tmp_path / "other.parquet", ["x", "y"], ["c0", "c1"])
    with pytest.raises(ValueError, match="carry 0 different values of 'colour'"):
        read_labels(people, strangers, "colour")
