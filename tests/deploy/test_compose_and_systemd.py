"""Compose file and units: what they set is a setting, what they mount exists, what they start may do little."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import CLIENT_VARIABLES, Settings, refuse_unknown_settings, setting_names
from tests.deploy.manifests import COMPOSE, DEPLOY, compose_services, environments

ENVIRONMENTS = environments()
SERVICES = compose_services()


@pytest.mark.parametrize("process", ENVIRONMENTS)
def test_every_variable_is_a_setting_with_a_value_that_fits(process: str) -> None:
    env = {name: re.sub(r"\$\{[^}]*\}", "x", value) for name, value in ENVIRONMENTS[process].items()}
    refuse_unknown_settings(env)
    values: dict[str, Any] = {name.removeprefix("LUNGNODULE_").lower(): value for name, value in env.items()}
    Settings(**values)


def test_no_other_file_names_an_unknown_setting() -> None:
    known = {*setting_names(), *CLIENT_VARIABLES, "LUNGNODULE_API_PORT"}
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    named = {name for path in files for name in re.findall(r"\bLUNGNODULE_[A-Z0-9_]+\b", path.read_text())}
    assert named <= known
    assert len(named) > 8


@pytest.mark.parametrize("process", ["compose api", "kubernetes lungnodule-api"])
def test_who_calls_a_deployed_service_needs_a_key_and_probes_do_not(process: str) -> None:
    env = {name: re.sub(r"\$\{[^}]*\}", "x", value) for name, value in ENVIRONMENTS[process].items()}
    values: dict[str, Any] = {name.removeprefix("LUNGNODULE_").lower(): value for name, value in env.items()}
    values["database_url"] = "postgresql://x"
    settings = Settings(**values)
    assert settings.access_required
    assert settings.open_metrics, "Prometheus scrapes it without a key"
    assert "keys create" in COMPOSE.read_text() + (DEPLOY / "kubernetes/README.md").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


def test_what_is_mounted_exists() -> None:
    named = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in named or (COMPOSE.parent / source).exists(), source


def test_two_workers_beside_a_service_that_takes_in() -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert SERVICES["api"]["environment"]["LUNGNODULE_WORKER_CONCURRENCY"] == "0"
    assert SERVICES["worker"]["environment"]["LUNGNODULE_WORKER_PORT"] in SERVICES["worker"]["healthcheck"]["test"][-1]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    found = {tuple(config["dns_sd_configs"][0]["names"]): config["dns_sd_configs"][0]["port"] for config in scraped}
    assert found == {("api",): 8000, ("worker",): 9100}


def test_compose_takes_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode:
        pytest.skip("docker's plugin compose is not here; Debian has none")
    done = subprocess.run(
        [docker, "compose", "-f", COMPOSE, "config", "--quiet"], capture_output=True, text=True, check=False,
        env=os.environ | {"POSTGRES_PASSWORD": "x", "GRAFANA_PASSWORD": "x"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    # Installed neither here nor in CI; the rest is as it is.
    text = unit.read_text().replace("/opt/lungnodule/bin/lungnodule", shutil.which("true") or "/bin/true")
    copy = tmp_path / unit.name.replace("@", "@9100")
    copy.write_text(re.sub(r"^EnvironmentFile=.*\n", "", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_systemd_waits_for_an_orderly_end(unit: Path) -> None:
    given = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)[0])
    settings = Settings()
    if "@" in unit.name:
        assert given >= settings.drain_timeout_s + 10
    else:
        assert given >= settings.drain_notice_s + settings.upload_timeout_s + settings.analysis_timeout_s + 10
