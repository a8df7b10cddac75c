"""What a cell of a field may hold in each format, and what is refused by row, value and step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.prepare import prepare
from tests.data.field_logs import cells, field_values, shop
from tests.data.logs import Row, config, corpus_of

SUFFIXES = ["parquet", "csv", "csv.gz", "jsonl"]


def refusal(out: Path, rows: Sequence[Row], *overrides: str, suffix: str = "csv") -> str:
    with pytest.raises(ValueError) as caught:
        shop(out, rows, *overrides, suffix=suffix)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("boolean", text, code)
        for code, texts in (
            ("true", ["true", "TRUE", "t", "Yes", "1", "1.0", " true "]),
            ("false", ["False", "f", "NO", "0", "0.0"]),
            (None, ["", " ", "NA", "None", "-"]),
        )
        for text in texts
    ]
    + [("numeric", " 1.5 ", 1.5), ("numeric", "1e3", 1000.0), ("numeric", "-0", 0.0)]
    + [("numeric", "NaN", None), ("numeric", "", None), ("numeric", "N/A", None)]
    + [("categorical", " web ", "web"), ("categorical", "7.0", "7"), ("categorical", "-", None)],
)
def test_cells_of_text(tmp_path: Path, kind: str, cell: str, value: Any) -> None:
    rows = cells(cell)
    corpus = shop(
        tmp_path / "c", rows, f"fields={{price: {kind}}}", "split.hash.valid=0", "split.hash.test=0"
    )
    assert field_values(corpus, "price") == {("u0", "shop"): [value]}


@pytest.mark.parametrize(
    ("cells_", "kind", "values"),
    [
        (pa.array([1, None, 0], pa.int8()), "numeric", [1, None, 0]),
        (pa.array([1.5, float("nan"), -0.0]), "numeric", [1.5, None, 0]),
        (pa.array([2**60, 3, None], pa.uint64()), "numeric", [2.0**60, 3, None]),
        (pa.array(["12.25", "7", None]).cast(pa.decimal128(9, 2)), "numeric", [12.25, 7, None]),
        (pa.array([True, False, None]), "numeric", [1, 0, None]),
        (pa.array([True, False, None]), "boolean", ["true", "false", None]),
        (pa.array([1.0, 0.0, float("nan")]), "boolean", ["true", "false", None]),
        (pa.array([1, 0, None], pa.int64()), "boolean", ["true", "false", None]),
        (pa.array([7.0, 8.5, float("nan")]), "categorical", ["7", "8.5", None]),
        (pa.array(["a", "b", None]).dictionary_encode(), "categorical", ["a", "b", None]),
        (pa.array([None, None, None]), "numeric", [None, None, None]),
    ],
)
def test_cells_of_parquet(tmp_path: Path, cells_: pa.Array, kind: str, values: list[Any]) -> None:
    table = {"user_id": ["u"] * 3, "item_id": ["a"] * 3, "timestamp": [1, 2, 3], "x": cells_}
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    all_train = ["split.hash.valid=0", "split.hash.test=0"]
    corpus = corpus_of(
        tmp_path / "c",
        f"events=[{tmp_path}/log.parquet]",
        "service=shop",
        f"fields={{x: {kind}}}",
        *all_train,
    )
    assert field_values(corpus, "x") == {("u", "shop"): values}


@pytest.mark.parametrize(
    ("kind", "cell", "reason"),
    [
        ("numeric", "cheap", "not_a_number"),
        ("numeric", "3 EUR", "not_a_number"),
        ("numeric", "inf", "not_a_number"),
        ("numeric", "1e39", "not_a_number"),
        ("boolean", "maybe", "not_a_boolean"),
        ("boolean", "2", "not_a_boolean"),
        ("categorical", "123456789012345678.0", "id_beyond_2_53"),
    ],
)
def test_cells_that_are_none_are_refused_or_dropped(
    tmp_path: Path, kind: str, cell: str, reason: str
) -> None:
    rows = cells(1, cell, 0, "")
    field = f"fields={{price: {kind}}}"
    message = refusal(tmp_path / "c", rows, field)
    assert f"{reason} (1), first:\n    {tmp_path}/c.csv row 2: 'price={cell}'\n" in message
    corpus = shop(tmp_path / "d", rows, field, "on_bad_row=drop")
    assert corpus.manifest.dropped_rows == {reason: 1}
    assert corpus.num_users == 3 and len(corpus.values_of(0, "price").values) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_decimal_comma_is_named_with_its_row_and_the_next_step(
    tmp_path: Path, suffix: str
) -> None:
    rows = cells("4.50", "12,99", "1.234,00")
    message = refusal(tmp_path / "c", rows, "fields={price: numeric}", suffix=suffix)
    assert "not_a_number (2), first:" in message
    assert f"{tmp_path}/c.{suffix} row 2: 'price=12,99'" in message
    assert f"{tmp_path}/c.{suffix} row 3: 'price=1.234,00'" in message
    assert "has a point, 1234.5; convert it where the log is made" in message
    assert not (tmp_path / "c").exists()


def test_times_and_lists_are_no_numbers(tmp_path: Path) -> None:
    table = {"user_id": ["u"], "item_id": ["a"], "timestamp": [1]}
    for number, unit in enumerate(("us", "ns")):
        log = tmp_path / f"{unit}.parquet"
        moment = pa.array([1_700_000_000]).cast(pa.timestamp(unit))
        pq.write_table(pa.table({**table, "x": moment}), log)
        with pytest.raises(ValueError, match=r"(?s)not_a_number \(1\).*row 1: 'x=1"):
            prepare(
                config(
                    tmp_path / f"c{number}",
                    f"events=[{log}]",
                    "service=shop",
                    "fields={x: numeric}",
                ),
                progress=False,
            )
    message = refusal(tmp_path / "l", cells([1, 2]), "fields={price: numeric}", suffix="jsonl")
    assert "not_a_plain_value (1)" in message and "price=[1,2]" in message


def test_null_values_win_over_what_a_cell_would_be(tmp_path: Path) -> None:
    rows = cells(-1, 5, 0)
    for suffix in ("csv", "parquet"):
        corpus = shop(
            tmp_path / suffix,
            rows,
            "fields={price: numeric, flag: {kind: boolean, column: price}}",
            "null_values=['-1', '5']",
            "split.hash.valid=0",
            "split.hash.test=0",
            suffix=suffix,
        )
        values = corpus.values_of(0, "price").values
        assert np.isnan(values[:2]).all() and values[2] == 0
        assert corpus.values_of(0, "flag").values.tolist() == [0, 0, 2]
