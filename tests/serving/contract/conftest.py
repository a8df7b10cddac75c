from pathlib import Path

import pytest

from clue.inference.text_encoder import TextEncoder
from tests.conftest import TinyRun
from tests.serving.contract.arena import SIDES, Arena, Side


@pytest.fixture(scope="session")
def encoder(tiny_run: TinyRun) -> TextEncoder:
    return TextEncoder.load(tiny_run.run)


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return request.param


@pytest.fixture
def arena(side: Side, milvus: int, encoder: TextEncoder, tmp_path: Path) -> Arena:
    return Arena(tmp_path, side, milvus, encoder)
