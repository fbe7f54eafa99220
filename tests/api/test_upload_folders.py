"""Who removes what, also after a kill."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.upload_folders import process_folder, request_folder

HOLDS_A_FOLDER = """
import sys
from pathlib import Path
from app.upload_folders import process_folder
with process_folder(Path(sys.argv[1])) as folder:
    (folder / "scan").write_bytes(b"scan")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process with a folder of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_FOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_process_leaves_nothing(tmp_path: Path) -> None:
    with process_folder(tmp_path) as folder:
        (folder / "scan").write_bytes(b"scan")
        assert folder.stat().st_mode & 0o077 == 0, "others can read it"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(tmp_path: Path) -> None:
    killed, its_folder = holder(tmp_path)
    living, in_use = holder(tmp_path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert (its_folder / "scan").exists()
        with process_folder(tmp_path):
            assert not its_folder.exists()
            assert (in_use / "scan").exists()
    finally:
        living.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_and_end_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    """As the workers of one machine do; each removal is looked for while another's folder appears."""

    def lives(_: int) -> None:
        with process_folder(tmp_path) as folder:
            (folder / "scan").write_bytes(b"scan")
            assert (folder / "scan").exists()
            assert folder.with_suffix(".lock").exists(), "nobody would remove the folder if this process were killed"

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lives, range(400))) == [None] * 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [None, ValueError, asyncio.CancelledError])
def test_a_request_leaves_nothing(tmp_path: Path, fault: type[BaseException] | None) -> None:
    async def request() -> None:
        async with request_folder(tmp_path) as folder:
            (folder / "000000").write_bytes(b"scan")
            if fault is not None:
                raise fault

    if fault is None:
        asyncio.run(request())
    else:
        with pytest.raises(fault):
            asyncio.run(request())
    assert list(tmp_path.iterdir()) == []
