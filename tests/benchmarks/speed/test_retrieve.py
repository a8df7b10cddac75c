"""The short form of `retrieve`: each kind is measured; what is not exact does not pass for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import retrieve
from benchmarks.speed.retrieve import EXACT, HNSWLIB, Config, K, exact, measure
from serving.generation import publish, writing
from tests.serving.planted import contents

SMALL = Config(vectors=3000, width=12, queries=20, kinds=("flat", "sq8", "ivf"))


def test_each_kind_is_measured_beside_hnswlib_and_the_matrix_product(tmp_path: Path) -> None:
    pytest.importorskip("hnswlib")
    with writing(tmp_path / "index", overwrite=False):
        publish(tmp_path / "index", contents(items=1200, users=60))
    report = measure(replace(SMALL, corpus=tmp_path / "index"))
    cases = list(dict.fromkeys(row.case for row in report.rows))
    assert cases == ["3,000 generated, width 12", "1,200 items of index"]
    arms = [row.arm.split(", effort")[0] for row in report.rows]
    assert arms == [EXACT, "ours, flat", "ours, sq8", "ours, ivf", HNSWLIB] * 2
    for row in report.rows:
        assert row.status == "measured", row.note
        figures = {name: spread.median for name, spread in row.figures.items()}
        assert figures["p99 ms"] >= figures["p50 ms"] > 0
        if row.arm in (EXACT, "ours, flat"):
            assert figures["recall@10"] == 1
        else:
            assert figures["recall@10"] > 0.9 and figures["MB beside the vectors"] > 0
    assert [one.found is not None for one in report.claims] == [True] * 3


def test_a_search_that_is_not_exact_does_not_compare() -> None:
    vectors, queries = retrieve.generated(2000, 8, 10)
    truth = [exact(vectors, query[None]) for query in queries]

    def wrong(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = exact(vectors, query)
        return rows, scores + np.float32(0.01)

    row = retrieve.row_of("case", "ours, flat", wrong, queries, truth, 0.0, 0)
    assert row.status == "not comparable" and "differ by 1.0e-02" in row.note
    order = np.argsort(-(vectors @ queries[0]))[:K]
    np.testing.assert_array_equal(truth[0][0], order)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no index in"):
        measure(Config(corpus=tmp_path))
    with pytest.raises(ValueError, match="vectors is 10"):
        Config(vectors=10)
