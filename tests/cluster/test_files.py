"""The files in cluster/ are what Ray, Kubernetes and Slurm read, and name things that are there."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

from proxmo_rllib.cli import train


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def rayjob(repository):
    return next(d for d in documents(repository / "cluster" / "rayjob.yaml") if d["kind"] == "RayJob")


def pod_specs(rayjob: dict) -> list[dict]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_autoscaler_file_is_valid_for_this_ray(repository):
    (config,) = documents(repository / "cluster" / "aws.yaml")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    assert sum(kind.get("max_workers", 0) for kind in config["available_node_types"].values()) <= config["max_workers"]


def test_every_node_of_the_autoscaler_shares_the_token(repository):
    (config,) = documents(repository / "cluster" / "aws.yaml")
    assert any(path.endswith(".ray/auth_token") for path in config["file_mounts"])
    for kind in ("head", "worker"):
        assert any("RAY_AUTH_MODE=token" in command for command in config[f"{kind}_start_ray_commands"])


def test_the_rayjob_has_what_kuberay_requires(rayjob):
    assert rayjob["apiVersion"] == "ray.io/v1"
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == metadata.version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert all(spec["containers"][0]["image"] for spec in pod_specs(rayjob))


def test_every_pod_has_shared_memory_and_the_folder_of_runs(repository, rayjob):
    claims = {
        d["metadata"]["name"]
        for d in documents(repository / "cluster" / "rayjob.yaml")
        if d["kind"] == "PersistentVolumeClaim"
    }
    for spec in pod_specs(rayjob):
        mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert volumes[mounts["/mnt/runs"]]["persistentVolumeClaim"]["claimName"] in claims


def test_the_script_that_the_manifest_trains_is_there(repository, rayjob):
    words = rayjob["spec"]["entrypoint"].split()
    script = next(word for word in words if word.endswith(".py"))
    assert (repository / script.removeprefix("/home/ray/proxmo_rllib/")).is_file()


@pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")
def test_the_slurm_script_parses_and_refuses_to_start_without_slurm(repository):
    script = repository / "cluster" / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run(
        ["bash", str(script), "x.py"], capture_output=True, text=True, check=False, env={"PATH": "/bin:/usr/bin"}
    )
    assert done.returncode
    assert "sbatch" in done.stderr


def test_a_rayjob_that_is_tried_again_goes_on_with_its_run(rayjob):
    words = rayjob["spec"]["entrypoint"].split()
    assert words[:2] == ["proxmo", "train"]
    arguments = train.parse(words[2:])
    assert arguments.auto_resume
    assert str(arguments.run_dir).startswith("/mnt/runs/")
    assert rayjob["spec"]["backoffLimit"] > 0


def test_the_image_installs_what_the_set_up_installs(repository):
    text = (repository / "cluster" / "Dockerfile").read_text()
    assert "requirements/install.py" in text
    ignored = (repository / ".dockerignore").read_text().split()
    assert {".git", ".venv*", "runs"} <= set(ignored)


def strict(schema: object) -> object:
    """A CRD's schema with a field that it does not name refused, which Kubernetes drops with a warning."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(entry) for key, entry in schema.items()}
    if found.get("x-kubernetes-int-or-string"):
        found.pop("pattern", None)  # which is for the text alone
    if found.get("type") == "object" and "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.skipif("PROXMO_KUBERAY_CRD" not in os.environ, reason="PROXMO_KUBERAY_CRD names no ray.io_rayjobs.yaml")
def test_the_rayjob_keeps_to_the_schema_of_kuberays_operator(rayjob):
    """The file is in kuberay's repository, helm-chart/kuberay-operator/crds; no package that we know of ships it."""
    (crd,) = documents(Path(os.environ["PROXMO_KUBERAY_CRD"]))
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == "v1"]
    schema["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
    jsonschema.validate(rayjob, strict(schema))
    broken = copy.deepcopy(rayjob)
    broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["numReplicas"] = 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, strict(schema))
