"""The expected score of a task follows the loss; how sure it is shows."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.scaling.fit.downstream_scores import Form, Points, expected, read_scores

LOSSES = np.linspace(3, 5, 8)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("form", "scores", "at"),
    [
        ("logit", logistic(4 - 1.1 * LOSSES), logistic(np.array(4 - 1.1 * 2.5))),
        ("offset", 0.8 - 0.01 * np.exp(0.9 * (LOSSES - 2)), 0.8 - 0.01 * np.exp(0.45)),
        ("logit", 70 - 9 * LOSSES, 70 - 9 * 2.5),
    ],
)
def test_exact_points_are_followed(form: Form, scores: np.ndarray, at: float) -> None:
    band = expected(Points(LOSSES, scores), np.full(20, 2.5), form)
    assert band.value == pytest.approx(float(at), rel=1e-3)
    assert band.high95 - band.low95 < 0.02 * abs(band.value)


def test_noise_and_an_unsure_loss_widen_the_band() -> None:
    draw = np.random.default_rng(0)
    scores = logistic(4 - 1.1 * LOSSES)
    noisy = logistic(4 - 1.1 * LOSSES + draw.normal(0, 0.2, 8))
    sure, unsure = np.full(200, 3.5), np.r_[3.5, draw.normal(3.5, 0.3, 199)]
    widths = [
        (band := expected(Points(LOSSES, y), losses, "logit")).high95 - band.low95
        for y, losses in ((scores, sure), (scores, unsure), (noisy, sure))
    ]
    assert widths[0] < 0.01 < min(widths[1:])


def test_too_few_checkpoints_are_refused() -> None:
    with pytest.raises(ValueError, match="3 checkpoints of 3 losses"):
        expected(Points(LOSSES[:3], LOSSES[:3]), np.ones(2), "logit")
    with pytest.raises(ValueError, match="8 checkpoints of 1 losses"):
        expected(Points(np.ones(8), LOSSES), np.ones(2), "logit")


def test_json_and_parquet_hold_the_same(tmp_path: Path) -> None:
    rows = [
        {"loss": 4.0 - i, "task": task, "score": 0.5 + i / 9} for i in range(3) for task in "ab"
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    one, other = (read_scores(tmp_path / f"x.{kind}") for kind in ("json", "parquet"))
    assert one.keys() == other.keys() == {"a", "b"}
    assert np.array_equal(one["a"].losses, [2.0, 3.0, 4.0])
    assert np.array_equal(one["b"].scores, other["b"].scores)
    (tmp_path / "bad.json").write_text(json.dumps([{"loss": 1}]))
    with pytest.raises(ValueError, match="row 1, .* lacks"):
        read_scores(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text(json.dumps([{"loss": None, "task": "a", "score": 1}]))
    with pytest.raises(ValueError, match=r"loss of row 1 is None, not a number; correct it"):
        read_scores(tmp_path / "bad.json")
    for text, why in (("{", "is no JSON"), ("{}", "is no list of objects")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=why):
            read_scores(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError, match="no scores"):
        read_scores(tmp_path / "none.json")
