"""The service from outside: cold start to ready, what HTTP costs on top of the pipeline, many clients at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.cli.client import RequestRefused, RunningService, predict, running_service
from tests.benchmarks.measuring import ROOT, ChildMemory, Probe, finished, peak_mib, say, started


def environment(model: Path, threads: int, device: str = "cpu") -> dict[str, str]:
    """Settings of a service that loads just this model."""
    return {
        "PYTHONPATH": str(ROOT),
        "LUNGNODULE_MODEL_STORE": str(model.parent.parent.resolve()),
        "LUNGNODULE_MODELS": f"{model.parent.name}:{model.name}",
        "LUNGNODULE_THREADS": str(threads),
        "LUNGNODULE_DEVICE": device,
        "LUNGNODULE_LOG_LEVEL": "warning",
    }


def cold_starts(model: Path, threads: int, runs: int) -> list[dict[str, float]]:
    """Seconds from starting the process to the first 200 of /readyz (asked every 0.1 s), and memory when idle."""
    found = []
    for number in range(runs):
        say(f"  {number + 1}/{runs} cold start")
        began = time.perf_counter()
        with running_service(environment(model, threads)) as service:
            seconds = time.perf_counter() - began
            found.append({"seconds": seconds, "idle_mib": peak_mib(service.process.pid)})
    return found


def http_against_direct(series: Path, model: Path, threads: int, pairs: int) -> dict[str, Any]:
    """The same series in turn: analysed by the pipeline called directly, and sent to a warm service.

    Both processes stay; the first pair warms them and is not counted. The direct call ends with the same JSON.
    """
    files = sorted(series.iterdir())
    direct_s, post_s, server_s = [], [], []
    with _direct_pipeline(model, threads) as ask, running_service(environment(model, threads)) as service:
        for number in range(pairs + 1):
            say(f"  {number}/{pairs} direct, then POST")
            direct = ask(series)
            began = time.perf_counter()
            answer = predict(service.url, files)
            seconds = time.perf_counter() - began
            if number:
                direct_s.append(direct["seconds"])
                post_s.append(seconds)
                server_s.append(answer["timings_s"]["total"])
        service_mib = peak_mib(service.process.pid)
    return {
        "direct_s": direct_s,
        "post_s": post_s,
        "pipeline_within_post_s": server_s,
        "overhead_percent": 100 * (statistics.median(post_s) / statistics.median(direct_s) - 1),
        "direct_mib": direct["peak_mib"],
        "service_mib": service_mib,
    }


def clients_at_once(
    series: Path, model: Path, threads: int, counts: Sequence[int], device: str = "cpu"
) -> list[dict[str, Any]]:
    """Each count of clients sends its requests at the same moment, at least four in all; a refused one gives up."""
    files = sorted(series.iterdir())
    rows = []
    with running_service(environment(model, threads, device)) as service:
        predict(service.url, files)
        for count in counts:
            say(f"  {count} clients at once")
            rows.append({"clients": count, **_round(service, files, count, max(1, 4 // count))})
    return rows


def processes_of_one_thread(series: Path, model: Path, count: int) -> dict[str, float]:
    """Throughput of several pipelines of one thread each, side by side, from their second analyses."""
    arguments = {"series": str(series), "model": str(model), "threads": 1, "again": 2}
    running = [started(Probe("side by side", "analysis", arguments)) for _ in range(count)]
    results = [finished(each) for each in running]
    # The last analysis may run alone, when the others are done: the one before it is taken.
    seconds = [result["warm_s"][0] for result in results]
    return {
        "processes": count,
        "seconds": statistics.mean(seconds),
        "studies_per_hour": sum(3600 / each for each in seconds),
        "peak_mib": sum(result["peak_mib"] for result in results),
    }


def _round(service: RunningService, files: list[Path], clients: int, each: int) -> dict[str, Any]:
    seconds: list[float] = []
    refused: Counter[str] = Counter()
    together = threading.Barrier(clients + 1)

    def client() -> None:
        together.wait()
        for _ in range(each):
            began = time.perf_counter()
            try:
                predict(service.url, files)
            except RequestRefused as refusal:
                refused[refusal.code] += 1
            else:
                seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    with ChildMemory(service.process.pid) as children:
        together.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - began
    p50, p99 = (float(v) for v in np.percentile(seconds, (50, 99))) if seconds else (float("nan"),) * 2
    return {
        "requests": clients * each,
        "answered": len(seconds),
        "refused": dict(refused),
        "per_hour": 3600 * len(seconds) / elapsed,
        "p50_s": p50,
        "p99_s": p99,
        "peak_mib": peak_mib(service.process.pid),
        "children_mib": children.total_mib(),
    }


@contextmanager
def _direct_pipeline(model: Path, threads: int) -> Iterator[Any]:
    """A process that holds a warm model; yields the function that has it analyse a series."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.probes",
            "direct",
            json.dumps({"model": str(model), "threads": threads}),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def ask(series: Path) -> dict[str, Any]:
        requests.write(f"{series}\n")
        requests.flush()
        line = answers.readline()
        if not line:
            raise SystemExit("the pipeline called directly has ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    try:
        if answers.readline() != "ready\n":
            raise SystemExit("the pipeline called directly did not start")
        yield ask
    finally:
        requests.close()
        process.wait()
        answers.close()
