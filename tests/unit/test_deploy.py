"""The manifest for Kubernetes: its pods against the published schema, and what Ray needs of its two kinds of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFEST = Path(__file__).resolve().parents[2] / "deploy" / "raycluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayCluster")
    return found


def test_pods_are_those_of_the_schema(cluster: dict[str, Any]) -> None:
    """Strictly: a field that Kubernetes does not know is refused, not left out."""
    validate = pytest.importorskip("kubernetes_validate").validate
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, **group["template"]}, "1.31", strict=True
        )


def test_cells_go_to_workers_that_share_the_home_of_the_head(cluster: dict[str, Any]) -> None:
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    places = set()
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
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
        for group in spec["workerGroupSpecs"]
    )
