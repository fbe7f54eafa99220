"""The store on a disk: uploads and results as files, acknowledged only once they are on stable storage.

A file or folder is written under a name that nobody reads, forced to the disk, and renamed; then the rename is forced.
So whatever carries its final name is whole. Names are ids of the service's own; what the sender called its files stays
inside the scan's folder and is erased with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.disk_faults import full_disk_refused
from app.imaging.inputs import InputFile
from app.jobs.records import StoreDamaged, StoredFile
from app.jobs.store import Erased

_CHUNK = 1 << 20
_NAMES_FILE = "names.json"
_RESULT_FILE = "result.json"
_CONTEXT_FILE = "context.json"


@dataclass(frozen=True)
class FolderStore:
    """`app.jobs.store.Store` in folders ``scans/<scan id>/`` and ``results/<job id>/`` under the data folder.

    Processes on several machines may use the same folder where its file system honours fsync and rename.
    """

    root: Path

    @property
    def incoming(self) -> Path:
        """Where uploads are received; on the same file system, so that a rename is enough."""
        return self.root / "incoming"

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self.incoming, self._scans, self._results):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep_scan(self, scan_id: str, received: Path, files: Sequence[InputFile]) -> None:
        """Make received files durable under the scan's id; afterwards they are there whatever happens.

        Raises
        ------
        StorageFull
            The disk has no room.
        """
        with full_disk_refused():
            names = {file.path.name: file.name for file in files}
            _write_durably(received / _NAMES_FILE, json.dumps(names).encode())
            for file in files:
                _force(file.path)
            _force(received)
            received.rename(self._scans / scan_id)
            _force(self._scans)

    def take_back(self, scan_id: str, received: Path) -> None:
        """Undo `keep_scan`, for a scan that is not needed after all."""
        (self._scans / scan_id).rename(received)
        (received / _NAMES_FILE).unlink()

    @contextmanager
    def scan(self, scan_id: str) -> Iterator[list[InputFile]]:
        """The files of a scan where they lie, with the names their sender gave them.

        Raises
        ------
        StoreDamaged
            When they are gone.
        """
        folder = self._scans / scan_id
        try:
            names = json.loads((folder / _NAMES_FILE).read_bytes())
        except FileNotFoundError:
            raise StoreDamaged("The stored scan is gone.", code="scan_missing") from None
        yield [InputFile(folder / stored, name) for stored, name in sorted(names.items())]

    def keep_result(self, job_id: str, attempt: int, body: bytes) -> StoredFile:
        """Write a result durably, under a name that no other attempt of the job uses.

        Raises
        ------
        StorageFull
            The disk has no room; nothing is left of the try.
        """
        return self.keep_file(job_id, f"{attempt}-{uuid.uuid4().hex[:8]}-{_RESULT_FILE}", body)

    def keep_file(self, job_id: str, name: str, body: bytes) -> StoredFile:
        """Write a file beside the results, as durably.

        Raises
        ------
        StorageFull
            As `keep_result`.
        """
        folder = self._results / job_id
        with full_disk_refused():
            folder.mkdir(mode=0o700, exist_ok=True)
            _force(self._results)
            partial = folder / f".{name}"
            try:
                _write_durably(partial, body)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            partial.rename(folder / name)
            _force(folder)
        return StoredFile(name, hashlib.sha256(body).hexdigest(), len(body))

    def result(self, job_id: str, file: StoredFile) -> bytes:
        """A result as it was written.

        Raises
        ------
        StoreDamaged
            It is missing, or its sha256 is another.
        """
        try:
            body = (self._results / job_id / file.name).read_bytes()
        except FileNotFoundError:
            raise StoreDamaged("The stored result is gone.", code="result_missing") from None
        if hashlib.sha256(body).hexdigest() != file.sha256:
            raise StoreDamaged("The stored result is not what was written.", code="result_damaged")
        return body

    def keep_context(self, job_id: str, body: bytes) -> None:
        """Make a job's clinical context durable beside its results, with which it is erased.

        Raises
        ------
        StorageFull
            The disk has no room.
        """
        folder = self._results / job_id
        with full_disk_refused():
            folder.mkdir(mode=0o700, exist_ok=True)
            _force(self._results)
            partial = folder / f".{_CONTEXT_FILE}"
            _write_durably(partial, body)
            partial.rename(folder / _CONTEXT_FILE)
            _force(folder)

    def context(self, job_id: str, sha256: str) -> bytes:
        """A job's clinical context as it was told.

        Raises
        ------
        StoreDamaged
            It is missing, or its sha256 is another.
        """
        try:
            body = (self._results / job_id / _CONTEXT_FILE).read_bytes()
        except FileNotFoundError:
            raise StoreDamaged("The stored clinical context is gone.", code="context_missing") from None
        if hashlib.sha256(body).hexdigest() != sha256:
            raise StoreDamaged("The stored clinical context is not what was written.", code="context_damaged")
        return body

    def erase_scan(self, scan_id: str) -> Erased:
        """Remove a scan; nothing happens where it is gone."""
        return _erased(self._scans / scan_id)

    def erase_results(self, job_id: str) -> Erased:
        """Remove the results of a job; nothing happens where there are none."""
        return _erased(self._results / job_id)

    def erase_result(self, job_id: str, file: StoredFile) -> None:
        """Remove one result that did not become the job's."""
        (self._results / job_id / file.name).unlink(missing_ok=True)

    def left_of(self, job_id: str, scan_id: str | None) -> int:
        """How many files there are of a job and its scan."""
        folders = [self._results / job_id] + ([self._scans / scan_id] if scan_id else [])
        return sum(1 for folder in folders for path in folder.rglob("*") if path.is_file())

    def scan_ids(self) -> list[str]:
        """Scans that have a folder."""
        return [path.name for path in self._scans.iterdir()]

    def result_ids(self) -> list[str]:
        """Jobs that have a folder of results."""
        return [path.name for path in self._results.iterdir()]

    def age_s(self, now: float, *, scan_id: str | None = None, job_id: str | None = None) -> float:
        """Seconds since a scan's or a job's folder was last changed; 0 where it is gone."""
        folder = self._scans / scan_id if scan_id else self._results / (job_id or "")
        with suppress(FileNotFoundError):
            return now - folder.stat().st_mtime
        return 0.0

    @property
    def _scans(self) -> Path:
        return self.root / "scans"

    @property
    def _results(self) -> Path:
        return self.root / "results"


def _write_durably(path: Path, body: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(body)
        stream.flush()
        os.fsync(stream.fileno())


def _force(path: Path) -> None:
    """Force to the disk the content of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _erased(folder: Path) -> Erased:
    found = list(_files(folder))
    size = sum(path.stat().st_size for path in found)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir():
        _force(folder.parent)
    return Erased(len(found), size)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
