"""What was acknowledged is answered exactly once and rightly, whoever is killed (kill -9) and when."""

from __future__ import annotations

import random
import signal
import sqlite3
from collections.abc import Callable

import pytest
import requests

from tests.jobs.processes import Farm, kill
from tests.jobs.stub import STAGES

StartFarm = Callable[..., Farm]


def test_service_killed_in_each_stage(start_farm: StartFarm) -> None:
    farm = start_farm(STUB_STAGE_S="0.01")
    jobs = []
    for number, stage in enumerate(STAGES):
        process = farm.serve()
        jobs.append(farm.submit(f"hold {stage} {number}"))
        farm.until_in(jobs[-1], stage)
        kill(process)
    farm.serve()
    for number, job_id in enumerate(jobs):
        job = farm.assert_done_once(job_id, number)
        assert "lost" in [attempt["outcome"] for attempt in job["attempts"]]


def test_worker_killed_in_each_stage_while_the_service_lives(start_farm: StartFarm) -> None:
    farm = start_farm(STUB_STAGE_S="0.01")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    jobs = []
    for number, stage in enumerate(STAGES[::2]):
        worker = farm.worker()
        jobs.append(farm.submit(f"hold {stage} {number}"))
        farm.until_in(jobs[-1], stage)
        kill(worker)
    farm.worker()
    for number, job_id in enumerate(jobs):
        farm.assert_done_once(job_id, number)


def test_acknowledged_and_killed_at_once(start_farm: StartFarm) -> None:
    farm = start_farm(STUB_STAGE_S="0.01", LUNGNODULE_WORKER_CONCURRENCY="0")
    process = farm.serve()
    jobs = [farm.submit(f"ok {number}") for number in range(5)]
    kill(process)
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="1")
    for number, job_id in enumerate(jobs):
        job = farm.assert_done_once(job_id, number)
        assert len(job["attempts"]) == 1


def test_killed_during_an_upload_nothing_is_left(start_farm: StartFarm) -> None:
    farm = start_farm()
    process = farm.serve()

    def body() -> object:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"x" * (3 << 20)
        farm.until(lambda: list(farm.data_dir.glob("incoming/*/*/000000")), "the upload has begun")
        kill(process)
        yield b"more"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{farm.url}/v1/jobs", data=body(), headers=headers, timeout=60)
    farm.serve()
    assert requests.get(f"{farm.url}/v1/jobs", timeout=60).json()["jobs"] == []
    assert list(farm.data_dir.glob("scans/*")) == []
    assert list(farm.data_dir.glob("incoming/*/*")) == []


def test_another_worker_takes_over(start_farm: StartFarm, postgres_url: str) -> None:
    farm = start_farm(postgres_url)
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    first = farm.worker()
    job_id = farm.submit("hold lungs 7")
    farm.until_in(job_id, "lungs")
    # Not restarted: the second one is told by the missing heartbeat alone.
    farm.worker()
    farm.until(lambda: farm.log.read_bytes().count(b"worker started") == 2, "two workers are at work")
    kill(first)
    job = farm.assert_done_once(job_id, 7)
    assert job["attempts"][0]["outcome"] == "lost"
    assert job["attempts"][0]["stage"] == "lungs"


def test_a_worker_taken_for_dead_changes_nothing_when_it_comes_back(start_farm: StartFarm, postgres_url: str) -> None:
    farm = start_farm(postgres_url)
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    first = farm.worker()
    job_id = farm.submit("hold read 8")
    farm.until_in(job_id, "read")
    first.send_signal(signal.SIGSTOP)
    farm.worker()
    farm.until(lambda: len(farm.job(job_id)["attempts"]) > 1, "the second attempt began")
    first.send_signal(signal.SIGCONT)
    job = farm.assert_done_once(job_id, 8)
    assert job["attempts"][0]["outcome"] == "lost"
    farm.until(lambda: b"attempt withdrawn" in farm.log.read_bytes(), "the first one has noticed")


def test_workers_killed_at_random(start_farm: StartFarm, database_url: str | None) -> None:
    chance = random.Random(5)
    farm = start_farm(database_url, STUB_STAGE_S="0.04", LUNGNODULE_WORKER_LEASE_S="1.5")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    workers = [farm.worker(), farm.worker()]
    jobs = [farm.submit(f"ok {number}") for number in range(12)]

    def done() -> int:
        return sum(farm.job(job_id)["state"] == "succeeded" for job_id in jobs)

    for target in (2, 5, 8):
        farm.until(lambda target=target: done() >= target, f"{target} jobs are done")
        victim = chance.randrange(2)
        kill(workers[victim])
        workers[victim] = farm.worker()
    for number, job_id in enumerate(jobs):
        farm.assert_done_once(job_id, number)


def test_a_job_that_kills_its_worker_is_parked_and_the_next_one_runs(start_farm: StartFarm) -> None:
    farm = start_farm(LUNGNODULE_MAX_ATTEMPTS="2")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    poison, next_one = farm.submit("kill detect"), farm.submit("ok 3")
    for _ in range(2):
        assert farm.until_exit(farm.worker()) == -signal.SIGKILL
    farm.worker()
    job = farm.until_ended(poison)
    assert job["state"] == "parked"
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["lost", "lost"]
    assert job["attempts"][0]["stage"] == "detect"
    assert job["problem"]["code"] == "attempts_exhausted"
    assert job["problem"]["values"]["last"] == "worker_lost"
    farm.assert_done_once(next_one, 3)


def test_sigterm_is_told_by_readiness_and_hands_the_job_back(start_farm: StartFarm) -> None:
    farm = start_farm(LUNGNODULE_DRAIN_NOTICE_S="2", LUNGNODULE_DRAIN_TIMEOUT_S="0.3")
    process = farm.serve()
    job_id = farm.submit("hold lungs 4")
    farm.until_in(job_id, "lungs")
    process.send_signal(signal.SIGTERM)
    not_ready = farm.until(lambda: _refused(f"{farm.url}/readyz"), "it is not ready")
    assert not_ready["code"] == "draining"
    assert farm.post("ok 5").status_code == 503
    assert farm.job(job_id)["state"] in ("running", "queued")
    assert farm.until_exit(process) == 0
    farm.serve()
    job = farm.assert_done_once(job_id, 4)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["interrupted", "succeeded"]


def test_sigterm_lets_a_short_job_finish(start_farm: StartFarm) -> None:
    farm = start_farm(STUB_STAGE_S="0.2")
    process = farm.serve()
    job_id = farm.submit("ok 6")
    farm.until(lambda: farm.job(job_id)["state"] != "queued", "it was taken up")
    process.send_signal(signal.SIGTERM)
    assert farm.until_exit(process) == 0
    with sqlite3.connect(farm.data_dir / "jobs.sqlite") as ledger:
        (state,) = ledger.execute("SELECT state FROM jobs WHERE id = ?", (job_id,)).fetchone()
    assert state == "succeeded"


def _refused(url: str) -> dict[str, str] | None:
    answer = requests.get(url, timeout=60)
    return answer.json() if answer.status_code == 503 else None
