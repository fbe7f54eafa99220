"""Where uploads lie: a folder for each process, and in it one for each request.

A request removes its own folder. A process that was killed cannot, so the next one to start removes what it finds
without an owner: a process holds a lock on the file beside its folder for as long as it lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

from app.disk_faults import full_disk_refused

_PREFIX = "lungnodule-uploads-"


@contextmanager
def process_folder(root: Path) -> Iterator[Path]:
    """Make the folder of this process under ``root``, once those that have lost their process are gone."""
    for lock in root.glob(f"{_PREFIX}*.lock"):
        # It may be gone: its process ended in order meanwhile, or another that starts was faster.
        with suppress(FileNotFoundError), lock.open("r+b") as file:
            if _locked(file):
                _remove(lock)
    lock = root / f"{_PREFIX}{uuid.uuid4().hex}.lock"
    unnamed = lock.with_suffix(".new")
    with unnamed.open("xb") as file:
        # Named only once it is locked: whoever starts at the same time would take it for a dead process's.
        _locked(file)
        unnamed.rename(lock)
        folder = lock.with_suffix("")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(lock)


@asynccontextmanager
async def request_folder(parent: Path) -> AsyncIterator[Path]:
    """A folder for one request, removed whatever happens.

    Raises
    ------
    StorageFull
        It cannot be made.
    """
    with full_disk_refused():
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=parent))
    try:
        yield folder
    finally:
        removal = asyncio.create_task(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
        # A request that is cancelled still waits for its folder to be gone.
        await asyncio.shield(removal)


def _locked(file: IO[bytes]) -> bool:
    """Take the lock for as long as the file is open, unless another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
