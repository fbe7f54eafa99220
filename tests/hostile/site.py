"""The service as it is installed, in processes of its own, with what it says, keeps and takes looked at."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from tests.hostile.worlds import CANARY, MIB, PATIENT

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
SECRETS = (CANARY, PATIENT.birth_date)

_PACS = "LUNGNODULE_PACS_CONFIG"
RULES = '[[rules]]\nname = "any"\ndeidentify = {}\n'
"""Of a site whose settings leave the PACS configuration empty."""

LIMITS = {
    "LUNGNODULE_MAX_REQUEST_BYTES": 32 * MIB,
    "LUNGNODULE_MAX_FILES": 1000,
    "LUNGNODULE_UPLOAD_GRACE_S": 0.5,
    "LUNGNODULE_MIN_UPLOAD_BYTES_PER_S": 100_000,
    "LUNGNODULE_HEADER_TIMEOUT_S": 0.5,
    "LUNGNODULE_DOCUMENT_TIMEOUT_S": 0.5,
    "LUNGNODULE_ANALYSIS_TIMEOUT_S": 60,
    "LUNGNODULE_READ__MAX_FILES": 2000,
    "LUNGNODULE_READ__MAX_HEADER_BYTES": 32 * MIB,
    "LUNGNODULE_READ__MAX_VOXELS": 1 << 24,
    "LUNGNODULE_READ__MAX_TOTAL_BYTES": 256 * MIB,
    "LUNGNODULE_READ__DECODE_WORKERS": 1,
    "LUNGNODULE_READ__DECODE_MEMORY_BYTES": 768 * MIB,
    "LUNGNODULE_READ__DECODE_TIMEOUT_S": 20,
    "LUNGNODULE_PACS_CONFIG": "",
}
"""Settings under which hostile inputs are tried: what is stopped where it should be then costs little."""


@dataclass
class Answer:
    """What a client sees; status 0 when the connection was closed without an answer."""

    status: int
    code: str
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def told(self) -> tuple[int, str]:
        return self.status, self.code


@dataclass
class Site:
    """A service, and workers beside it, on one data folder."""

    folder: Path
    port: int
    settings: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    finished: str = ""
    """A job that succeeded, once one was needed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def temp(self) -> Path:
        return self.folder / "temp"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", *arguments], cwd=ROOT, env=os.environ | self.settings | changes,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip
        self.running.append(process)
        return process

    def serve(self, **changes: str) -> subprocess.Popen[bytes]:
        """A service, ready."""
        process = self.start("serve", "--port", str(self.port), **changes)
        self.until(lambda: self.is_ready(process), "the service is ready")
        return process

    def is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.log.read_text()[-6000:]
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/readyz", timeout=PATIENCE_S).ok
        return False

    def until(self, holds: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if found := holds():
                return found
            time.sleep(0.02)
        raise AssertionError(f"not within {patience_s} s: {what}\n{self.log.read_text()[-6000:]}")

    def post(self, path: str, files: list[Path], **more: Any) -> Answer:
        parts = [("files", (file.name, file.read_bytes())) for file in files]
        return answer_of(requests.post(f"{self.url}{path}", files=parts, timeout=PATIENCE_S, **more))

    def get(self, path: str, **more: Any) -> Answer:
        return answer_of(requests.get(f"{self.url}{path}", timeout=PATIENCE_S, **more))

    def leftovers(self) -> list[Path]:
        """What lies where uploads lie while they are received or analysed; a scan that somebody looks at stays open."""
        places = [*self.temp.glob("*/*"), *self.data.glob("incoming/*/*")]
        return [path for path in places if path.exists() and not path.name.startswith("opened-")]

    def until_clean(self) -> None:
        """Nothing of any request is left on the disk, and its place in the line is free."""
        self.until(lambda: not self.leftovers(), "uploads are removed", 20)
        self.until(lambda: requests.get(f"{self.url}/readyz", timeout=60).json()["places_taken"] == 0, "places", 20)

    def secrets_told(self) -> list[str]:
        """Lines of the log and of /metrics that name the patient."""
        with self.log.open(errors="replace") as log:
            said = [line for line in log if any(secret in line for secret in SECRETS)]
        metrics = requests.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return said + [line for line in metrics if any(secret in line for secret in SECRETS)]

    def arenas_of_threads(self, pid: int) -> int:
        """Of glibc's, beside the main one: what a process maps from a border of 64 MiB on, reserved up to the next."""
        size, spans = 64 << 20, []
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, access, _, _, _, *name = line.split()
            start, end = (int(border, 16) for border in span.split("-"))
            spans.append((start, end, access == "---p" and not name))
        return sum(
            is_reserved and used[1] == start and used[0] % size == 0 and end == used[0] + size
            for used, (start, end, is_reserved) in pairwise(spans)
        )

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()


def answer_of(response: requests.Response) -> Answer:
    problem = response.headers.get("content-type", "").startswith("application/problem+json")
    code = str(response.json()["code"]) if problem else ""
    return Answer(response.status_code, code, response.text, dict(response.headers))


@contextmanager
def site(folder: Path, store: Path, **settings: Any) -> Iterator[Site]:
    """Processes on a fresh folder; all of them are ended at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        "LUNGNODULE_MODEL_STORE": store, "LUNGNODULE_MODELS": "tiny", "LUNGNODULE_DEVICE": "cpu",
        "LUNGNODULE_THREADS": 1, "LUNGNODULE_DATA_DIR": folder / "data", "LUNGNODULE_TEMP_DIR": folder / "temp",
        "LUNGNODULE_MIN_FREE_DISK_BYTES": 0, "LUNGNODULE_DRAIN_NOTICE_S": 0, "OMP_NUM_THREADS": 1,
        "OPENBLAS_NUM_THREADS": 1, **settings,
    }  # fmt: skip
    made = Site(folder, port, {name: str(value) for name, value in own.items()})
    made.temp.mkdir(parents=True, exist_ok=True)
    made.log.touch()
    if made.settings.get(_PACS) == "":
        (folder / "pacs.toml").write_text(RULES)
        made.settings[_PACS] = str(folder / "pacs.toml")
    try:
        yield made
    finally:
        made.stop()


class Watch:
    """Resident memory and seconds while it is entered: how far the process grew, the peak of its children."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._children = 0
        self.seconds = self.own_mib = self.children_mib = 0.0

    def __enter__(self) -> Self:
        # Linux: the peak of the process itself is counted anew from here, and is exact.
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")
        self._before = self._process.memory_info().rss
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self._ended.set()
        self._thread.join()
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (own,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        self.own_mib = max(0.0, own / 1024 - self._before / MIB)
        self.children_mib = self._children / MIB

    def _sample(self) -> None:
        listed = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        files = list(listed)
        own = self._program(self._process.pid)
        while not self._ended.wait(0.02):
            total = 0
            for file in files:
                with suppress(OSError):
                    total += sum(_peak_bytes(int(pid)) for pid in file.read_text().split() if self._program(pid) != own)
            self._children = max(self._children, total)

    @staticmethod
    def _program(pid: int | str) -> bytes:
        """What a process runs. Between vfork and exec a child still is its parent, and its memory is the parent's."""
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        return b""


def _peak_bytes(pid: int) -> int:
    """The most that a process has held since it began to run its program; Linux counts it, so no sample misses it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
