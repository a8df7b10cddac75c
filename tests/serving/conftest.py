from collections.abc import Generator
from pathlib import Path

import pytest

from serving.settings import Settings
from tests.conftest import TinyRun, indexed, made_once
from tests.serving.milvus.server import running_milvus


@pytest.fixture(scope="session")
def items_index(tiny_items: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the same corpus by the model of item ids."""
    name = "index-of-items"
    return made_once(tmp_path_factory, name, lambda out: indexed(out, name, tiny_items))


@pytest.fixture(scope="session")
def universal_index(tiny_universal: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the same corpus by the universal model."""
    name = "index-of-universal"
    return made_once(tmp_path_factory, name, lambda out: indexed(out, name, tiny_universal))


@pytest.fixture
def settings(tiny_run: TinyRun, tiny_index: Path) -> Settings:
    return Settings(checkpoint=tiny_run.run, index=tiny_index)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """The port of a Milvus."""
    with running_milvus(tmp_path_factory.mktemp("milvus") / "data") as port:
        yield port
