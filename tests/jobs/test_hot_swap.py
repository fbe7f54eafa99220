"""Another model is put in force while jobs run and wait, with a service and workers as processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.jobs.processes import Farm, kill
from tests.tiny_model import write_tiny_model

StartFarm = Callable[..., Farm]


@pytest.fixture
def swapping(start_farm: StartFarm, tmp_path: Path, database_url: str | None) -> Farm:
    """A service that only takes in, on a store with two versions, the older one in force."""
    for version in ("1.0.0", "1.1.0"):
        write_tiny_model(tmp_path / "store", version=version)
    farm = start_farm(
        database_url,
        LUNGNODULE_MODEL_STORE=str(tmp_path / "store"),
        LUNGNODULE_MODELS="tiny:1.0.0",
        LUNGNODULE_MAX_LOADED_MODELS="1",
        LUNGNODULE_DEVICE="cpu",
        LUNGNODULE_THREADS="1",
    )
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    return farm


def answered_by(farm: Farm, job_id: str) -> str:
    answer = requests.get(f"{farm.url}/v1/jobs/{job_id}/result", timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["version"])


def activate(farm: Farm, version: str) -> None:
    answer = requests.post(f"{farm.url}/v1/models/tiny/{version}/activate", timeout=60)
    assert answer.status_code == 200, answer.text


def test_running_and_waiting_jobs_keep_the_model_they_were_given(swapping: Farm) -> None:
    swapping.worker()
    running = swapping.submit("pause lungs 1")
    swapping.until_in(running, "lungs")
    waiting = swapping.submit("ok 2")
    activate(swapping, "1.1.0")
    later = swapping.submit("ok 3")
    assert swapping.job(running)["state"] == "running"
    (swapping.data_dir / "go").touch()
    for number, job_id in enumerate((running, waiting, later), start=1):
        swapping.assert_done_once(job_id, number)
    assert [answered_by(swapping, job_id) for job_id in (running, waiting, later)] == ["1.0.0", "1.0.0", "1.1.0"]


def test_a_worker_that_comes_later_ends_the_job_on_the_model_it_was_given(swapping: Farm) -> None:
    first = swapping.worker()
    job_id = swapping.submit("hold lungs 1")
    swapping.until_in(job_id, "lungs")
    activate(swapping, "1.1.0")
    kill(first)
    # Its own model is the new one, and it has room for one.
    swapping.worker()
    swapping.assert_done_once(job_id, 1)
    assert answered_by(swapping, job_id) == "1.0.0"
