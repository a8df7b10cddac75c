"""The short form of `python -m benchmarks.speed faults`."""

from pathlib import Path

from benchmarks.speed.faults import Config, measure
from tests.conftest import TinyRun


def test_nothing_acknowledged_is_lost_and_nothing_damaged_is_served(
    tiny_run: TinyRun, tiny_index: Path
) -> None:
    config = Config(checkpoint=tiny_run.run, index=tiny_index, kills=1, flips=40, load_seconds=0.5)
    report = measure(config)
    # whether a generation is published in so short a time is the machine's to say
    assert [claim.holds for claim in report.claims[:4]] == [True] * 4, report
    figures = report.rows[0].figures
    assert figures["acknowledged"].median > 0 and figures["kills"].median == 1
    outcomes = [row.figures for row in report.rows[1:]]
    assert sum(each["damaged"].median for each in outcomes) == 40
    assert outcomes[0]["detected"].median == 20  # of an index every byte is hashed
