from collections.abc import Generator
from pathlib import Path

import pytest

from serving.build_index import BuildConfig, build
from serving.settings import Settings
from tests.conftest import TinyRun
from tests.serving.milvus.server import running_milvus


@pytest.fixture(scope="session")
def items_index(tiny_items: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the same corpus by the model of item ids."""
    out = tmp_path_factory.mktemp("indexes") / "items"
    build(BuildConfig(checkpoint=tiny_items.run, corpus=tiny_items.corpus, out=out))
    return out


@pytest.fixture(scope="session")
def universal_index(tiny_universal: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the same corpus by the universal model."""
    out = tmp_path_factory.mktemp("indexes") / "universal"
    build(BuildConfig(checkpoint=tiny_universal.run, corpus=tiny_universal.corpus, out=out))
    return out


@pytest.fixture
def settings(tiny_run: TinyRun, tiny_index: Path) -> Settings:
    return Settings(checkpoint=tiny_run.run, index=tiny_index)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """The port of a Milvus."""
    with running_milvus(tmp_path_factory.mktemp("milvus") / "data") as port:
        yield port
