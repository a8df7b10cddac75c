# pyright: standard

"""Real launches: a run stopped on N processes goes on on M, and signals reach whom they must."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from clue.config import load, to_yaml
from clue.pretrain import pretrain
from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig
from tests.conftest import ROOT, TinyRun
from tests.processes import spawn

trainer = import_module("clue.pretrain")  # the file: `clue.pretrain` is its function

STEPS = 12
ADAMW = ("optimizer.kind=adamw", "optimizer.lr=2e-3")


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    """Without dropout, whose random numbers depend on the number of processes, and with AdamW.

    Muon orthogonalises in bf16: a gradient that differs in its last bits changes its update by 1 %.
    """
    return load(
        PretrainConfig,
        None,
        [
            *("name=one", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *("batch=32", f"steps={STEPS}", "validate_every=6", "checkpoint_every=2"),
            *("log_every=1", "precision=fp32", "model.item.width=16", "model.item.layers=1"),
            *("model.user.width=16", "model.user.layers=1", "model.user.embedding=8", *ADAMW),
        ],
    )


def launch(config: PretrainConfig) -> subprocess.Popen[str]:
    """Start `config` on two processes with the shipped machine file."""
    file = config.runs / f"{config.name}.yaml"
    file.write_text(to_yaml(config))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", "configs/accelerate/cpu2.yaml", "--main_process_port", "0"),
        *("clue/pretrain.py", str(file)),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def go_on(rank: int, world: int, config: PretrainConfig) -> None:
    assert pretrain(config)


def losses(config: PretrainConfig) -> dict[int, float]:
    lines = map(json.loads, (config.run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def test_a_run_goes_on_with_another_number_of_processes(config: PretrainConfig) -> None:
    # Two processes, until a SIGTERM to the launcher, which passes it on: both end at one step.
    two = replace(config, name="two")
    process, log = launch(two), two.run / "log.jsonl"
    end = time.monotonic() + 240
    while not (log.is_file() and '"step": 3' in log.read_text()):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    stopped = checkpoint.find_last(two.run)
    assert stopped is not None
    assert 3 <= stopped.step < STEPS
    assert max(losses(two)) == stopped.step  # nothing was lost
    assert pretrain(two)  # the rest on one

    assert pretrain(config)
    elsewhere = replace(config, runs=config.runs / "elsewhere")
    shutil.copytree(config.run, elsewhere.run)
    shutil.rmtree(elsewhere.run / "checkpoints" / f"step_{STEPS:08d}")
    spawn(go_on, elsewhere, world=2)  # the last two steps on two

    straight = losses(config)
    assert len(straight) == STEPS
    for run in (two, elsewhere):
        assert losses(run) == pytest.approx(straight, rel=1e-6), run.run
