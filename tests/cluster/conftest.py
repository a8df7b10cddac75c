"""What the tests on Spark share."""

# pyright: standard

import shutil
from collections.abc import Generator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest


@pytest.fixture(scope="module")
def session() -> Generator[Any]:
    """One Spark for the file, which `clue prepare` uses; a task is tried three times."""
    if find_spec("pyspark") is None or shutil.which("java") is None:
        pytest.skip("needs Java 17 and the extra spark")
    settings: dict[str, Any] = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    builder = import_module("pyspark.sql").SparkSession.builder  # no part of an installation
    spark = builder.master("local[2,3]").config(map=settings).getOrCreate()
    yield spark
    spark.stop()
