"""Alerts and dashboard: their rules do what they say, and what they name is what a running service exposes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.imaging.acceptance import Notice
from app.inference.gpu_memory import GpuMemory
from app.main import create_app
from app.metrics import Metrics
from app.settings import Settings
from tests.api.standins import Recorder, make_model, shelved
from tests.deploy.manifests import ALERTS, DEPLOY, Named, alerts, dashboard, named_metrics

OF_PROMETHEUS = {"up"}
DOCUMENT = DEPLOY.parent / "docs/observability.md"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        reason = "promtool is not here: apt-get install prometheus"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return str(found)


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of all samples that a service exposes, with their labels, after an answer, its shadow and a refusal."""
    folder = tmp_path_factory.mktemp("uploads")
    settings = Settings(temp_dir=folder, data_dir=folder / "data", min_free_disk_bytes=0, shadow_model="standin")
    app = create_app(settings, load=lambda _: shelved(make_model()), run=Recorder())
    with TestClient(app) as client:
        client.post("/v1/predict", files={"files": ("a.dcm", b"scan")})
        client.post("/v1/predict", files={"files": ("a.dcm", b"")})
        app.state.service.shadow.settle()
        text = client.get("/metrics").text
    with_gpu = Metrics(gpus=lambda: (GpuMemory(0, 2, 1),))
    model = make_model(notices=(Notice("device_fallback", "On the CPU."),))
    with_gpu.show_models(model.identity, [model])
    return {name: labels for part in (text, with_gpu.exposition().decode()) for name, labels in _samples(part)}


def _samples(text: str) -> Iterator[tuple[str, set[str]]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, set(sample.labels)


@pytest.mark.parametrize("named", named_metrics(), ids=lambda named: f"{named.where}: {named.metric}")
def test_what_is_named_is_exposed(named: Named, exposed: dict[str, set[str]]) -> None:
    if named.metric not in OF_PROMETHEUS:
        assert named.metric in exposed
        assert named.labels - {"job", "instance"} <= exposed[named.metric]


def test_rules_fire_when_they_should_and_only_then(promtool: str) -> None:
    tests = ALERTS.with_name("alerts_test.yml")
    done = subprocess.run(
        [promtool, "test", "rules", tests.name], cwd=tests.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_both_ways() -> None:
    silent, firing = yaml.safe_load(ALERTS.with_name("alerts_test.yml").read_text())["tests"]
    names = [rule["alert"] for rule in alerts()]
    assert [case["alertname"] for case in silent["alert_rule_test"]] == names
    assert [case["alertname"] for case in firing["alert_rule_test"]] == names
    assert not any("exp_alerts" in case for case in silent["alert_rule_test"])
    assert all(case["exp_alerts"] for case in firing["alert_rule_test"])


def test_prometheus_takes_its_configuration(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text())
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/", f"{tmp_path}/"))
    done = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in alerts()])
def test_every_alert_has_its_line_in_the_runbook(alert: str) -> None:
    (row,) = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{alert}` |")]
    assert len(row.split("|")[3].strip()) > 20


def test_the_dashboard_asks_the_provisioned_source() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    panels = dashboard()["panels"]
    asked = {target["datasource"]["uid"] for panel in panels for target in panel["targets"]}
    assert asked == {source["uid"] for source in sources}
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert "Not for diagnosis" in dashboard()["description"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) == 23
