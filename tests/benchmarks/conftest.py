from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.suite.results import Cell
from tests.benchmarks.cells_fixture import make_cells


@dataclass(frozen=True)
class Suite:
    """An invented suite's cells, and where they lie."""

    out: Path
    cells: list[Cell]


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    out = tmp_path_factory.mktemp("suite")
    return Suite(out, make_cells(out, resamples=20))
