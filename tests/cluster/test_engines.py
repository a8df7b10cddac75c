"""Vectors made by a cluster's engine, here in its local mode, are those of `clue embed`."""

# pyright: standard

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clue.embed import EmbedConfig, embed, read_embeddings
from tests.conftest import ROOT, TinyRun


@pytest.mark.cluster
@pytest.mark.parametrize("engine", ["spark", "ray"])
def test_an_engine_makes_the_vectors_of_the_command(
    engine: str, tiny_run: TinyRun, tmp_path: Path
) -> None:
    if engine == "spark" and (find_spec("pyspark") is None or shutil.which("java") is None):
        pytest.skip("needs Java 17 and the extra spark")
    if engine == "ray" and find_spec("ray") is None:
        pytest.skip("needs ray")
    logs, out = tiny_run.corpus.parent / "logs", tmp_path / "vectors"
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "examples/cluster/embed_on_engines.py"), engine),
            *(str(tiny_run.run), str(logs / "events.parquet"), str(logs / "items.parquet")),
            str(out),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false "
            "--conf spark.sql.shuffle.partitions=3 pyspark-shell",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(out.glob("*.parquet"))
    tables = [pq.read_table(file) for file in files]
    made = {
        user: np.array(vector, np.float32)
        for table in tables
        for user, vector in zip(
            table["user_id"].to_pylist(), table["vector"].to_pylist(), strict=True
        )
    }
    assert sum(map(len, tables)) == len(made)  # nobody twice
    table = tmp_path / "users.parquet"
    embed(EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=table))
    rows = read_embeddings(table).to_pylist()
    known = {row["user_id"]: row["vector"] for row in rows if row["service"] == "all"}
    assert made.keys() == known.keys() and len(made) > 250
    for user, vector in known.items():
        np.testing.assert_allclose(made[user], vector, atol=1e-5)
