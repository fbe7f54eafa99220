"""Services and workers as processes, to be killed, and what a client sees of them."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.jobs.nursery import Child, Nursery

PATIENCE_S = 60.0


@dataclass
class Farm:
    """Processes on one data folder and one database; all of them are ended at the end."""

    data_dir: Path
    log: Path
    settings: dict[str, str]
    nursery: Nursery
    running: list[Child] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, **changes: str) -> Child:
        """A service, ready."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        process = self._start(["serve", str(self.port)], changes)
        self.until(lambda: self._is_ready(process), "the service is ready")
        return process

    def worker(self, **changes: str) -> Child:
        """A worker; it is at work when it has taken a job."""
        return self._start(["worker"], changes)

    def until(self, holds: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Wait until something is so, and give what it was."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if found := holds():
                return found
            time.sleep(0.02)
        raise AssertionError(f"not within {patience_s} s: {what}\n{self.log.read_text()[-6000:]}")

    def until_exit(self, process: Child) -> int:
        self.until(lambda: process.poll() is not None, f"process {process.pid} ends")
        assert process.returncode is not None
        return process.returncode

    def submit(self, content: str, **headers: str) -> str:
        """Send a scan; gives the id of the acknowledged job."""
        answer = self.post(content, **headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def post(self, content: str, **headers: str) -> requests.Response:
        files = {"files": ("scan.dcm", content.encode())}
        return requests.post(f"{self.url}/v1/jobs", files=files, headers=headers, timeout=PATIENCE_S)

    def job(self, job_id: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/v1/jobs/{job_id}", timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def until_ended(self, job_id: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] not in ("queued", "running") else None

        job: dict[str, Any] = self.until(ended, f"job {job_id} ends")
        return job

    def until_in(self, job_id: str, stage: str) -> None:
        self.until(lambda: self.job(job_id)["progress"]["stage"] == stage, f"job {job_id} is in {stage}")

    def size_mm(self, job_id: str) -> float:
        """The answer of the stub."""
        answer = requests.get(f"{self.url}/v1/jobs/{job_id}/result", timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["nodules"][0]["long_axis_mm"])

    def kinds(self, job_id: str) -> list[str]:
        """The kinds of all events of a job that has ended."""
        text = requests.get(f"{self.url}/v1/jobs/{job_id}/events", timeout=PATIENCE_S).text
        return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]

    def assert_done_once(self, job_id: str, size_mm: float) -> dict[str, Any]:
        """The job ended with the right answer, and exactly one attempt gave it."""
        job = self.until_ended(job_id)
        assert job["state"] == "succeeded", (job, self.log.read_text()[-4000:])
        assert self.size_mm(job_id) == size_mm
        assert [attempt["outcome"] for attempt in job["attempts"]].count("succeeded") == 1
        assert self.kinds(job_id).count("succeeded") == 1
        return job

    def _start(self, arguments: list[str], changes: dict[str, str]) -> Child:
        own = {
            "LUNGNODULE_DATA_DIR": str(self.data_dir),
            "LUNGNODULE_WORKER_LEASE_S": "3",
            # A busy machine may take a slow worker for a dead one, which is not what is tested.
            "LUNGNODULE_MAX_ATTEMPTS": "50",
            "LUNGNODULE_DRAIN_NOTICE_S": "0",
            "LUNGNODULE_MIN_FREE_DISK_BYTES": "0",
            **self.settings,
            **changes,
        }
        process = self.nursery.start(arguments, own, self.log)
        self.running.append(process)
        return process

    def _is_ready(self, process: Child) -> bool:
        assert process.poll() is None, self.log.read_text()[-6000:]
        with suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/readyz", timeout=PATIENCE_S).status_code == 200
        return False


def kill(process: Child) -> None:
    """Kill -9."""
    process.send_signal(signal.SIGKILL)
    while process.poll() is None:
        time.sleep(0.005)


@contextmanager
def farm(folder: Path, nursery: Nursery) -> Iterator[Farm]:
    made = Farm(folder / "data", folder / "log", {}, nursery)
    made.log.touch()
    try:
        yield made
    finally:
        for process in made.running:
            if process.poll() is None:
                kill(process)
