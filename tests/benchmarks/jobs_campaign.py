"""Figures of the jobs: lost and doubled under kills, throughput by workers, latency under load. By hand, not in CI.

    python -m tests.benchmarks.jobs_campaign [--jobs 200] [--clients 50] [--postgres]

The analysis is a stub of fixed duration, so that the figures are those of the queue, not of the networks.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.jobs.nursery import Nursery
from tests.jobs.postgres import Postgres, fresh_database, running_postgres
from tests.jobs.processes import Farm, farm, kill

STUB_JOB_S = 0.6
KILL_EVERY_S = 3.0


@contextmanager
def fresh_farm(nursery: Nursery, cluster: Postgres | None, **settings: str) -> Iterator[Farm]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if cluster is not None:
            settings["LUNGNODULE_DATABASE_URL"] = stack.enter_context(fresh_database(cluster))
        made = stack.enter_context(farm(folder, nursery))
        made.settings.update({"STUB_STAGE_S": str(STUB_JOB_S / 6), "LUNGNODULE_MAX_ATTEMPTS": "1000", **settings})
        yield made


def states(made: Farm) -> list[str]:
    found: list[str] = []
    link = f"{made.url}/v1/jobs?limit=200"
    while link:
        page = requests.get(link, timeout=60).json()
        found += [job["state"] for job in page["jobs"]]
        link = f"{made.url}{page['next']}" if page["next"] else ""
    return found


def until_all_done(made: Farm, count: int) -> None:
    made.until(lambda: states(made).count("succeeded") >= count, f"{count} jobs are done", patience_s=3600)


def kills(nursery: Nursery, cluster: Postgres | None, count: int) -> None:
    """Two workers, one of which is killed every few seconds."""
    chance = random.Random(1)
    with fresh_farm(nursery, cluster) as made:
        made.serve(LUNGNODULE_WORKER_CONCURRENCY="0", LUNGNODULE_MAX_QUEUED=str(count + 1))
        jobs = [made.submit(f"ok {number}") for number in range(count)]
        workers = [made.worker(), made.worker()]
        killed, next_kill = 0, time.monotonic() + KILL_EVERY_S
        while states(made).count("succeeded") < count:
            if time.monotonic() > next_kill:
                victim = chance.randrange(2)
                kill(workers[victim])
                workers[victim] = made.worker()
                killed, next_kill = killed + 1, time.monotonic() + KILL_EVERY_S * chance.uniform(0.5, 1.5)
            time.sleep(0.2)
        found = [made.job(job_id) for job_id in jobs]
        lost = sum(job["state"] != "succeeded" for job in found)
        wrong = sum(made.size_mm(job_id) != number for number, job_id in enumerate(jobs))
        doubled = sum(made.kinds(job_id).count("succeeded") != 1 for job_id in jobs)
        begun = sum(len(job["attempts"]) for job in found)
        print(
            f"kills: {count} acknowledged, {killed} workers killed, {lost} lost, {doubled} doubled, {wrong} wrong, "
            f"{begun - count} attempts begun in vain"
        )


def throughput(nursery: Nursery, cluster: Postgres | None, count: int) -> None:
    """The same jobs with 1, 2 and 4 workers."""
    alone: float | None = None
    for number in (1, 2, 4):
        with fresh_farm(nursery, cluster) as made:
            made.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
            for _ in range(number):
                made.worker()
            warm = [made.submit(f"ok {1000 + extra}") for extra in range(number)]
            for job_id in warm:
                made.until_ended(job_id)
            began = time.monotonic()
            for content in range(count):
                made.submit(f"ok {content}")
            until_all_done(made, count + number)
            seconds = time.monotonic() - began
        alone = alone or seconds
        print(
            f"throughput: {number} workers, {count} jobs of {STUB_JOB_S} s in {seconds:.1f} s: "
            f"{count / seconds:.2f} jobs/s, {alone / seconds:.2f} times one worker"
        )


def load(nursery: Nursery, cluster: Postgres | None, clients: int) -> None:
    """Many clients upload at once while jobs run; the probes are asked meanwhile."""
    scan = "ok 5 " + "x" * (8 << 20)
    with fresh_farm(nursery, cluster) as made:
        process = made.serve()
        made.until_ended(made.submit("ok 1"))
        watched = made.submit("ok 2")
        before = psutil.Process(process.pid).memory_info().rss
        ended = threading.Event()
        seconds: dict[str, list[float]] = {"/healthz": [], f"/v1/jobs/{watched}": []}

        def probe() -> None:
            while not ended.is_set():
                for path, measured in seconds.items():
                    began = time.perf_counter()
                    requests.get(made.url + path, timeout=60)
                    measured.append(time.perf_counter() - began)
                ended.wait(0.02)

        def upload(number: int) -> Any:
            answer = made.post(f"{scan} {number}")
            return answer.status_code, "Retry-After" in answer.headers

        prober = threading.Thread(target=probe)
        prober.start()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(upload, range(clients * 4)))
        ended.set()
        prober.join()
        after = psutil.Process(process.pid).memory_info().rss
    for path, measured in seconds.items():
        name = path if path == "/healthz" else "/v1/jobs/{id}"
        p99 = statistics.quantiles(measured, n=100)[98]
        print(
            f"load: {name} n={len(measured)} median {statistics.median(measured) * 1e3:.1f} ms p99 {p99 * 1e3:.1f} ms"
        )
    statuses = {status: sum(s == status for s, _ in answers) for status in {s for s, _ in answers}}
    unadvised = sum(status != 202 and not advised for status, advised in answers)
    print(f"load: {clients} clients, {len(answers)} uploads of 8 MiB: {statuses}")
    print(f"load: {unadvised} refusals without Retry-After")
    print(f"load: memory {before >> 20} MiB before, {after >> 20} MiB after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--postgres", action="store_true")
    asked = parser.parse_args()
    with ExitStack() as stack:
        cluster = stack.enter_context(running_postgres()) if asked.postgres else None
        nursery = Nursery()
        stack.callback(nursery.close)
        print(f"database: {'PostgreSQL' if cluster else 'SQLite'}")
        kills(nursery, cluster, asked.jobs)
        throughput(nursery, cluster, min(asked.jobs, 40))
        load(nursery, cluster, asked.clients)


if __name__ == "__main__":
    main()
