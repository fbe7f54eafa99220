"""Hostile scans that carry a name, through the real service and the real worker: nothing of it is written anywhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pydicom
import pytest
import requests
from pydicom.uid import RLELossless

from app.imaging.child_process import PixelWorker
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series

SECRET = "JohnDoe"
_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 120.0


MISFITS = {0x00100010: b"PN", 0x00100030: b"DA", 0x00080031: b"TM", 0x00280030: b"DS", 0x00200013: b"IS"}
"""Where the name is put, by tag, with the VR that readers choke on."""


def name_everywhere(dataset: pydicom.Dataset, _z: int) -> None:
    for tag in MISFITS:
        dataset[tag] = pydicom.DataElement(tag, "LO", f"NOTADATE-{SECRET}")  # as a text it can be written


def vrs_as_they_should_be(path: Path) -> None:
    content = path.read_bytes()
    for tag, vr in MISFITS.items():
        written = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        content = content.replace(written + b"LO", written + vr)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder, volume = tmp_path_factory.mktemp("scans"), phantom_ct(noise_hu=5.0, seed=3).volume
    names: Callable[[int], str] = f"{SECRET}-{{}}.dcm".format
    made = {
        "a readable one": write_dicom_series(
            volume, folder / "a", file_names=names,
            edit=lambda dataset, _z: dataset.add_new(0x00091010, "UN", SECRET.encode()),
        ),
        "values that do not fit": write_dicom_series(volume, folder / "b", file_names=names, edit=name_everywhere),
        "damaged compressed pixels": write_dicom_series(
            volume, folder / "c", file_names=names, transfer_syntax_uid=RLELossless
        ),
    }  # fmt: skip
    for path in made["values that do not fit"]:
        vrs_as_they_should_be(path)
    for path in made["damaged compressed pixels"]:
        content = path.read_bytes()
        path.write_bytes(content[:-600] + SECRET.encode() * 40 + content[-320:])
    broken = folder / f"{SECRET}.nii"
    header = (b"\x5c\x01\x00\x00" + SECRET.encode() * 60)[:344]
    broken.write_bytes(header + b"n+1\x00" + SECRET.encode() * 60)
    return {**made, "a damaged volume file": [broken]}


@dataclass
class Running:
    """A command as it is installed, with all that it writes."""

    process: subprocess.Popen[bytes]
    output: Path

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=_PATIENCE_S) == 0, self.output.read_text()
        return self.output.read_text()


@dataclass
class Site:
    """A service, a worker beside it, and their data folder: either may take a job."""

    service: Running
    worker: Running
    url: str
    data: Path


@pytest.fixture
def site(tmp_path: Path, tiny_model_store: Path) -> Iterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **os.environ, "LUNGNODULE_MODEL_STORE": str(tiny_model_store), "LUNGNODULE_MODELS": "tiny",
        "LUNGNODULE_DEVICE": "cpu", "LUNGNODULE_THREADS": "1", "LUNGNODULE_LOG_LEVEL": "debug",
        "LUNGNODULE_DATA_DIR": str(tmp_path / "data"), "LUNGNODULE_MIN_FREE_DISK_BYTES": "0",
        "LUNGNODULE_DRAIN_NOTICE_S": "0",
        # Left over from somebody else's set-up: of no use to one process on a port, and no reason not to start.
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "absent"),
    }  # fmt: skip

    def start(name: str, *arguments: str, **changes: str) -> Running:
        output = tmp_path / name
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", *arguments],
                cwd=_ROOT,
                env=env | changes,
                stdout=stream,
                stderr=stream,
            )
        return Running(process, output)

    service = start("service", "serve", "--port", str(port))
    made = Site(service, service, f"http://127.0.0.1:{port}", tmp_path / "data")
    try:
        until(lambda: is_ready(made))
        made.worker = start("worker", "worker")
        yield made
    finally:
        for running in (made.service, made.worker):
            running.process.kill()
            running.process.wait()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_ready(site: Site) -> bool:
    assert site.service.process.poll() is None, site.service.output.read_text()
    with suppress(requests.ConnectionError):
        return requests.get(f"{site.url}/readyz", timeout=60).ok
    return False


def send(site: Site, path: str, files: list[Path]) -> requests.Response:
    parts = [("files", (file.name, file.read_bytes())) for file in files]
    headers = {"X-Request-ID": f"{SECRET}^", "User-Agent": SECRET}
    return requests.post(f"{site.url}{path}?name={SECRET}", files=parts, headers=headers, timeout=_PATIENCE_S)


def test_nothing_of_the_patient_is_in_logs_metrics_answers_or_the_ledger(
    site: Site, scans: dict[str, list[Path]]
) -> None:
    said = [send(site, "/v1/predict", files) for files in scans.values()]
    assert [answer.status_code for answer in said] == [200, 422, 422, 415], [answer.text for answer in said]
    made = [send(site, "/v1/jobs", files).json()["id"] for files in scans.values()]

    def states() -> list[str]:
        return [requests.get(f"{site.url}/v1/jobs/{job}", timeout=60).json()["state"] for job in made]

    until(lambda: set(states()) <= {"succeeded", "failed"})
    assert states() == ["succeeded", "failed", "failed", "failed"]
    paths = (f"/v1/jobs/{SECRET}", f"/{SECRET}", f"/v1/models/{SECRET}/1", "/metrics")
    said += [requests.get(site.url + path, timeout=60) for path in paths]
    assert not [answer.text for answer in said if SECRET in answer.text]
    logs = {"service": site.service.stop(), "worker": site.worker.stop()}
    for name, text in logs.items():
        assert text.count("\n") > 5, name
        for line in text.splitlines():
            json.loads(line)  # a decoding process, a library in C or a traceback would write in a form of its own
        assert SECRET not in text, name
    for ledger in site.data.glob("jobs.sqlite*"):
        assert SECRET.encode() not in ledger.read_bytes()


@pytest.mark.parametrize("where", ["main", "thread", "finaliser", "task"])
def test_what_nobody_catches_is_told_without_its_text(where: str) -> None:
    program = f"""
import asyncio, gc, sys, threading
from app.logs import configure_logs, tell_uncaught
configure_logs("info"); tell_uncaught()
def fail():
    raise ValueError({SECRET!r})
class Late:
    def __del__(self):
        fail()
async def coroutine():
    fail()
async def forgotten():
    task = asyncio.create_task(coroutine())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
def finaliser():
    late = Late()
    del late
def thread():
    started = threading.Thread(target=fail)
    started.start()
    started.join()
{{"main": fail, "thread": thread, "finaliser": finaliser, "task": lambda: asyncio.run(forgotten())}}[{where!r}]()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert lines
    assert "ValueError" in str(lines) or where == "task"
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_decoding_process_has_nowhere_to_write_to() -> None:
    """Asked of the system: what it would say is lost with it when it is killed, but not always in time."""
    before = psutil.Process().children()
    with PixelWorker(memory_bytes=2 << 30, timeout_s=_PATIENCE_S):
        (child,) = [process for process in psutil.Process().children() if process not in before]
        assert Path(f"/proc/{child.pid}/fd/2").readlink() == Path("/dev/null")
