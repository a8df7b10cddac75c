from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.suite.results import TaskResult
from tests.benchmarks.results_fixture import make_results


@dataclass(frozen=True)
class Suite:
    """An invented suite's results, and where they lie."""

    out: Path
    results: list[TaskResult]


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    out = tmp_path_factory.mktemp("suite")
    return Suite(out, make_results(out, resamples=20))
