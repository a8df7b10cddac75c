"""The short form of `python -m benchmarks.speed faults`."""

from pathlib import Path

from benchmarks.speed.faults import Config, measure
from serving.build_index import BuildConfig, build
from tests.conftest import TinyRun


def test_nothing_acknowledged_is_lost_and_nothing_damaged_is_served(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build(BuildConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=index))
    config = Config(checkpoint=tiny_run.run, index=index, kills=1, flips=40, load_seconds=1.5)
    report = measure(config)
    # whether a generation is published in so short a time is the machine's to say
    assert [claim.holds for claim in report.claims[:4]] == [True] * 4, report
    figures = report.rows[0].figures
    assert figures["acknowledged"].median > 0 and figures["kills"].median == 1
    outcomes = [row.figures for row in report.rows[1:]]
    assert sum(each["damaged"].median for each in outcomes) == 40
    assert outcomes[0]["detected"].median == 20  # of an index every byte is hashed
