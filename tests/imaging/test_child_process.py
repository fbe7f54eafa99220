"""The decoding child: limited, without secrets, and no harm to its parent when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.imaging import child_process
from app.imaging.child_process import ChildFailedError, PixelWorker, PixelWorkers

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


def test_several_are_started_once_no_more_than_there_is_work_and_all_end() -> None:
    with PixelWorkers(3, 512 * MIB, 30.0) as workers:
        assert [workers.start(frames) for frames in (2, 1, 9, 9)] == [2, 2, 3, 3]
        started = [workers.idle.get() for _ in range(3)]
        assert workers.idle.empty()
        assert len({id(child) for child in started}) == 3
        assert all(child._process.poll() is None for child in started)
    assert all(child._process.returncode is not None for child in started)


def test_by_default_there_is_one_for_each_core_up_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, 1), (3, 3), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, cores=cores: set(range(cores)), raising=False)
        assert PixelWorkers(0, 512 * MIB, 30.0).count == expected
    assert PixelWorkers(5, 512 * MIB, 30.0).count == 5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_secrets_of_the_service_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGNODULE_API_KEY", "secret-of-the-service")
    with PixelWorker(512 * MIB, 30.0) as child:
        deadline, environment = time.monotonic() + 20, b""
        while not environment and time.monotonic() < deadline:  # empty for a moment while the program is exchanged
            environment = Path("/proc", str(child._process.pid), "environ").read_bytes()
    assert b"OMP_NUM_THREADS=1" in environment
    assert b"secret-of-the-service" not in environment


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these limits")
def test_limits() -> None:
    """In a process of its own: limits cannot be taken back."""
    said = subprocess.run([sys.executable, "-P", "-c", ASK_FOR_LIMITS], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(512 * MIB), "0", "0"]
