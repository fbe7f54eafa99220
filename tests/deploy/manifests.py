"""What lies in deploy/, read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = DEPLOY / "compose/docker-compose.yml"
ALERTS = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/lungnodule.json"
POD_KINDS = ("Deployment", "StatefulSet")
SECRETS = {"LUNGNODULE_DATABASE_URL": "postgresql://somebody@somewhere/jobs"}
"""Stands for what a secret or a password would fill in."""


def documents(folder: str) -> list[dict[str, Any]]:
    """Every Kubernetes object of a folder; what only kustomize reads is none."""
    found = [doc for path in sorted((DEPLOY / "kubernetes" / folder).glob("*.yaml")) for doc in _load_all(path)]
    return [doc for doc in found if doc["kind"] != "Kustomization"]


def _load_all(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def compose_services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def pods() -> dict[str, dict[str, Any]]:
    """The pod templates of the base, by the name of what makes them."""
    return {doc["metadata"]["name"]: doc["spec"]["template"] for doc in documents("base") if doc["kind"] in POD_KINDS}


def environments() -> dict[str, dict[str, str]]:
    """The LUNGNODULE_* variables of every process that deploy/ starts."""
    found = {}
    for name, service in compose_services().items():
        found[f"compose {name}"] = {key: str(value) for key, value in service.get("environment", {}).items()}
    settings = next(doc["data"] for doc in documents("base") if doc["kind"] == "ConfigMap")
    for name, pod in pods().items():
        found[f"kubernetes {name}"] = settings | _env(pod["spec"]["containers"][0])
    (patch,) = documents("gpu")
    worker = patch["spec"]["template"]["spec"]["containers"][0]
    found["kubernetes gpu"] = found["kubernetes lungnodule-worker"] | _env(worker)
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        lines = [*(DEPLOY / "systemd/lungnodule.env").read_text().splitlines(), *unit.read_text().splitlines()]
        pairs = [line.removeprefix("#").removeprefix("Environment=") for line in lines]
        matches = [re.fullmatch(r"(LUNGNODULE_\w+)=(\S+)", pair) for pair in pairs]
        found[f"systemd {unit.name}"] = {match[1]: match[2].replace("%i", "9100") for match in matches if match}
    return {name: {k: v for k, v in env.items() if k.startswith("LUNGNODULE_")} for name, env in found.items()}


def _env(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", SECRETS.get(entry["name"], "")) for entry in container["env"]}


@dataclass(frozen=True)
class Named:
    """A metric that an alert or a panel names, with the labels that it is narrowed by."""

    where: str
    metric: str
    labels: frozenset[str]


def named_metrics() -> list[Named]:
    expressions = {f"alert {rule['alert']}": [rule["expr"]] for rule in alerts()}
    for panel in dashboard()["panels"]:
        expressions[f"panel {panel['title']}"] = [target["expr"] for target in panel["targets"]]
    return [
        Named(where, match[1], frozenset(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match[2] or "")))
        for where, texts in expressions.items()
        for text in texts
        for match in re.finditer(r"\b((?:lungnodule|process)_\w+|up)\b(?:\{([^}]*)\})?", text)
    ]
