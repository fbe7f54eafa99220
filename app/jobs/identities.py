"""Whose scan a de-identified one was: a file for each job, apart from the store, gone with the job.

Not in the store, which may be somebody else's bucket; not in the ledger. Readable by the service's user only.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.disk_faults import full_disk_refused
from app.jobs.store import Erased

FOLDER = "identities"


@dataclass(frozen=True)
class Identities:
    """Files ``<job id>.json`` in a folder of the data folder.

    Parameters
    ----------
    root
        The folder; made when the first is kept.
    """

    root: Path

    def keep(self, job_id: str, body: bytes) -> None:
        """Write it down, so that it outlives the power.

        Raises
        ------
        StorageFull
            The disk has no room.
        """
        with full_disk_refused():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secretly(self._path(job_id), body)

    def of(self, job_id: str) -> bytes | None:
        """What was kept; None for a job of a scan that came as it is stored."""
        try:
            return self._path(job_id).read_bytes()
        except FileNotFoundError:
            return None

    def erase(self, job_id: str) -> Erased:
        """Remove it; nothing happens where there is none."""
        path = self._path(job_id)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return Erased(0, 0)
        _force(self.root)
        return Erased(1, size)

    def left_of(self, job_id: str) -> int:
        """How many files there are of a job, looked at anew."""
        return int(self._path(job_id).exists())

    def older_than(self, age_s: float) -> list[str]:
        """Jobs whose file, whole or not, was written longer ago."""
        if not self.root.is_dir():
            return []
        now, found = time.time(), []
        for path in self.root.iterdir():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > age_s:
                    found.append(path.stem)
        return found

    def _path(self, job_id: str) -> Path:
        return self.root / f"{job_id}.json"


def write_secretly(path: Path, body: bytes) -> None:
    """Write a file of mode 0600, durably and whole or not at all."""
    partial = path.with_name(f".{path.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(body)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(path)
    _force(path.parent)


def _force(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
