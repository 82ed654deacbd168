"""What clusters are given: manifests, images and services that fit their schemas, and this project.

Beyond the schemas it is held that every name which one part uses is one that another has.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import pipelines.cli.together as together

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SCHEMAS = Path(__file__).parent
KUBERNETES = json.loads((SCHEMAS / "kubernetes.json").read_text())
COMPOSE = json.loads((SCHEMAS / "compose.json").read_text())
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
IMAGES = sorted(DOCKER.glob("*.Dockerfile"))

Tree = dict[str, Any]


def resources(path: Path) -> list[Tree]:
    return list(yaml.safe_load_all(path.read_text()))


def check(resource: Tree) -> None:
    """Raises ValidationError for what is not of its kind."""
    schema = {**KUBERNETES, "$ref": f"#/$defs/{resource['kind']}"}
    jsonschema.Draft202012Validator(schema).validate(resource)


def of_kind(kind: str) -> Tree:
    every = [resource for path in MANIFESTS for resource in resources(path)]
    return next(resource for resource in every if resource["kind"] == kind)


def pods(tree: Any) -> list[Tree]:
    """The specs of pods anywhere in a manifest."""
    if isinstance(tree, list):
        return [pod for part in tree for pod in pods(part)]
    if not isinstance(tree, dict):
        return []
    own = [tree] if "containers" in tree else []
    return own + [pod for part in tree.values() for pod in pods(part)]


def test_the_schemas_are_schemas() -> None:
    for schema in (KUBERNETES, COMPOSE):
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schemas_of_their_kinds(path: Path) -> None:
    for resource in resources(path):
        check(resource)
        for pod in pods(resource):
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            mounts = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", [])}
            assert mounts == volumes


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("JobSet", "spec.replicatedJobs.0.template.spec.completionmode", "Indexed"),
        ("JobSet", "spec.replicatedJobs.0.template.spec.template.spec.restartPolicy", "Always"),
        ("JobSet", "spec.failurePolicy.maxRestarts", "3"),
        ("PyTorchJob", "spec.nprocPerNode", 8),
        ("PyTorchJob", "spec.pytorchReplicaSpecs.Worker.template.spec.containers.0.name", "main"),
        ("PyTorchJob", "spec.pytorchReplicaSpecs.Workers", {}),
        ("Deployment", "spec.template.spec.containers.0.readinessProbe.httpget", {}),
        ("Service", "spec.ports.0.port", 80000),
        ("PersistentVolumeClaim", "spec.accessModes.0", "ReadWriteAll"),
    ],
)
def test_a_slip_is_seen(kind: str, place: str, value: Any) -> None:
    resource = copy.deepcopy(of_kind(kind))
    *above, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    at: Any = resource
    for part in above:
        at = at[part]
    at[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check(resource)


@pytest.mark.parametrize("kind", ["JobSet", "PyTorchJob"])
def test_every_host_joins_the_same_group(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun makes of the arguments, and of the variables that the operator sets."""
    job = of_kind(kind)
    (pod,) = pods(job)
    (container,) = pod["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    if kind == "PyTorchJob":
        elastic = job["spec"]["elasticPolicy"]
        hosts = job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]
        variables = {
            "PET_NNODES": f"{elastic['minReplicas']}:{elastic['maxReplicas']}",
            "PET_NPROC_PER_NODE": job["spec"]["nprocPerNode"],
            "PET_RDZV_BACKEND": elastic["rdzvBackend"],
            "PET_RDZV_ENDPOINT": "quickstart-worker-0:23456",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    else:
        (replicated,) = job["spec"]["replicatedJobs"]
        hosts = replicated["template"]["spec"]["completions"]
        assert replicated["template"]["spec"]["parallelism"] == hosts
    verb, *words = container["args"]
    assert verb == "together"
    asked = together.asked_of(words)
    assert (asked.nnodes, str(asked.nproc_per_node)) in (
        *((str(hosts), str(gpus)), (f"{hosts}:{hosts}", str(gpus))),
    )
    assert asked.rdzv_backend == "c10d" and not together.on_this_host(asked)
    host = f"{job['metadata']['name']}-"
    assert asked.rdzv_endpoint.startswith(host)
    assert asked.training_script_args == ["run", "/config/run.toml", "--resume"]


def test_the_first_host_is_called_as_jobset_calls_it() -> None:
    job = of_kind("JobSet")
    name, replicated = job["metadata"]["name"], job["spec"]["replicatedJobs"][0]["name"]
    subdomain = job["spec"]["network"].get("subdomain", name)  # by default the set's own name
    (pod,) = pods(job)
    (container,) = pod["containers"]
    port = container["ports"][0]["containerPort"]
    endpoint = f"--rdzv-endpoint={name}-{replicated}-0-0.{subdomain}:{port}"
    assert endpoint in container["args"]


def test_the_address_leads_to_the_servers() -> None:
    deployment, service = of_kind("Deployment"), of_kind("Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (pod,) = pods(deployment)
    ports = {port["name"] for port in pod["containers"][0]["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    assert claims == {of_kind("PersistentVolumeClaim")["metadata"]["name"]}


def test_services_fit_the_schema_and_know_each_other() -> None:
    tree = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    jsonschema.Draft202012Validator(COMPOSE).validate(tree)
    services = tree["services"]
    assert {"postgres", "mlflow", "redis", "trainer", "server"} <= set(services)
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services and other != name
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in tree["volumes"] or (DOCKER / source).exists()
        dockerfile = service.get("build", {}).get("dockerfile")
        assert dockerfile is None or (ROOT / dockerfile).is_file()
        text = json.dumps(service)
        for host in re.findall(
            r"(?:http|redis|postgresql\+psycopg)://(?:[^@/\s]+@)?([a-z]+)[:/]", text
        ):
            assert host in {*services, "localhost"}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_images_are_made_of_what_is_there(path: Path) -> None:
    known = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER"}
    known |= {"ENTRYPOINT", "CMD", "EXPOSE", "HEALTHCHECK"}
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    assert {line[0] for line in lines} <= known and lines[0][0] == "FROM"
    for instruction, rest in lines:
        if instruction == "COPY":
            *sources, _ = rest.split()
            for source in sources:
                assert source.startswith("${") or (ROOT / source).exists(), source
        if instruction in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list)
    last_user = [rest for instruction, rest in lines if instruction == "USER"]
    assert last_user == ["recsys"] * len(last_user) and last_user, "none runs as root"


def test_the_script_for_hosts_of_ones_own_is_a_script_and_asks_for_its_words() -> None:
    script = DOCKER / "torchrun.sh"
    subprocess.run(["sh", "-n", script], check=True)
    refused = subprocess.run(["sh", script, "host"], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.startswith("usage:")
    asked = together.asked_of(
        [
            "--nnodes",
            "4",
            "--nproc-per-node",
            "8",
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            "first:29500",
            "--rdzv-id",
            "recsys-4-8",
            "run",
            "x.toml",
            "--resume",
        ]
    )
    assert asked.nnodes == "4" and not together.on_this_host(asked)


@pytest.mark.parametrize(
    ("words", "alone"),
    [
        ("--nproc-per-node 2 run x", True),
        ("--nnodes 2 --node-rank 1 --master-addr first run x", False),
        ("--nnodes 2 --rdzv-endpoint first:1 run x", False),
    ],
)
def test_processes_are_on_this_host_unless_others_are_named(words: str, alone: bool) -> None:
    assert together.on_this_host(together.asked_of(words.split())) is alone
