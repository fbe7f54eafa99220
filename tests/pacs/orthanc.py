"""A real Orthanc of our own, on loopback, which may be stopped and started; and DCMTK's tools."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

PATIENCE_S = 90.0
USER, PASSWORD = "ai", "geheim"  # of an Orthanc that lives as long as a test
_PLUGINS = Path("/usr/share/orthanc/plugins")


@dataclass
class Orthanc:
    """A server with its storage in a folder."""

    program: str
    folder: Path
    http_port: int
    dicom_port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Start it on what it had stored; returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, str(self.folder / "orthanc.json")], stdout=log, stderr=log, cwd=self.folder
            )
        until(self._answers, "Orthanc answers")

    def stop(self) -> None:
        """End it at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> Any:
        """Of its REST API."""
        return requests.get(f"{self.url}{path}", auth=(USER, PASSWORD), timeout=30).json()

    def qido(self, path: str) -> list[dict[str, Any]]:
        """Of its DICOMweb."""
        answer = requests.get(f"{self.url}/dicom-web{path}", auth=(USER, PASSWORD), timeout=30)
        return answer.json() if answer.status_code == 200 else []

    def modalities_of(self, study_uid: str) -> list[str]:
        """One for each series of the study."""
        return sorted(one["00080060"]["Value"][0] for one in self.qido(f"/studies/{study_uid}/series"))

    def _answers(self) -> bool:
        try:
            return "Version" in self.get("/system")
        except (requests.RequestException, ValueError):
            return False


def program(name: str, package: str) -> str:
    """A program of a Debian package; the test is skipped without it, and fails in CI."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        reason = f"{name} is not here: apt-get install {package}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return str(found)


@contextmanager
def running_orthanc(folder: Path, **changes: Any) -> Iterator[Orthanc]:
    """A fresh one; series are stable after a second. ``changes`` are of its configuration."""
    made = Orthanc(program("Orthanc", "orthanc orthanc-dicomweb"), folder, free_port(), free_port())
    settings = {
        "Name": "test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": made.http_port, "DicomPort": made.dicom_port, "DicomAet": "TESTPACS", "StableAge": 1,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
        "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
        "Plugins": [str(_PLUGINS / "libOrthancDicomWeb.so")],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "MainDicomTags"},
        "LogExportedResources": False, "SaveJobs": False, **changes,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def pacs_toml(orthanc: Orthanc, *, min_instances: int, kinds: Sequence[str], rule: str = "", more: str = "") -> str:
    """The file of LUNGNODULE_PACS_CONFIG for this Orthanc: its log followed, results sent back to it.

    ``rule`` is added to the only rule, ``more`` to the file. The password is read from ORTHANC_PASSWORD.
    """
    login = f'login = {{ user = "{USER}", secret_env = "ORTHANC_PASSWORD" }}'
    return f"""
[orthanc.main]
url = "{orthanc.url}"
{login}
every_s = 0.2

[targets.archive]
kind = "dicomweb"
url = "{orthanc.url}/dicom-web"
{login}

[[rules]]
name = "chest"
min_instances = {min_instances}
send = [{{ target = "archive", kinds = {json.dumps(list(kinds))} }}]
{rule}

{more}
"""


def storescu(port: int, paths: Sequence[Path], *, called: str = "TESTPACS", calling: str = "CT1") -> int:
    """Send files as a scanner would; gives DCMTK's exit status."""
    command = [program("storescu", "dcmtk"), "-aet", calling, "-aec", called, "-to", "20", "127.0.0.1", str(port)]
    return subprocess.run([*command, *map(str, paths)], capture_output=True, timeout=120, check=False).returncode


def echoscu(port: int, *, called: str, calling: str) -> int:
    """Ask whether a service is there; gives DCMTK's exit status."""
    command = [program("echoscu", "dcmtk"), "-aet", calling, "-aec", called, "-to", "20", "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def free_port() -> int:
    """That nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until something is so, and give what it was."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience_s} s: {what}")
