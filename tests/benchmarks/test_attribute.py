"""Labels are read by user, probed on the right split, and refused by name where they do not fit."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.attribute import evaluate_attribute
from benchmarks.datasets.labels import read_labels
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import Lookup, corpus_of, parts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    split = parts(400)
    events = [
        (user, service, f"{service}_{user}") for user in split for service in ("films", "news")
    ]
    return corpus_of(tmp_path_factory.mktemp("people"), events, split)


def write(file: Path, users: list[str], labels: list[str | None]) -> Path:
    # The table's order is not the corpus's.
    pq.write_table(pa.table({"user_id": users[::-1], "colour": labels[::-1]}), file)
    return file


def labels_of(corpus: Corpus, kinds: int) -> list[str]:
    return [f"c{number}" for number in np.random.default_rng(0).integers(0, kinds, 400)]


@pytest.mark.parametrize("kinds", [2, 4])
def test_a_leaked_label_is_found_and_noise_is_not(
    corpus: Corpus, tmp_path: Path, kinds: int
) -> None:
    users = [str(user) for user in corpus.user_ids]
    labels = labels_of(corpus, kinds)
    labelled = read_labels(corpus, write(tmp_path / "u.parquet", users, list(labels)), "colour")
    assert [labelled.classes[n] for n in labelled.labels] == labels
    rng = np.random.default_rng(1)
    owner = np.array([int(str(name).rpartition("u")[2]) for name in corpus.item_ids])
    noise = rng.normal(size=(corpus.num_items, 6))
    number = np.array([int(label[1:]) for label in labels])
    leaked = np.concatenate([noise, 9 * np.eye(kinds)[number[owner]]], axis=1)
    models = {"trained": Lookup(leaked), "untrained": Lookup(noise)}
    outcome = evaluate_attribute(corpus, models, labelled, name="colour", resamples=200, seed=0)
    (table,) = outcome.tables
    found = {row: each.measures["AUROC"] for row, each in table.rows.items()}
    assert table.count == 100 and outcome.per_user.num_rows == 100 * len(found)
    assert found["trained"].value > 0.99
    assert table.rows["trained"].measures["accuracy"].value > 0.95
    assert found["untrained"].low < 0.5 < found["untrained"].high
    # Everybody has one event a service: popularity knows nothing, and the prior never does.
    for row in ("popularity", "prior"):
        assert found[row].value == found[row].low == found[row].high == 0.5


def test_users_without_a_label_are_left_out(corpus: Corpus, tmp_path: Path) -> None:
    users = [str(user) for user in corpus.user_ids][:300]
    labels: list[str | None] = [*labels_of(corpus, 2)[:299], None]
    labelled = read_labels(corpus, write(tmp_path / "u.parquet", users, labels), "colour")
    assert labelled.users.tolist() == list(range(299))


def test_tables_that_do_not_fit_are_refused_by_name(corpus: Corpus, tmp_path: Path) -> None:
    users = [str(user) for user in corpus.user_ids]
    file = write(tmp_path / "u.parquet", users, list(labels_of(corpus, 2)))
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        read_labels(corpus, tmp_path / "none.parquet", "colour")
    with pytest.raises(ValueError, match="no column 'size'; there are user_id, colour"):
        read_labels(corpus, file, "size")
    twice = write(tmp_path / "twice.parquet", ["u000", "u000"], ["c0", "c1"])
    with pytest.raises(ValueError, match="more than one row"):
        read_labels(corpus, twice, "colour")
    strangers = write(tmp_path / "other.parquet", ["x", "y"], ["c0", "c1"])
    with pytest.raises(ValueError, match="carry 0 different values of 'colour'"):
        read_labels(corpus, strangers, "colour")


def test_a_split_without_labels_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    users = [str(user) for user in corpus.user_ids][:200]  # The training users.
    labels: list[str | None] = [*labels_of(corpus, 2)[:200]]
    labelled = read_labels(corpus, write(tmp_path / "u.parquet", users, labels), "colour")
    with pytest.raises(ValueError, match="no valid user has a label"):
        evaluate_attribute(corpus, {}, labelled, name="colour", resamples=10, seed=0)
