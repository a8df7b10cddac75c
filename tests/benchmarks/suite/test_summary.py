# pyright: standard
"""What is said of results equals what is counted by hand, and intervals cover what they claim."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import kendalltau, spearmanr

from benchmarks.metrics.bootstrap import Interval, bootstrap, mean_of, summary
from benchmarks.metrics.correlation import correlations
from benchmarks.protocols import Measure
from benchmarks.suite import results
from benchmarks.suite.results import TaskResult
from benchmarks.suite.significance import (
    compare_to,
    holm,
    paired_difference,
    significance,
    two_sided,
)
from benchmarks.suite.summary import TaskTable, compared, mean_gain, ranks, tables, two_level
from tests.benchmarks.conftest import Suite


def a_result(
    out: Path,
    task: str,
    model: str,
    values: np.ndarray | float,
    *,
    seed: int = 0,
    lower: bool = False,
    recipe: str = "",
) -> TaskResult:
    """A result of values of users u0, u1 ..., written; of a number, without queries."""
    value = float(np.mean(values))
    result = TaskResult(
        *(task, 1, "family", model, seed, "linear", True),
        measures={"measure": Measure("mean", ("value",), lower)},
        values={"measure": Interval(value, value - 0.1 - 0.1 * seed, value + 0.1)},
        slices={},
        chosen={},
        users=np.size(values),
        count=np.size(values),
        about={"recipe": recipe, "digest": ""},
        out=out,
    )
    each = np.atleast_1d(values)
    users = [f"u{number}" for number in range(len(each))]
    results.write(result, pa.table({"user_id": users, "value": each}))
    if np.ndim(values) == 0:
        assert result.queries is not None
        result.queries.unlink()
    return result


def a_table(out: Path, task: str, rows: dict[str, float], *, lower: bool = False) -> TaskTable:
    made = [a_result(out, task, model, value, lower=lower) for model, value in rows.items()]
    return tables(made, resamples=10)[0]


def test_holm_by_hand() -> None:
    # Ascending .01, .02, .03, .2 times 4, 3, 2, 1 are .04, .06, .06, .2, and none below the last.
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])
    corrected = holm([float("nan"), 0.02, 0.03])  # two are known
    assert np.isnan(corrected[0]) and corrected[1:] == pytest.approx([0.04, 0.04])


def test_p_values_count_resamples_across_zero() -> None:
    assert two_sided(np.array([1.0, 2, 3, -1])) == pytest.approx(0.5)
    assert two_sided(np.arange(1.0, 51)) == pytest.approx(1 / 50)  # none across: at least 1 / R
    assert two_sided(np.zeros(5)) == 1
    assert np.isnan(two_sided(np.array([np.nan])))


def test_mean_ranks_by_hand_with_ties(tmp_path: Path) -> None:
    found = [
        a_table(tmp_path, "a", {"CLUE": 0.9, "untrained": 0.2, "baseline": 0.5}),  # 1 3 2
        a_table(tmp_path, "b", {"CLUE": 0.4, "untrained": 0.4, "baseline": 0.6}),  # 2.5 2.5 1
        a_table(
            tmp_path, "c", {"CLUE": 5.0, "untrained": 7.0, "baseline": 6.0}, lower=True
        ),  # 1 3 2
    ]
    models = ["CLUE", "untrained", "baseline"]
    expected = {"CLUE": (1.5, 4.5), "untrained": (8.5 / 3, 0.5), "baseline": (5 / 3, 4.0)}
    standing = ranks(found, models)
    for name in models:
        assert standing[name] == pytest.approx(expected[name])


def test_only_tasks_that_all_compared_models_have_are_ranked(tmp_path: Path) -> None:
    rows = {"CLUE": 0.9, "untrained": 0.2}
    found = [a_table(tmp_path, f"t{n}", {**rows, "text": 0.3}) for n in range(4)]
    found.append(a_table(tmp_path, "t4", {**rows, "EASE": 0.99, "oracle": 1.0}))
    models, common = compared(found)
    assert models == ["CLUE", "text", "untrained"]  # text has 4 of 5 tasks, EASE 1
    assert [table.name for table in common] == ["t0", "t1", "t2", "t3"]


@pytest.mark.parametrize("lower", [False, True])
def test_normalised_gain_by_hand(tmp_path: Path, lower: bool) -> None:
    rows = {"CLUE": 0.8, "untrained": 0.2, "text": 0.4, "kNN": 0.6, "oracle": 1.0}
    rows |= {"SASRec (own, supervised)": 0.9}  # shown first of all, and no baseline
    rows["CLUE + text"] = 0.95  # holds ours, so it is no baseline
    sign = -1 if lower else 1
    table = a_table(tmp_path, "t", {k: sign * v for k, v in rows.items()}, lower=lower)
    best, top = table.best_baseline, table.oracle
    assert best is not None and best.model == "kNN"
    assert top is not None and top.model == "oracle"
    assert table.gain(table.rows["CLUE"]) == pytest.approx(0.6 / 0.4)
    assert table.gain(table.rows["text"]) == pytest.approx(0.2 / 0.4)
    assert table.attained(table.rows["CLUE"]) == pytest.approx(0.6 / 0.8)
    first = ["CLUE + text", "SASRec (own, supervised)", "CLUE"]
    assert [row.model for row in table.ranked][:3] == first
    assert paired_difference(table, table.rows["CLUE"], best).gain == pytest.approx(0.2)


def test_a_task_without_headroom_has_no_gain(tmp_path: Path) -> None:
    none = a_table(tmp_path, "a", {"CLUE": 0.8, "untrained": 0.5, "text": 0.4, "random": 0.9})
    some = a_table(tmp_path, "b", {"CLUE": 0.8, "untrained": 0.2, "text": 0.4})
    assert np.isnan(none.gain(none.rows["CLUE"]))
    assert mean_gain([none, some], "CLUE") == (pytest.approx(3.0), 1)


def test_differences_equal_a_direct_bootstrap_and_are_paired(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 400)  # what makes users differ cancels
    ours, baseline = hard + 0.3 + rng.normal(0, 0.1, 400), hard
    made = [a_result(tmp_path, "t", "CLUE", ours), a_result(tmp_path, "t", "text", baseline)]
    table = tables(made, resamples=500)[0]
    found = paired_difference(table, table.rows["CLUE"], table.rows["text"])
    both = [mean_of(ours), mean_of(baseline)]
    values, drawn = bootstrap(both, np.arange(400), resamples=500, seed=0)
    expected = summary(values[:1] - values[1:], drawn[:1] - drawn[1:])[0]
    assert dataclasses.astuple(found.delta) == pytest.approx(dataclasses.astuple(expected))
    assert found.delta.high - found.delta.low < 0.1 < 0.5 < drawn[0].std() * 4
    assert found.p == pytest.approx(1 / 500)
    assert found.relative == pytest.approx(found.delta.value / abs(baseline.mean()))


def test_effects_are_in_units_of_our_seeds(tmp_path: Path) -> None:
    made = [a_result(tmp_path, "t", "CLUE", 0.5 + 0.1 * seed, seed=seed) for seed in range(3)]
    made.append(a_result(tmp_path, "t", "untrained", 0.2))
    table = tables(made, resamples=10)[0]
    ours = table.rows["CLUE"]
    assert ours.over == "widest seed" and ours.seeds == pytest.approx([0.5, 0.6, 0.7])
    # The third seed's interval, from -.3 to +.1 around it, stands around the mean.
    assert dataclasses.astuple(ours.found) == pytest.approx((0.6, 0.3, 0.7))
    found = compare_to([table], lambda one: one.rows.get("untrained"))[0]
    assert found.in_deviations == pytest.approx(0.4 / 0.1) and found.relative == pytest.approx(2)
    assert np.isnan(found.p) and np.isnan(found.holm)


def test_results_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one = a_result(tmp_path, "t", "CLUE", np.ones(3))
    with pytest.raises(ValueError, match="of another version or recipe than"):
        tables([one, a_result(tmp_path, "t", "text", np.ones(3), recipe="other")], resamples=5)
    with pytest.raises(ValueError, match="holds other queries than the task's other results"):
        tables([one, a_result(tmp_path, "t", "text", np.ones(4))], resamples=5)


def test_intervals_over_seeds_and_users_cover_the_truth_in_90_to_98_percent_of_sets() -> None:
    """Five seeds around a true mean of 0, whose users share how hard they are."""
    rng, sets, seeds, count = np.random.default_rng(0), 200, 5, 120
    covered = 0
    for number in range(sets):
        hard = rng.normal(0, 1, count)
        values = rng.normal(0, 0.06, (seeds, 1)) + hard + rng.normal(0, 0.5, (seeds, count))
        each = [mean_of(row) for row in values]
        drawn = bootstrap(each, np.arange(count), resamples=400, seed=number)[1]
        found = summary(np.zeros(1), two_level(drawn, seed=number)[None])[0]
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / sets <= 0.98


def test_a_bootstrap_of_users_alone_would_not_cover_seeds() -> None:
    """The control of the last test: where seeds differ, users alone claim far too much."""
    rng, sets, seeds, count = np.random.default_rng(1), 100, 5, 400
    covered = {"users": 0, "both": 0}
    for number in range(sets):
        values = rng.normal(0, 0.5, (seeds, 1)) + rng.normal(0, 1, (seeds, count))
        drawn = bootstrap(
            [mean_of(row) for row in values], np.arange(count), resamples=300, seed=number
        )[1]
        draws = {"users": drawn.mean(0), "both": two_level(drawn, seed=number)}
        for name, each in draws.items():
            found = summary(np.zeros(1), each[None])[0]
            covered[name] += found.low <= 0 <= found.high
    assert covered["users"] < 40 and covered["both"] >= 80


def test_tau_of_a_monotone_relation_is_one() -> None:
    points = [(7 - 0.3 * n, {"up": n**2, "down": -n}) for n in range(8)]
    found = correlations(points, {"up": False, "down": True}, resamples=200)
    for task in ("up", "down"):
        assert dataclasses.astuple(found[task]["kendall"]) == pytest.approx((1, 1, 1))
        assert found[task]["spearman"].value == pytest.approx(1)


def test_tau_of_a_shuffled_relation_is_across_zero_and_equals_scipy() -> None:
    rng = np.random.default_rng(3)
    loss, score = rng.normal(size=12), np.round(rng.normal(size=12), 1)
    points = [(x, {"t": y}) for x, y in zip(loss, score, strict=True)]
    found = correlations(points, {"t": False}, resamples=500)["t"]
    assert found["kendall"].low < 0 < found["kendall"].high
    assert found["kendall"].value == pytest.approx(kendalltau(-loss, score)[0])
    assert found["spearman"].value == pytest.approx(spearmanr(-loss, score)[0])


def test_tau_of_two_checkpoints_is_refused() -> None:
    with pytest.raises(ValueError, match="2 checkpoints with a loss; a correlation needs 3"):
        correlations([(1.0, {"t": 1.0}), (2.0, {"t": 2.0})], {"t": False}, resamples=10)


def test_claims_find_what_is_planted(suite: Suite) -> None:
    found = tables(suite.results, resamples=300)
    made = significance(found)
    assert list(made) == [
        "beats untrained",
        "beats the best baseline",
        "beats aggregates",
        "beats TF-IDF",
    ]
    untrained = {one.task: one for one in made["beats untrained"]}
    assert len(untrained) == 7 and all(one.gain > 0 for one in untrained.values())
    best = {one.task: one for one in made["beats the best baseline"]}
    assert best["next/films"].baseline == "EASE" and best["next/films"].gain < 0
    assert best["next/films"].holm < 0.05
    assert best["matching/food"].delta.value < 0 < best["matching/food"].gain  # lower is better
    assert [one.task for one in made["beats aggregates"]] == ["shop/churn", "shop/spend"]
