"""The decoding child: limited, without secrets, and no harm to its parent when it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.imaging import child_process
from app.imaging.child_process import ChildFailedError, PixelWorker

MIB = 1 << 20
PROGRAM = Path(child_process.__file__).with_name("pixel_worker.py")
ASK_FOR_LIMITS = f"""
import resource, runpy
runpy.run_path({str(PROGRAM)!r})["restrict"](memory_bytes={512 * MIB})
for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
    print(resource.getrlimit(kind)[1])
"""


def test_it_is_gone_afterwards() -> None:
    with PixelWorker(512 * MIB, 30.0) as child:
        process = child._process
        assert process.poll() is None
    assert process.returncode is not None


def test_nonsense_ends_the_child_not_the_parent() -> None:
    with PixelWorker(512 * MIB, 30.0) as child:
        with pytest.raises(ChildFailedError):
            child.ask({"path": "/dev/null", "fragments": [[0, 10]], "transfer_syntax_uid": "1.2", "decoder": "x"}, 100)
        with pytest.raises(ChildFailedError):
            child.ask({}, 100)


def test_killed_while_someone_waits() -> None:
    with PixelWorker(512 * MIB, 30.0) as child:
        child.kill()
        with pytest.raises(ChildFailedError):
            child.ask({}, 100)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_secrets_of_the_service_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGNODULE_API_KEY", "secret-of-the-service")
    with PixelWorker(512 * MIB, 30.0) as child:
        environment = Path("/proc", str(child._process.pid), "environ").read_bytes()
    assert b"OMP_NUM_THREADS=1" in environment
    assert b"secret-of-the-service" not in environment


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these limits")
def test_limits() -> None:
    """In a process of its own: limits cannot be taken back."""
    said = subprocess.run([sys.executable, "-P", "-c", ASK_FOR_LIMITS], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(512 * MIB), "0", "0"]
