"""Manifests: valid against the schemas of Kubernetes, hardened, in agreement with each other and with the program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import sqlalchemy as sa
import yaml

from app.jobs.records import State
from app.jobs.tables import jobs
from app.settings import Settings
from tests.deploy.manifests import DEPLOY, documents, environments, pods
from tests.jobs.conftest import database_url, postgres_url  # noqa: F401 - fixtures
from tests.jobs.installations import world

SCHEMAS = "1.31"
BASE = {f"{doc['kind']} {doc['metadata']['name']}": doc for doc in documents("base")}
PODS = pods()


@pytest.mark.parametrize("name", BASE)
def test_it_is_what_kubernetes_takes(name: str) -> None:
    kubernetes_validate.validate(BASE[name], SCHEMAS, strict=True)


def test_a_field_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**BASE["ServiceAccount lungnodule"], "rights": "all"}, SCHEMAS, strict=True)


@pytest.mark.parametrize("folder", ["base", "gpu", "keda"])
def test_kustomize_puts_it_together(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    done = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes" / folder], capture_output=True, text=True, check=True
    )
    made = list(yaml.safe_load_all(done.stdout))
    assert {doc["metadata"].get("namespace", "lungnodule") for doc in made} == {"lungnodule"}
    for doc in made:
        if not doc["apiVersion"].startswith("keda.sh"):
            kubernetes_validate.validate(doc, SCHEMAS, strict=True)
    if folder == "gpu":
        (worker,) = [doc for doc in made if doc["kind"] == "StatefulSet"]
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "lungnodule:cuda"
        assert container["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "8Gi", "ephemeral-storage": "10Gi"}
        assert "LUNGNODULE_WORKER_PORT" in [entry["name"] for entry in container["env"]]


def test_every_file_is_in_its_kustomization() -> None:
    for folder in ("base", "gpu", "keda"):
        path = DEPLOY / "kubernetes" / folder
        said = yaml.safe_load((path / "kustomization.yaml").read_text())
        named = {*said["resources"], *(patch["path"] for patch in said.get("patches", []))} - {"../base"}
        assert named == {file.name for file in path.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_the_least_rights(name: str) -> None:
    spec = PODS[name]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001  # as in the Dockerfile
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"memory", "ephemeral-storage"} <= set(container["resources"]["limits"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert "emptyDir" in volumes[mounts["/tmp"]]
    assert "persistentVolumeClaim" in volumes[mounts["/var/lib/lungnodule"]]


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_own_variables_do_not_stop_the_start(name: str) -> None:
    """Service links would be LUNGNODULE_API_PORT and more: unknown settings, which are refused."""
    assert PODS[name]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", PODS)
def test_probes_ask_what_they_are_for(name: str) -> None:
    (container,) = PODS[name]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probed = ports[container["livenessProbe"]["httpGet"]["port"]]
    settings = settings_of(f"kubernetes {name}")
    assert probed == (settings.worker_port if container["args"] == ["worker"] else settings.port)
    assert PODS[name]["metadata"]["annotations"]["prometheus.io/port"] == str(probed)
    assert settings.host == "0.0.0.0"


def test_there_is_time_to_stop_in_order() -> None:
    api, worker = settings_of("kubernetes lungnodule-api"), settings_of("kubernetes lungnodule-worker")
    grace = {name: pod["spec"]["terminationGracePeriodSeconds"] for name, pod in PODS.items()}
    needed = api.drain_notice_s + api.upload_timeout_s + api.analysis_timeout_s + 10
    assert grace["lungnodule-api"] >= needed
    assert grace["lungnodule-worker"] >= worker.drain_timeout_s + 10


def test_the_service_takes_in_and_the_workers_work() -> None:
    assert settings_of("kubernetes lungnodule-api").worker_concurrency == 0
    assert settings_of("kubernetes lungnodule-worker").worker_concurrency >= 1
    assert settings_of("kubernetes gpu").require_gpu is True


def test_selectors_find_the_pods() -> None:
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    for name, doc in BASE.items():
        spec = doc.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector"))
        if selector and doc["kind"] != "PersistentVolumeClaim":
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= have.items() for have in labels), name


def test_the_network_lets_in_what_is_served() -> None:
    served = {port["containerPort"] for pod in PODS.values() for port in pod["spec"]["containers"][0]["ports"]}
    policies = [doc["spec"] for doc in BASE.values() if doc["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    let_in = {port["port"] for spec in policies for rule in spec.get("ingress", []) for port in rule["ports"]}
    assert let_in == served


def test_keda_counts_waiting_and_running_jobs(tmp_path: Path, postgres_url: str) -> None:  # noqa: F811 - a fixture
    scaled, authentication = documents("keda")
    (trigger,) = scaled["spec"]["triggers"]
    assert scaled["spec"]["scaleTargetRef"]["name"] in PODS
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    with world(tmp_path, postgres_url) as made:
        for content in (b"1", b"2", b"3"):
            made.submit(content)
        made.runner(made.queue.tickets.pop(0))
        with made.jobs.database.transaction() as connection:
            running = sa.select(jobs.c.id).where(jobs.c.state == State.QUEUED).limit(1).scalar_subquery()
            connection.execute(sa.update(jobs).where(jobs.c.id == running).values(state=State.RUNNING))
            counted = connection.execute(sa.text(trigger["metadata"]["query"])).scalar_one()
        assert counted == 2


def settings_of(process: str) -> Settings:
    env = environments()[process]
    names = {name.removeprefix("LUNGNODULE_").lower(): value for name, value in env.items()}
    values: dict[str, Any] = dict(names)
    return Settings(**values)
