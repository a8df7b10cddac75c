"""What a table may not hold is refused by name; what only looks different changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.scaling.fit.run_table import digest, fit_rows, from_table, read_parquet, read_runs
from benchmarks.scaling.fit.selection import Sample
from benchmarks.scaling.fit.sensitivity import fitted
from tests.benchmarks.scaling.tables import row, rows, runs, table, write


def answer(found: list[dict[str, Any]]) -> np.ndarray:
    """The surface that a table gives."""
    return fitted(Sample.of(fit_rows(runs(found)), ("params", "pairs")), most=6).theta


def test_permuted_rows_give_the_same_fit_to_the_bit(tmp_path: Path) -> None:
    found = rows()
    order = np.random.default_rng(0).permutation(len(found))
    shuffled = [found[i] for i in order]
    assert np.array_equal(answer(found), answer(shuffled))
    files = [write(x, tmp_path / f"{i}.parquet") for i, x in enumerate((found, shuffled))]
    assert digest(read_runs(files[0])) == digest(read_runs(files[1]))


def test_a_duplicated_run_changes_nothing() -> None:
    found = rows()
    copies = [found[3], {**found[7], "point": "again", "study": "other", "seconds": 9.0}]
    assert len(runs(found + copies)) == len(found)
    assert np.array_equal(answer(found), answer(found + copies))
    assert digest(runs(found)) != digest(runs(found[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_kind": "train"}, "training losses: 1 rows"),
        ({"annealed": False}, "un-annealed points: 1 of 50"),
        ({"negatives": 255}, "mixed K: .*negatives is 255, 4095"),
        ({"eval_set": "other"}, "mixed evaluation sets"),
        ({"objective": "next_item"}, "mixed objectives"),
    ],
)
def test_what_does_not_compare_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    found = rows()
    found[5] = {**found[5], **change}
    with pytest.raises(ValueError, match=message):
        fit_rows(runs(found))


def test_training_losses_at_different_batches_are_named() -> None:
    found = [{**x, "loss_kind": "train"} for x in rows()]
    found += [row(32, 2**17, batch=b, loss_kind="train") for b in (64, 1024)]
    with pytest.raises(ValueError, match=r"training losses at different batch sizes \(64, 256, 1"):
        fit_rows(runs(found))


def test_unannealed_points_can_be_left_out() -> None:
    found = rows()
    found[5] = {**found[5], "annealed": False}
    assert len(fit_rows(runs(found), drop_unannealed=True)) == len(found) - 1


def test_too_few_decades_are_refused_until_the_figure_is_told() -> None:
    found = [x for x in rows() if x["flops"] < 1e11]
    decades = runs(found).decades
    assert 1.8 < decades < 2.2
    with pytest.raises(ValueError, match=f"too few decades: .* {decades:.2f} .*min_decades="):
        fit_rows(runs(found))
    assert len(fit_rows(runs(found), min_decades=np.floor(100 * decades) / 100)) == len(found)


def test_held_out_runs_are_not_fitted() -> None:
    found = [*rows(), row(128, 2**21, role="held_out", negatives=255)]
    assert len(fit_rows(runs(found))) == len(found) - 1
    with pytest.raises(ValueError, match="no row has the role fit"):
        fit_rows(runs([row(128, 2**21, role="held_out")]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": float("nan")}, "loss of w16-p16384-s0 is nan"),
        ({"flops": 0.0}, "flops of w16-p16384-s0 is 0.0; it must be above 0"),
        ({"lr": None}, "1 empty cells of lr"),
    ],
)
def test_broken_cells_are_refused(change: dict[str, Any], message: str) -> None:
    found = rows()
    found[0] = {**found[0], **change}
    with pytest.raises(ValueError, match=message):
        runs(found)


def test_two_losses_of_one_end_are_refused() -> None:
    found = rows()
    with pytest.raises(ValueError, match="w16-p16384-s0 has two rows at step 64"):
        runs([*found, {**found[0], "loss": 9.0}])
    with pytest.raises(ValueError, match="role held_out"):
        runs([*found, {**found[0], "role": "held_out"}])


def test_missing_files_columns_and_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="scaling sweep"):
        read_runs(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="lacks the columns lr, loss"):
        from_table(table(rows()).drop_columns(["loss", "lr"]))
    with pytest.raises(ValueError, match="no rows"):
        from_table(table(rows()).slice(0, 0))
    text = [{**x, "width": "wide"} for x in rows()]
    with pytest.raises(ValueError, match="width is string such as .wide., not a whole number"):
        runs(text)


def test_the_ends_of_a_trunk_are_one_training() -> None:
    found = [{**x, "trunk": f"{x['width']}-{x['seed']}"} for x in rows()]
    assert len(np.unique(runs(found).clusters)) == 10
    assert len(np.unique(runs(rows()).clusters)) == 50


def test_a_file_that_cannot_be_read_is_named_with_the_next_step(tmp_path: Path) -> None:
    file = tmp_path / "runs.parquet"
    file.write_text("no table")
    with pytest.raises(ValueError, match=r"runs\.parquet is no Parquet table .*write it again"):
        read_runs(file)
    found = rows()
    with pytest.raises(ValueError, match=r"steps is double such as 1\.5, not a whole number"):
        runs([{**row, "steps": 1.5} for row in found])
    for other, kind in (({"loss": "low"}, "a number"), ({"annealed": "soon"}, "true or false")):
        (name,) = other
        with pytest.raises(ValueError, match=rf"{name} is string such as '\w+', not {kind}; write"):
            runs([{**row, **other} for row in rows()])
    with pytest.raises(ValueError, match="lacks the column point; it has loss: rename one"):
        pq.write_table(pa.table({"loss": [1.0]}), file)
        read_parquet(file, ("loss", "point"))
