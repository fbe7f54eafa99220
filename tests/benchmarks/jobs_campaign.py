"""Figures of the jobs: lost and doubled under kills, throughput by workers, latency and memory under load.

    python -m tests.benchmarks.jobs_campaign [--jobs 200] [--clients 50] [--rounds 10] [--postgres] [--json FILE]

By hand, not in CI; `tests.benchmarks.jobs_report` writes the JSON into docs/jobs.md. The analysis is a stub of fixed
duration, so that the figures are those of the queue, not of the networks; under load it keeps every core busy.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.benchmarks.jobs_report import tables
from tests.benchmarks.machine import described
from tests.benchmarks.measuring import ROOT, say
from tests.jobs.nursery import Nursery
from tests.jobs.postgres import Postgres, fresh_database, running_postgres
from tests.jobs.processes import Farm, farm, kill

STUB_JOB_S = 0.6
KILL_EVERY_S = 3.0
UPLOAD_MIB = 8
UPLOADS_EACH = 4
IDLE_S = 5.0
IMPATIENT_S = 0.25


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


def once(made: Farm, jobs: dict[str, int]) -> dict[str, int]:
    """Of acknowledged jobs, by id with the right answer: how many were lost, doubled or wrong."""
    found = {job_id: made.job(job_id) for job_id in jobs}
    done = [job_id for job_id, job in found.items() if job["state"] == "succeeded"]
    return {
        "acknowledged": len(jobs),
        "lost": len(jobs) - len(done),
        "doubled": sum(made.kinds(job_id).count("succeeded") != 1 for job_id in done),
        "wrong": sum(made.size_mm(job_id) != jobs[job_id] for job_id in done),
        "attempts": sum(len(job["attempts"]) for job in found.values()),
    }


def kills(nursery: Nursery, cluster: Postgres | None, count: int) -> dict[str, Any]:
    """Two workers, one of which is killed every few seconds."""
    chance = random.Random(1)
    with fresh_farm(nursery, cluster) as made:
        made.serve(LUNGNODULE_WORKER_CONCURRENCY="0", LUNGNODULE_MAX_QUEUED=str(count + 1))
        began = time.monotonic()
        jobs = {made.submit(f"ok {number}"): number for number in range(count)}
        workers = [made.worker(), made.worker()]
        killed, next_kill = 0, time.monotonic() + KILL_EVERY_S
        while states(made).count("succeeded") < count:
            if time.monotonic() > next_kill:
                victim = chance.randrange(2)
                kill(workers[victim])
                workers[victim] = made.worker()
                killed, next_kill = killed + 1, time.monotonic() + KILL_EVERY_S * chance.uniform(0.5, 1.5)
            time.sleep(0.2)
        return {"killed": killed, "seconds": time.monotonic() - began, **once(made, jobs)}


def throughput(nursery: Nursery, cluster: Postgres | None, count: int) -> list[dict[str, Any]]:
    """The same jobs with 1, 2 and 4 workers; from the first that is taken up to the last that ends."""
    runs = []
    for number in (1, 2, 4):
        with fresh_farm(nursery, cluster) as made:
            made.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
            for _ in range(number):
                made.worker()
            for job_id in [made.submit(f"ok {1000 + extra}") for extra in range(number)]:
                made.until_ended(job_id)
            jobs = [made.submit(f"ok {content}") for content in range(count)]
            until_all_done(made, count + number)
            tries = [attempt for job_id in jobs for attempt in made.job(job_id)["attempts"]]
            begun, ended = (
                [datetime.fromisoformat(one[f"{what}_at"]) for one in tries] for what in ("started", "finished")
            )
            runs.append({"workers": number, "jobs": count, "seconds": (max(ended) - min(begun)).total_seconds()})
    return runs


@contextmanager
def probed(made: Farm, paths: Sequence[str], into: dict[str, dict[str, float]], when: str) -> Iterator[None]:
    """Ask these paths meanwhile; puts count, median and 99th percentile, in seconds, into ``into``."""
    command = [sys.executable, "-m", "tests.benchmarks.prober", f"127.0.0.1:{made.port}", *paths]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as prober:
        yield
        out, _ = prober.communicate("")
    for path, seconds in json.loads(out).items():
        name = "/v1/jobs/{id}" if path.startswith("/v1/jobs/") else path
        into[f"{name}, {when}"] = {
            "n": len(seconds),
            "median_s": statistics.median(seconds),
            "p99_s": statistics.quantiles(seconds, n=100, method="inclusive")[98],
            "longest_s": max(seconds),
        }


def load(nursery: Nursery, cluster: Postgres | None, clients: int) -> dict[str, Any]:
    """Many clients upload at once while a worker in the same process computes on every core.

    More clients than uploads may be received at a time, so that some are sent away; they try again sooner than advised.
    """
    limit = str(max(2, clients // 3))
    with fresh_farm(nursery, cluster, STUB_COMPUTES="1", LUNGNODULE_MAX_JOB_UPLOADS=limit) as made:
        process = made.serve()
        made.until_ended(made.submit("ok 1"))
        paths = ["/healthz", f"/v1/jobs/{made.submit('ok 2')}"]
        made.until(lambda: states(made).count("succeeded") == 2, "nothing runs")
        answered: dict[str, dict[str, float]] = {}
        with probed(made, paths, answered, "idle"):
            time.sleep(IDLE_S)
        before = _rss_mib(process.pid)
        began = time.monotonic()
        with probed(made, paths, answered, "under load"), ThreadPoolExecutor(clients) as pool:
            told = list(pool.map(lambda number: _insisting(made, number), range(clients * UPLOADS_EACH)))
            uploaded_s = time.monotonic() - began
        after = _rss_mib(process.pid)
        jobs = {tries[-1].json()["id"]: number for number, tries in enumerate(told)}
        until_all_done(made, len(jobs) + 2)
        answers = [answer for tries in told for answer in tries]
        return {
            "clients": clients,
            "uploads": len(told),
            "uploaded_s": uploaded_s,
            "uploads_at_once": int(limit),
            "probes": answered,
            "statuses": dict(Counter(f"{answer.status_code} {_code(answer)}".strip() for answer in answers)),
            "without_advice": sum(not a.ok and "Retry-After" not in a.headers for a in answers),
            "rss_mib": [before, after],
            **once(made, jobs),
        }


def soak(nursery: Nursery, cluster: Postgres | None, rounds: int, count: int) -> dict[str, Any]:
    """Round after round of the same work in one process: does its memory stay?"""
    with fresh_farm(nursery, cluster, STUB_STAGE_S="0.002") as made:
        process = made.serve(LUNGNODULE_MAX_QUEUED=str(count + 1))
        sizes = [_rss_mib(process.pid)]
        for number in range(rounds):
            for content in range(count):
                made.submit(_scan(number * count + content))
            until_all_done(made, (number + 1) * count)
            sizes.append(_rss_mib(process.pid))
        return {"rounds": rounds, "jobs": count, "rss_mib": sizes}


def _insisting(made: Farm, number: int) -> list[requests.Response]:
    """Every answer to an upload that is repeated until it is taken in."""
    answers = [made.post(_scan(number))]
    while not answers[-1].ok:
        assert answers[-1].status_code in (429, 503), answers[-1].text
        time.sleep(IMPATIENT_S)
        answers.append(made.post(_scan(number)))
    return answers


def _scan(number: int) -> str:
    return f"ok {number} " + "x" * (UPLOAD_MIB << 20)


def _code(answer: requests.Response) -> str:
    return "" if answer.ok else str(answer.json()["code"])


def _rss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10, help="of the soak, each with a tenth of the jobs")
    parser.add_argument("--postgres", action="store_true", help="a cluster of its own, instead of SQLite")
    parser.add_argument("--json", type=Path, help="write what was measured here")
    asked = parser.parse_args()
    with ExitStack() as stack:
        cluster = stack.enter_context(running_postgres()) if asked.postgres else None
        nursery = Nursery()
        stack.callback(nursery.close)
        result: dict[str, Any] = {"machine": described(), "database": "PostgreSQL" if cluster else "SQLite"}
        parts = {
            "kills": lambda: kills(nursery, cluster, asked.jobs),
            "throughput": lambda: throughput(nursery, cluster, min(asked.jobs, 40)),
            "load": lambda: load(nursery, cluster, asked.clients),
            "soak": lambda: soak(nursery, cluster, asked.rounds, max(1, asked.jobs // 10)),
        }
        for name, part in parts.items():
            say(name)
            result[name] = part()
            if asked.json:
                # After each part: what was measured is kept when a later one fails.
                asked.json.parent.mkdir(parents=True, exist_ok=True)
                asked.json.write_text(json.dumps(result))
    for table in tables([result]):
        print(table.text())


if __name__ == "__main__":
    main()
