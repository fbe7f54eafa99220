"""A worker's own port: what Kubernetes and Prometheus see of it, and that liveness never needs the database."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.jobs.postgres import Postgres
from tests.jobs.processes import Farm

StartFarm = Callable[..., Farm]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def asked(port: int, path: str) -> requests.Response | None:
    with suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}{path}", timeout=60)
    return None


def code(port: int, path: str) -> str | None:
    """Of the problem; `ok` where there is none, None where nobody listens."""
    answer = asked(port, path)
    return None if answer is None else "ok" if answer.ok else str(answer.json()["code"])


def figures(port: int) -> dict[tuple[str, ...], float]:
    answer = asked(port, "/metrics")
    assert answer is not None
    assert answer.status_code == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_jobs_of_a_worker_are_counted_there_and_the_line_is_the_same_everywhere(
    start_farm: StartFarm, port: int
) -> None:
    farm = start_farm(STUB_STAGE_S="0.01")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    farm.worker(LUNGNODULE_WORKER_PORT=str(port))
    farm.assert_done_once(farm.submit("ok 4"), 4)
    assert code(port, "/healthz") == "ok"
    ready = asked(port, "/readyz")
    assert ready is not None
    assert ready.json()["models"] == ["standin:1.2.3", "other:2.0.0"]
    farm.until(lambda: figures(port).get(("lungnodule_jobs", "succeeded")) == 1, "the census counts it")
    of_worker, of_service = figures(port), figures(farm.port)
    assert of_worker["lungnodule_stage_seconds_count", "detect"] == 1
    assert of_worker["lungnodule_analyses_total", "standin:1.2.3"] == 1
    assert ("lungnodule_analyses_total", "standin:1.2.3") not in of_service
    assert of_worker["lungnodule_jobs", "succeeded"] == 1
    assert of_worker["lungnodule_workers",] == 1
    assert of_worker["lungnodule_free_disk_bytes", "store"] > 0
    assert asked(port, "/v1/jobs").status_code == 404  # type: ignore[union-attr]


def test_without_its_database_a_worker_lives_and_is_not_ready(
    start_farm: StartFarm, postgres: Postgres, postgres_url: str, port: int
) -> None:
    farm = start_farm(postgres_url)
    worker = farm.worker(LUNGNODULE_WORKER_PORT=str(port))
    farm.until(lambda: code(port, "/readyz") == "ok", "the worker is ready")
    postgres.kill()
    try:
        farm.until(lambda: code(port, "/readyz") in ("database_unavailable", "heartbeat_late"), "it is not ready")
        assert code(port, "/healthz") == "ok"
        farm.until(lambda: figures(port)["lungnodule_database_up",] == 0, "the figures say so")
        seen = figures(port)
        assert not [name for name in seen if name[0] in ("lungnodule_jobs", "lungnodule_workers")]
    finally:
        postgres.start()
    farm.until(lambda: code(port, "/readyz") == "ok", "it is ready again")
    assert worker.poll() is None


def test_a_stopping_worker_says_so_while_it_finishes(start_farm: StartFarm, port: int) -> None:
    farm = start_farm(LUNGNODULE_DRAIN_TIMEOUT_S="2")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    worker = farm.worker(LUNGNODULE_WORKER_PORT=str(port))
    job_id = farm.submit("hold lungs 4")
    farm.until_in(job_id, "lungs")
    worker.send_signal(signal.SIGTERM)
    farm.until(lambda: code(port, "/readyz") == "draining", "it says that it stops")
    assert code(port, "/healthz") == "ok"
    assert farm.until_exit(worker) == 0


def test_a_full_disk_is_no_place_to_work(start_farm: StartFarm, port: int) -> None:
    farm = start_farm(LUNGNODULE_MIN_FREE_DISK_BYTES=str(1 << 60))
    farm.worker(LUNGNODULE_WORKER_PORT=str(port))
    farm.until(lambda: code(port, "/readyz") == "disk_low", "it is not ready")
    assert code(port, "/healthz") == "ok"


def test_a_port_that_is_taken_ends_the_start(start_farm: StartFarm) -> None:
    farm = start_farm()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = farm.worker(LUNGNODULE_WORKER_PORT=str(taken.getsockname()[1]))
        assert farm.until_exit(worker) != 0


def test_without_the_setting_nobody_listens(start_farm: StartFarm, port: int) -> None:
    farm = start_farm()
    farm.worker()
    farm.until(lambda: b"worker started" in farm.log.read_bytes(), "it is at work")
    assert code(port, "/healthz") is None
