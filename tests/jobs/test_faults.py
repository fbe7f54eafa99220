"""A disk that is full, a database that is killed: what cannot be kept is not acknowledged, what was is not lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.jobs.postgres import Postgres
from tests.jobs.processes import Farm

StartFarm = Callable[..., Farm]
SMALL_DISK_MIB = 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    folder = tmp_path / "data"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_loses_nothing(start_farm: StartFarm, small_disk: Path) -> None:
    farm = start_farm(STUB_STAGE_S="0.05")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    jobs = [farm.submit(f"ok {number}") for number in range(3)]
    answer = farm.post("ok 9 " + "x" * (SMALL_DISK_MIB << 20))
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_full")
    assert "Retry-After" in answer.headers
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    answer = farm.post("ok 9")
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] in ("storage_full", "database_unavailable")
    farm.worker()  # has no room to begin
    ballast.unlink()
    farm.worker()
    for number, job_id in enumerate(jobs):
        farm.assert_done_once(job_id, number)
    assert len(requests.get(f"{farm.url}/v1/jobs", timeout=60).json()["jobs"]) == 3


def test_postgres_killed_while_jobs_run(start_farm: StartFarm, postgres: Postgres, postgres_url: str) -> None:
    farm = start_farm(postgres_url, STUB_STAGE_S="0.2")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    farm.worker()
    jobs = [farm.submit(f"ok {number}") for number in range(3)]
    farm.until(lambda: farm.job(jobs[0])["state"] != "queued", "a job runs")
    postgres.kill()
    answer = farm.until(lambda: _or_none(farm, "ok 9"), "the service says that the database is gone")
    assert answer["code"] == "database_unavailable"
    assert requests.get(f"{farm.url}/healthz", timeout=60).status_code == 200
    postgres.start()
    for number, job_id in enumerate(jobs):
        farm.assert_done_once(job_id, number)


def _or_none(farm: Farm, content: str) -> dict[str, str] | None:
    answer = farm.post(content)
    return answer.json() if answer.status_code == 503 else None
