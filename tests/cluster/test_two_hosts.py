"""Training on two hosts is that on one; a host that dies ends the run, which goes on elsewhere."""

# pyright: standard

import json
import shutil
import subprocess
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from clue.config import load, to_yaml
from clue.pretrain import pretrain
from clue.run import checkpoint
from clue.run.pretrain_config import PretrainConfig
from tests.cluster.hosts import PORT, Host, can_make_hosts, two_hosts
from tests.conftest import TinyRun

STEPS = 40
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not can_make_hosts(), reason="needs root and `ip netns`"),
]


@pytest.fixture(scope="module")
def hosts() -> Generator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def config(tiny_run: TinyRun, tmp_path: Path) -> PretrainConfig:
    return load(
        PretrainConfig,
        None,
        [
            *("name=one", f"corpus={tiny_run.corpus}", f"runs={tmp_path}", "trackers=[]"),
            *(
                "batch=32",
                f"steps={STEPS}",
                "validate_every=40",
                "checkpoint_every=2",
                "log_every=1",
            ),
            *("precision=fp32", "model.item.width=16", "model.item.layers=1"),
            *("model.user.width=16", "model.user.layers=1", "model.user.embedding=8"),
            *("optimizer.kind=adamw", "optimizer.lr=2e-3"),
        ],
    )


def start(hosts: tuple[Host, Host], config: PretrainConfig) -> list[subprocess.Popen[bytes]]:
    file = config.runs / f"{config.name}.yaml"
    file.write_text(to_yaml(config))
    machines = [
        *("--config_file", "configs/accelerate/cpu2.yaml", "--num_machines", "2"),
        *("--main_process_ip", hosts[0].name, "--main_process_port", str(PORT)),
        *("--rdzv_backend", "c10d"),
    ]
    return [
        host.start(
            *("-m", "accelerate.commands.launch", *machines, "--machine_rank", str(rank)),
            *("clue/pretrain.py", str(file)),
            said=config.runs / f"{config.name}.{rank}.log",
        )
        for rank, host in enumerate(hosts)
    ]


def wait_for_step_5(config: PretrainConfig, process: subprocess.Popen[bytes]) -> None:
    log, end = config.run / "log.jsonl", time.monotonic() + 240
    while not (log.is_file() and '"step": 5,' in log.read_text()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def losses(config: PretrainConfig) -> dict[int, float]:
    lines = map(json.loads, (config.run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def test_two_hosts_take_the_steps_of_one_and_a_dead_host_ends_the_run_for_a_while(
    hosts: tuple[Host, Host], config: PretrainConfig
) -> None:
    assert pretrain(config)
    straight = losses(config)
    assert len(straight) == STEPS

    two = replace(config, name="two")
    first, second = start(hosts, two)
    wait_for_step_5(two, first)
    assert hosts[1].kill() >= 2  # the launcher and its process
    died = time.monotonic()
    assert first.wait(timeout=60) != 0
    assert time.monotonic() - died < 60
    second.wait()
    said = (two.runs / "two.0.log").read_text()
    assert "Connection closed by peer" in said or "Connection reset by peer" in said, said
    stopped = checkpoint.find_last(two.run)
    assert stopped is not None and 4 <= stopped.step < STEPS

    one = replace(two, runs=two.runs / "elsewhere")
    shutil.copytree(two.run, one.run)
    assert pretrain(one)  # the rest on one host
    for process in start(hosts, two):  # and on two
        assert process.wait(timeout=240) == 0, (two.runs / "two.0.log").read_text()
    for run in (one, two):
        assert losses(run) == pytest.approx(straight, rel=1e-6), run.run


def test_a_host_that_vanishes_ends_the_run_where_the_kernel_is_told_to_give_up(
    hosts: tuple[Host, Host], config: PretrainConfig
) -> None:
    """No connection is closed: what was sent is sent again, by default for a quarter of an hour."""
    for host in hosts:
        host.set("net.ipv4.tcp_retries2", 6)
    run = replace(config, name="vanished")
    first, second = start(hosts, run)
    wait_for_step_5(run, first)
    hosts[1].vanish()
    gone = time.monotonic()
    try:
        assert first.wait(timeout=90) != 0
        assert time.monotonic() - gone < 60
    finally:
        hosts[1].come_back()
        second.wait()
    said = (run.runs / "vanished.0.log").read_text()
    assert "timed out" in said or "unreachable" in said or "No route" in said, said
