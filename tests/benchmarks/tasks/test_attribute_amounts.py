"""A number that the vector holds is found, and a shuffled one is not."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.baselines.oracle import ORACLE
from benchmarks.protocols import Scored
from benchmarks.snapshot import Snapshot
from benchmarks.tasks.attributes import AttributesConfig
from clue.data.corpus import Corpus
from tests.benchmarks.worlds import corpus_of, parts

USERS = 400


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rng = np.random.default_rng(0)
    events = [
        (user, "films", f"f{rng.integers(5)}")
        for user in parts(USERS)
        for _ in range(rng.integers(1, 30))
    ]
    return corpus_of(tmp_path_factory.mktemp("amounts"), events, parts(USERS))


class Given:
    name, seed, fingerprint, similarity = "given", 0, "given", slice(None)

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self.blocks = {"vector": slice(None)}

    def users(self, past: Snapshot) -> np.ndarray:
        return self.vectors[past.users]


def r2(scored: Scored) -> float:
    of_log = scored.queries["truth"].to_numpy(), scored.queries["predicted"].to_numpy()
    return 1 - np.square(of_log[0] - of_log[1]).mean() / of_log[0].var()


def test_a_number_of_the_log_is_found_and_a_shuffled_one_is_not(
    corpus: Corpus, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    expected = np.log1p(corpus.items_of(0).lengths)
    table = {"user_id": corpus.user_ids, "spend": expected + 0.5 * rng.normal(size=USERS)}
    pq.write_table(pa.table({**table, "expected": expected}), tmp_path / "spend.parquet")
    file = tmp_path / "spend.parquet"
    config = AttributesConfig(
        name="spend", table=file, column="spend", truth="expected", family="amount"
    )
    task = config.build(corpus)
    vectors = np.column_stack([expected, rng.normal(size=(USERS, 3))])
    rows = {row.name: row for row in task.baselines([])}
    assert list(rows) == [ORACLE, "log counts + amounts"]
    truth, counts = (r2(task.score(row, "linear")) for row in rows.values())
    held = r2(task.score(Given(vectors), "linear"))
    shuffled = r2(task.score(Given(rng.permutation(vectors)), "linear"))
    assert truth > 0.6
    assert truth - 0.05 < held <= truth + 0.02 and truth - 0.05 < counts <= truth + 0.02
    assert shuffled < 0.05


def test_a_table_of_strangers_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["x"], "spend": [1.0]}), tmp_path / "none.parquet")
    file = tmp_path / "none.parquet"
    config = AttributesConfig(name="spend", table=file, column="spend", family="amount")
    with pytest.raises(ValueError, match="no training user has a spend"):
        config.build(corpus)
