"""Times in every unit, format and zone become the same seconds, or are refused."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue.data.corpus import Corpus
from clue.prepare import prepare
from tests.data.logs import Row, config, corpus_of, histories, write_log

BASE = 1_700_000_000  # 2023-11-14 22:13:20 UTC


def times_of(out: Path, log: Path, *overrides: str) -> list[float]:
    corpus = corpus_of(out, f"events=[{log}]", "service=shop", *overrides)
    return corpus.timestamps_of(0).values.tolist()


def csv_of(file: Path, *times: Any) -> Path:
    rows: list[Row] = [
        {"user_id": "u", "item_id": f"i{n}", "timestamp": time} for n, time in enumerate(times)
    ]
    return write_log(file, rows)


def refusal(out: Path, *logs: Path, **settings: str) -> str:
    more = [f"{key}={value}" for key, value in settings.items()]
    with pytest.raises(ValueError) as caught:
        names = ", ".join(map(str, logs))
        prepare(config(out, f"events=[{names}]", "service=shop", *more), progress=False)
    return str(caught.value)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_parquet_in_every_unit_and_zone(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    part = 123_456_789 * per // 10**9
    moments = pa.array([BASE * per + part, (BASE + 1) * per, -per - part]).cast(
        pa.timestamp(unit, zone)
    )
    table = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": moments}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    rest = part / per
    assert times_of(tmp_path / "c", tmp_path / "x.parquet") == [-1 - rest, BASE + rest, BASE + 1.0]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_unit_of_numbers_is_found_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unit: str, suffix: str
) -> None:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    log = csv_of(tmp_path / f"x.{suffix}", BASE * per, (BASE + 3) * per)
    prepare(config(tmp_path / "c", f"events=[{log}]", "service=shop"))
    names = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
    assert f"times: epoch {names[unit]} in shop" in capsys.readouterr().err
    assert Corpus.open(tmp_path / "c").timestamps_of(0).values.tolist() == [BASE, BASE + 3]
    told = times_of(tmp_path / "told", log, "time_unit=position")
    assert told == [BASE * per, (BASE + 3) * per]


def test_services_with_other_clocks_have_one_order(tmp_path: Path) -> None:
    clocks: dict[str, list[Any]] = {
        "web": [BASE * 1000, (BASE + 200) * 1000],
        "shop": [BASE + 100, BASE + 300],
        "branch": [20231114, 20231115],
        "app": ["2023-11-14 22:13:25"],
    }
    logs: list[str] = []
    for service, times in clocks.items():
        rows: list[Row] = [
            {"user_id": "u", "service": service, "item_id": f"{service}{n}", "timestamp": time}
            for n, time in enumerate(times)
        ]
        logs.append(str(write_log(tmp_path / f"{service}.csv", rows)))
    corpus = corpus_of(tmp_path / "c", f"events=[{', '.join(logs)}]")
    events = sorted((time, item) for rows in histories(corpus).values() for item, time in rows)
    assert events == [
        (1699920000, "branch0"),
        (BASE, "web0"),
        (BASE + 5, "app0"),
        (BASE + 100, "shop0"),
        (BASE + 200, "web1"),
        (BASE + 300, "shop1"),
        (1700006400, "branch1"),
    ]


def test_positions_stay_and_never_mix_with_a_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    positions = csv_of(tmp_path / "p.csv", 0, 1, 2, 30_000_000)
    assert times_of(tmp_path / "c", positions) == [0, 1, 2, 30_000_000]
    assert not Corpus.open(tmp_path / "c").is_clock(0)
    clock = csv_of(tmp_path / "s.csv", BASE, BASE + 1)
    assert "no common order" in refusal(tmp_path / "x", positions, clock)
    rows: list[Row] = [
        {"user_id": "u", "service": service, "item_id": "a", "timestamp": time}
        for service, time in (("news", 1), ("shop", BASE))
    ]
    log = write_log(tmp_path / "both.csv", rows)
    prepare(config(tmp_path / "both", f"events=[{log}]"))
    assert "positions and clock times have no common order" in capsys.readouterr().err
    both = Corpus.open(tmp_path / "both")
    assert both.services == ("news", "shop") and not both.is_clock(0) and both.is_clock(1)


@pytest.mark.parametrize(
    ("times", "setting", "is_clock"),
    [
        ([BASE, BASE + 1], "", True),
        ([20231114, 20231115], "", True),
        (["2023-11-14", "2023-11-15"], "", True),
        ([7, 8], "", False),
        ([7, 8], "time_unit=s", True),
        ([BASE, BASE + 1], "time_unit=position", False),
        (["2023-11-14", "2023-11-15"], "time_unit=position", True),
        (["14.11.2023"], "time_format=%d.%m.%Y", True),
    ],
)
def test_the_corpus_knows_a_clock(
    tmp_path: Path, times: list[Any], setting: str, is_clock: bool
) -> None:
    settings = [setting] if setting else []
    times_of(tmp_path / "c", csv_of(tmp_path / "x.csv", *times), *settings)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.is_clock(0) is is_clock and corpus.manifest.clocks == {"shop": is_clock}


def test_a_time_of_another_unit_is_a_bad_row(tmp_path: Path) -> None:
    log = csv_of(tmp_path / "x.csv", BASE, BASE + 1, (BASE + 2) * 1000)
    message = refusal(tmp_path / "c", log)
    assert "time_of_another_unit (1)" in message
    assert f"{log} row 3: '{(BASE + 2) * 1000} among epoch seconds'" in message
    assert times_of(tmp_path / "c", log, "on_bad_row=drop") == [BASE, BASE + 1]


def test_numbers_of_no_unit_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    log = csv_of(tmp_path / "x.csv", 20231114221320, 20231114221321)
    message = refusal(tmp_path / "c", log)
    assert "time_unit=position" in message and "time_format=" in message
    assert times_of(tmp_path / "c", log, "time_format=%Y%m%d%H%M%S") == [BASE, BASE + 1]


@pytest.mark.parametrize(
    "text",
    [
        "12/1/10 8:26",  # the year 12, to a lenient reader
        "31/8/16",
        "12-1-10",
        "12/1/2010 8:26",
        "2024-06-01 10:00:00 BST",
        "2024-06-01 10:00:00 IST",
        "2024-06-01 10:00:00 CST",
        "epoch",
        "infinity",
    ],
)
def test_times_that_mean_several_are_bad_rows(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path / "c", csv_of(tmp_path / "x.csv", text))
    assert f"bad_timestamp (1), first:\n    {tmp_path}/x.csv row 1: {text!r}" in message
    assert "time_format=" in message


@pytest.mark.parametrize(
    "text",
    ["2024-06-01T10:00:00Z", "2024-06-01 10:00 UTC", "2024/06/01 10:00", " 2024-06-01 10:00:00 "]
    + ["2024-06-01 12:00+02:00", "2024-06-01T12:00:00.000+0200", "2024-06-01 12:00 Europe/Berlin"],
)
def test_times_that_mean_one_are_read(tmp_path: Path, text: str) -> None:
    moment = datetime(2024, 6, 1, 10, tzinfo=UTC).timestamp()
    assert times_of(tmp_path / "c", csv_of(tmp_path / "x.csv", text)) == [moment]


def test_a_format_reads_any_other_form(tmp_path: Path) -> None:
    log = csv_of(tmp_path / "x.csv", "12/1/10 8:26", "1/12/11 8:26", "2/11/11 9:00")
    times = times_of(tmp_path / "c", log, "time_format=%m/%d/%y %H:%M")
    assert times == sorted(times) and times[0] == 1291191960
    zoned = csv_of(tmp_path / "z.csv", "01.06.2024 12:00 +0200")
    moment = datetime(2024, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))).timestamp()
    assert times_of(tmp_path / "z", zoned, "time_format=%d.%m.%Y %H:%M %z") == [moment]
    assert "strptime" in refusal(tmp_path / "q", log, time_format="%Q")
    assert "abbreviations" in refusal(tmp_path / "q", log, time_format="%Y %Z")


def test_seconds_of_nanoseconds_are_the_nearest_floats(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(-(10**18), 2 * 10**18, 300)
    table = {
        "user_id": ["u"] * 300,
        "item_id": [str(n) for n in range(300)],
        "timestamp": pa.array(whole).cast(pa.timestamp("ns", "UTC")),
    }
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    times = times_of(tmp_path / "c", tmp_path / "x.parquet")
    exact = np.sort(whole.astype(np.longdouble) / np.longdouble(10**9)).astype(np.float64)
    assert len(times) == 300 and np.abs(np.array(times) - exact).max() < 3e-7
