"""The short form of `python -m benchmarks.speed offline_faults`, and kills of a launched job."""

# pyright: standard

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from clue.embed import EmbedConfig, embed, read_embeddings
from tests.conftest import ROOT, TinyRun


@pytest.mark.cluster
def test_what_is_killed_is_absent_or_whole_and_nothing_is_made_twice(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    keys = [f"checkpoint={tiny_run.run}", f"corpus={tiny_run.corpus}", "kills=2"]
    keys += [f"logs={tiny_run.corpus.parent / 'logs'}", f"out={tmp_path / 'faults.json'}"]
    jobs = ["prepare", "prepare on Spark", "embed", "upload"]
    if find_spec("pyspark") is None or shutil.which("java") is None:
        jobs.remove("prepare on Spark")
    keys.append(f"jobs={json.dumps(jobs)}")
    # a process of its own: what it forks must have no thread, and this one may have
    command = [sys.executable, "-m", "benchmarks.speed", "offline_faults", *keys]
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "faults.json").read_text())
    assert [row["case"] for row in report["rows"]] == jobs
    assert len(report["claims"]) == 5 and all(claim["holds"] for claim in report["claims"])


@pytest.mark.cluster
def test_two_processes_that_are_killed_go_on_and_make_nothing_twice(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    out, work = tmp_path / "users", tmp_path / ".users.shards"
    keys = [f"checkpoint={tiny_run.run}", f"corpus={tiny_run.corpus}", f"out={out}"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    launch += ["--config_file", "configs/accelerate/cpu2.yaml", "clue/embed.py", *keys]
    launch += ["shard_users=10"]
    known: dict[str, int] = {}
    kills = 0
    for least in (0, 1, 8):  # finished shards when the kill comes; 0 is while items are encoded
        process = subprocess.Popen(
            launch, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
        )
        begun = work / "items" if least == 0 else work
        files = "*.npy" if least == 0 else "part-*.json"
        while process.poll() is None and len(list(begun.glob(files))) < max(least, 1):
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        now = {f.name: f.stat().st_mtime_ns for f in work.glob("part-*.parquet")}
        assert known.items() <= now.items()
        finished = [f.with_suffix(".parquet").name for f in work.glob("part-*.json")]
        known = {name: now[name] for name in finished}
        with pytest.raises((FileNotFoundError, ValueError)):
            read_embeddings(out)
    assert kills == 3 and len(known) >= 8
    subprocess.run(launch, cwd=ROOT, check=True, capture_output=True, timeout=240)
    made = {f.name: f.stat().st_mtime_ns for f in out.glob("*.parquet")}
    assert known.items() <= made.items() and len(made) == 30 and not work.exists()
    one = tmp_path / "one"
    embed(EmbedConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=one, shard_users=10))
    rows, expected = read_embeddings(out).to_pylist(), read_embeddings(one).to_pylist()
    assert len(rows) == len(expected) > 300
    for row, truth in zip(rows, expected, strict=True):
        assert row["user_id"] == truth["user_id"] and row["service"] == truth["service"]
        assert row["vector"] == pytest.approx(truth["vector"], abs=1e-5)
