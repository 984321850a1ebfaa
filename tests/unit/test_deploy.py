"""What lies in deploy/: manifests against the operator's fields and the published schema of pods, what the image is made from."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.plan.request import parse

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

# Fields of ray.io/v1 as KubeRay 1.5 has them; an operator prunes others without a word. `template` is a pod's.
CLUSTER = (
    "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec headServiceAnnotations "
    "managedBy rayVersion suspend upgradeStrategy workerGroupSpecs"
).split()
HEAD = "enableIngress headService labels rayStartParams resources serviceType template".split()
WORKERS = (
    "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams replicas resources scaleStrategy "
    "suspend template"
).split()
JOB = (
    "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus entrypointNumGpus "
    "entrypointResources jobId managedBy metadata rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes submissionMode "
    "submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished"
).split()


def manifest(name: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", kind)
    assert found.keys() == {"apiVersion", "kind", "metadata", "spec"}
    spec: dict[str, Any] = found["spec"]
    return spec


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return manifest("raycluster.yaml", "RayCluster")


def test_the_fields_are_the_operator_s(cluster: dict[str, Any]) -> None:
    assert cluster.keys() <= set(CLUSTER) and cluster["headGroupSpec"].keys() <= set(HEAD)
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() <= set(WORKERS)
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_runs_a_command_of_bench_on_the_same_cluster(cluster: dict[str, Any]) -> None:
    job = manifest("rayjob.yaml", "RayJob")
    assert job.keys() <= set(JOB) and job["rayClusterSpec"] == cluster
    command, run, *words = shlex.split(job["entrypoint"])
    assert (command, run) == ("bench", "run") and not re.search(r"[][*?'\"$]", job["entrypoint"]), "two shells read it"
    asked = parse(words)
    assert asked.seeds == [0, 1, 2] and asked.address == "auto" and asked.mlflow == "off"
    assert job["shutdownAfterJobFinishes"] and job["ttlSecondsAfterFinished"] > 0


def test_pods_are_those_of_the_schema(cluster: dict[str, Any]) -> None:
    """Strictly: a field that Kubernetes does not know is refused, not left out."""
    validate = pytest.importorskip("kubernetes_validate").validate
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, **group["template"]}, "1.31", strict=True
        )


def test_cells_go_to_workers_that_share_the_home_of_the_head(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    places = set()
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes text alone"
        (container,) = group["template"]["spec"]["containers"]
        (home,) = (one["value"] for one in container["env"] if one["name"] == "BENCH_HOME")
        (mount,) = container["volumeMounts"]
        (volume,) = group["template"]["spec"]["volumes"]
        assert mount["name"] == volume["name"] and home.startswith(mount["mountPath"] + "/")
        places.add((home, volume["persistentVolumeClaim"]["claimName"]))
    assert len(places) == 1
    assert all(
        group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        for group in cluster["workerGroupSpecs"]
    )


def test_the_image_has_all_that_the_wheel_is_built_from() -> None:
    """What Docker would leave out of its context is named there, and torch is the one that bench asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "pyproject.toml", "LICENSE"}
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert needed == {line[1:] for line in lines if line.startswith("!")}
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (script,) = re.findall(r"python -c '(.*)'\)", image)
    script = script.replace("/src/pyproject.toml", str(ROOT / "pyproject.toml"))
    torch = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert torch in project["project"]["dependencies"] and torch.startswith("torch>")
