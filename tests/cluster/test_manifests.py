"""The manifests for clusters are what their tools read, and their commands what accelerate does."""

# pyright: standard

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from tests.conftest import ROOT

TRAIN = ROOT / "deploy/train"


def launched(command: str) -> Any:
    """Return what accelerate makes of the arguments behind `accelerate launch`."""
    words = shlex.split(command.replace("\\\n", " "))
    return launch_command_parser().parse_args(words[words.index("launch") + 1 :])


def test_the_slurm_script_is_one_and_starts_a_task_on_each_node() -> None:
    script = TRAIN / "slurm.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    command = text[text.index("exec ") : text.index('"$@"\'')]
    command = command.replace('"$((8 * SLURM_NNODES))"', "16").replace('"$SLURM_NNODES"', "2")
    found = launched(command.replace('"$SLURM_NODEID"', "1"))
    assert (found.num_machines, found.num_processes, found.machine_rank) == (2, 16, 1)
    assert found.rdzv_backend == "c10d" and (ROOT / found.config_file).is_file()
    assert "--ntasks-per-node=1" in text and "--signal=TERM@120" in text


@pytest.mark.parametrize("file", [TRAIN / "jobset.yaml"])
def test_the_jobset_starts_as_many_pods_as_it_says_machines(file: Path) -> None:
    (job,) = yaml.safe_load_all(file.read_text())
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (group,) = job["spec"]["replicatedJobs"]
    spec = group["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    found = launched(container["args"][0].replace('"$JOB_COMPLETION_INDEX"', "1"))
    assert found.num_machines == spec["parallelism"] == spec["completions"] == 2
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert found.num_processes == found.num_machines * gpus
    name, group_name = job["metadata"]["name"], group["name"]
    # JobSet's name of the first pod in its headless service: SET-JOB-0-0.SET
    assert found.main_process_ip == f"{name}-{group_name}-0-0.{name}"
    assert (ROOT / found.config_file).is_file() and (ROOT / found.training_script).is_file()
    config = next(word for word in found.training_script_args if word.endswith(".yaml"))
    assert (ROOT / config).is_file()
    assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
