"""The container and the manifests below deploy/: linted, and true of the service they start."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from serving.auth import PROBES
from serving.settings import Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
BIN = Path(sys.executable).parent


def manifest(name: str) -> Any:
    return yaml.safe_load((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())


def test_dockerfile_and_yaml_pass_their_linters() -> None:
    commands = [
        [BIN / "hadolint", DEPLOY / "Dockerfile"],
        [BIN / "yamllint", "--strict", "-c", DEPLOY / ".yamllint.yaml", DEPLOY],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_manifests_fit_the_schemas_of_kubernetes() -> None:
    assert len(MANIFESTS) >= 6
    for path in MANIFESTS:
        kubernetes_validate.validate(yaml.safe_load(path.read_text()), "1.33", strict=True)


def test_manifests_are_of_this_service() -> None:
    spec = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    known = {f"CLUE_{name.upper()}" for name in Settings.model_fields} | {"OMP_NUM_THREADS"}
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment.keys() <= known
    milvus = manifest("milvus")
    names = {"name": milvus["metadata"]["name"], "optional": True}
    assert {"configMapRef": names} in container["envFrom"]
    given = {name.removeprefix("CLUE_").lower(): value for name, value in milvus["data"].items()}
    assert Settings(checkpoint=Path("a"), index=Path("b"), **given).vectors == "milvus"
    labels = manifest("milvus-network")["spec"]["podSelector"]
    assert labels == manifest("network")["spec"]["podSelector"]
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    assert {container[probe]["httpGet"]["path"] for probe in probes} == set(PROBES)
    longest = (
        float(environment["CLUE_DRAIN_SECONDS"])
        + Settings.model_fields["request_seconds"].default
        + Settings.model_fields["write_seconds"].default
    )
    assert spec["terminationGracePeriodSeconds"] > longest
    (claim,) = (v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v)
    assert claim["claimName"] == manifest("volume")["metadata"]["name"]
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("service")["spec"]["selector"] == labels
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    user = f"USER {spec['securityContext']['runAsUser']}:"
    assert user in dockerfile and "OMP_NUM_THREADS=1" in dockerfile
