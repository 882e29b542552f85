"""The manifests: complete, hardened, and in agreement with one another, the image and the broker."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import (
    DEPLOY,
    K8S,
    NATS,
    declare_variables,
    documents,
    login_of,
    variables_of,
    worker_variables,
)

MANIFESTS = sorted(path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = [*sorted(K8S.rglob("kustomization.yaml")), NATS / "kustomization.yaml"]
API_VERSIONS = {
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "Namespace": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "ScaledObject": "keda.sh/v1alpha1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "StatefulSet": "apps/v1",
}
OBJECTS = {
    (document["kind"], document["metadata"]["name"]): document
    for path in MANIFESTS
    for document in documents(path)
}
PODS = {
    name: document["spec"]["template"]
    for (kind, name), document in OBJECTS.items()
    if kind in {"Deployment", "StatefulSet", "Job"}
}


def container(name: str) -> dict[str, Any]:
    [only] = PODS[name]["spec"]["containers"]
    return only


def literals(name: str) -> dict[str, str]:
    """Of a ConfigMap that the base generates."""
    [base] = documents(K8S / "base/kustomization.yaml")
    [found] = [each for each in base["configMapGenerator"] if each["name"] == name]
    return dict(literal.split("=", 1) for literal in found["literals"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(K8S)))
def test_objects_are_of_a_known_kind_and_version(path: Path):
    for document in documents(path):
        assert document["apiVersion"] == API_VERSIONS[document["kind"]]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])


def test_every_manifest_is_in_a_kustomization_and_what_they_name_exists():
    named: set[Path] = set()
    for path in KUSTOMIZATIONS:
        [kustomization] = documents(path)
        for entry in (*kustomization.get("resources", ()), *kustomization.get("components", ())):
            target = (path.parent / entry).resolve()
            assert target.is_file() or (target / "kustomization.yaml").is_file(), f"{path}: {entry}"
            named.add(target)
        for generator in kustomization.get("configMapGenerator", ()):
            assert all((path.parent / file).is_file() for file in generator.get("files", ()))
    assert set(MANIFESTS) <= named


@pytest.mark.parametrize("name", sorted(PODS))
def test_pods_can_do_no_more_than_they_must(name: str):
    spec, own = PODS[name]["spec"], container(name)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert own["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in own["resources"]["limits"]
    mounted = {mount["name"] for mount in own.get("volumeMounts", ())}
    claimed = OBJECTS.get(("StatefulSet", name), {"spec": {}})["spec"].get("volumeClaimTemplates", ())
    offered = [*spec.get("volumes", ()), *(claim["metadata"] for claim in claimed)]
    assert mounted == {volume["name"] for volume in offered}


def test_the_image_runs_as_the_user_of_the_image():
    user = re.findall(r"^USER (\d+):(\d+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for name in ("atto-worker", "atto-declare"):
        context = PODS[name]["spec"]["securityContext"]
        assert [(str(context["runAsUser"]), str(context["runAsGroup"]))] == user


def test_selectors_select_their_own_pods():
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    for (kind, name), document in OBJECTS.items():
        selector = document["spec"].get("selector") if "spec" in document else None
        if kind == "NetworkPolicy":
            selector = document["spec"]["podSelector"]
        if selector:
            assert selector.get("matchLabels", selector) in labels, f"{kind} {name} selects nothing"


@pytest.mark.parametrize("name", ["atto-worker", "nats"])
def test_probes_ask_a_port_that_is_there(name: str):
    own = container(name)
    ports = {port["name"] for port in own["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert own[probe]["httpGet"]["port"] in ports


def test_a_worker_is_probed_where_it_answers():
    own = container("atto-worker")
    paths = {probe: own[probe]["httpGet"]["path"] for probe in own if probe.endswith("Probe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    text = (DEPLOY / "Dockerfile").read_text()
    [port] = re.findall(r"ATTO_HEALTH_PORT=(\d+)", text)
    assert own["ports"] == [{"name": "health", "containerPort": int(port)}]


def test_a_worker_is_given_more_time_to_stop_than_its_turns():
    grace = float(literals("atto-worker")["ATTO_GRACE"])
    assert PODS["atto-worker"]["spec"]["terminationGracePeriodSeconds"] >= grace + 10


def test_a_rollout_and_a_drained_node_cost_one_worker_at_a_time():
    strategy = OBJECTS["Deployment", "atto-worker"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    for name in ("atto-worker", "nats"):
        assert OBJECTS["PodDisruptionBudget", name]["spec"]["maxUnavailable"] == 1


def test_variables_are_those_that_somebody_reads():
    own = {variable["name"] for variable in container("atto-worker")["env"]}
    assert own | literals("atto-worker").keys() | literals("atto-broker").keys() <= worker_variables()
    assert literals("atto-worker")["ATTO_INBOX_PREFIX"] == login_of("atto-worker")
    given = {variable["name"]: variable.get("value") for variable in container("atto-declare")["env"]}
    assert given.keys() <= declare_variables()
    assert given["ATTO_INBOX_PREFIX"] == login_of("atto-admin")
    assert given["ATTO_REPLICAS"] == str(OBJECTS["StatefulSet", "nats"]["spec"]["replicas"])


def test_nodes_are_given_what_their_configuration_asks_for_and_know_all_nodes():
    variables = {variable["name"]: variable.get("value") for variable in container("nats")["env"]}
    assert variables_of((NATS / "cluster.conf").read_text()) == {*variables, "HOSTNAME"}
    assert [*variables].index("NATS_ROUTE_PASSWORD") < [*variables].index("NATS_ROUTES"), (
        "used before it is set"
    )
    count = OBJECTS["StatefulSet", "nats"]["spec"]["replicas"]
    routes = [f"nats://route:$(NATS_ROUTE_PASSWORD)@nats-{node}.nats-headless:6222" for node in range(count)]
    assert yaml.safe_load(variables["NATS_ROUTES"] or "") == routes


def test_no_secret_is_in_a_manifest():
    assert not [name for kind, name in OBJECTS if kind == "Secret"]
    for name in PODS:
        for variable in container(name).get("env", ()):
            if "PASSWORD" in variable["name"]:
                assert "secretKeyRef" in variable["valueFrom"]


def test_scaling_counts_the_work_queue_and_stays_below_the_partitions():
    spec = OBJECTS["ScaledObject", "atto-worker"]["spec"]
    assert spec["scaleTargetRef"]["name"] == "atto-worker"
    assert 2 <= spec["minReplicaCount"] < spec["maxReplicaCount"] <= 64
    [trigger] = spec["triggers"]
    assert trigger["type"] == "metrics-api"
    assert '#(name=="atto-TURNS").state.messages' in trigger["metadata"]["valueLocation"]


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which renders kustomizations, is not here"
)
def test_the_example_renders():
    done = subprocess.run(
        ["kubectl", "kustomize", K8S / "overlays/example"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rendered = [document for document in yaml.safe_load_all(done.stdout) if document]
    kinds = {(document["kind"], document["metadata"]["name"]) for document in rendered}
    assert set(OBJECTS) <= kinds
    [worker] = [document for document in rendered if document["kind"] == "Deployment"]
    assert "replicas" not in worker["spec"], "KEDA's"
    generated = {name for kind, name in kinds if kind == "ConfigMap"}
    [own] = worker["spec"]["template"]["spec"]["containers"]
    assert {source["configMapRef"]["name"] for source in own["envFrom"]} <= generated
