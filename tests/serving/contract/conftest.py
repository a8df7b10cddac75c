from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from clue.inference.text_encoder import TextEncoder
from tests.conftest import TinyRun
from tests.serving.contract.arena import SIDES, Arena, Side
from tests.serving.milvus.server import running_milvus

Opened = Callable[[Path], Arena]


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """The port of a Milvus."""
    with running_milvus(tmp_path_factory.mktemp("milvus") / "data") as port:
        yield port


@pytest.fixture(scope="session")
def encoder(tiny_run: TinyRun) -> TextEncoder:
    return TextEncoder.load(tiny_run.run)


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return request.param


@pytest.fixture
def arena(side: Side, milvus: int, encoder: TextEncoder, tmp_path: Path) -> Arena:
    return Arena(tmp_path, side, milvus, encoder)
