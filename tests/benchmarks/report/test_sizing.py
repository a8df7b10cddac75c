"""The costs of many users: hand-computed from rates, and a law's run that reads each user once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report.sizing import (
    Rates,
    SizingConfig,
    Training,
    costs,
    figures,
    number,
    numbers_of,
    trainings_of,
)
from benchmarks.scaling.fit.isoflop import Cost
from benchmarks.scaling.fit.run_table import read_runs
from benchmarks.scaling.fit.study import FitConfig, laws_of
from benchmarks.speed.report import Report, Row, Spread

ROOT = Path(__file__).parents[3]
RATES = Rates(
    events_prepared=1000,
    corpus_bytes_an_event=12,
    flops_trained=1e10,
    events_embedded=500,
    lookups=7,
    users_embedded_by_http=3,
    index_bytes_a_user=2.0**10,
    index_bytes_an_item=2.0**20,
    store_bytes_a_user=2.0**12,
)


def test_costs_are_those_that_a_pencil_finds() -> None:
    config = SizingConfig(
        index=Path("none"), events=10, items=2**10, cores=2, memory_gib=1.0, gpu_flops=1e12
    )
    made = costs(config, RATES, 2**20, Training(7.2e14, 1e6, 1e5, 1e7))
    events = 10 * 2**20
    assert made["events"] == events
    assert made["corpus_gib"] == pytest.approx(12 * events / 2**30)
    assert made["prepare_hours"] == pytest.approx(events / 1000 / 7200)
    assert made["train_hours"] == pytest.approx(10)  # 72,000 s of one core, and there are two
    assert made["train_gpu_hours"] == pytest.approx(0.2)
    assert made["embed_hours"] == pytest.approx(events / 500 / 7200)
    assert made["index_gib"] == pytest.approx(2)  # a GiB of users, a GiB of items
    assert made["index_machines"] == 3  # of .8 GiB each
    assert made["store_gib"] == pytest.approx(4)
    assert (made["lookups"], made["embeds"]) == (14, 6)


def test_the_laws_run_reads_a_pair_of_each_user() -> None:
    counts = (10_000_000, 100_000_000)
    config = SizingConfig(index=Path("none"), results=ROOT / "results", users=counts)
    runs = read_runs(ROOT / "results" / "scaling" / config.study / "runs.parquet")
    few, many = trainings_of(config).values()
    assert few.flops > runs["flops"].max()
    # FLOPs are factor N^power D, fitted to the runs that the law keeps: on that surface both lie
    fit = FitConfig(
        table=ROOT / "results" / "scaling" / config.study / "runs.parquet",
        min_decades=config.min_decades,
    )
    sample = laws_of(fit, runs, ("surface",)).sample("surface")
    cost = Cost.of(sample.flops, *sample.x.T)
    for run, users in ((few, 1e7), (many, 1e8)):
        expected = np.log(cost.factor) + cost.power * np.log(run.params) + np.log(users)
        assert np.log(run.flops) == pytest.approx(expected, abs=0.01)
        assert run.params_low80 <= run.params <= run.params_high80
    assert many.params > few.params
    with pytest.raises(ValueError, match="are outside the law's"):
        trainings_of(replace(config, users=(3,)))


def test_a_row_that_is_missing_is_named() -> None:
    row = Row(case="all", arm="ours", figures={"events/s": Spread.of([1.0, 3.0, 2.0])})
    report = Report(name="prepare", rows=[row], claims=[])
    assert figures(report, "all", "ours") == {"events/s": 2.0}
    with pytest.raises(ValueError, match="prepare has no row 'theirs' of 'all'"):
        figures(report, "all", "theirs")


def test_numbers_are_read_and_written() -> None:
    assert numbers_of("1,024 users, 16,296 events.") == [1024, 16296]
    assert [number(x) for x in (0.0, 0.01234, 12.345, 1234.5, 2e9)] == [
        *("0.00e+00", "0.0123", "12.3", "1,230", "2.00e+09"),
    ]
