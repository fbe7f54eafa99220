"""The port to where scans and results are kept: `app.jobs.folder_store` is one on disk, `app.jobs.object_store` in S3.

Whatever `keep_scan` and `keep_result` have returned from outlives the power, and is read whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.imaging.inputs import InputFile
from app.jobs.records import StoredFile


@dataclass(frozen=True)
class Erased:
    """What an erasure removed."""

    files: int
    size: int


class Store(Protocol):
    """What the jobs need of a place to keep things in.

    Every method may raise `StoreUnavailable`: the place does not answer, or does not let us in. It then says nothing
    about what is there.
    """

    @property
    def incoming(self) -> Path:
        """Folder on this machine where uploads are received, each in a folder of its own."""

    def prepare(self) -> None:
        """Make what has to be there before anything is kept, and find out whether anything can be."""

    def keep_scan(self, scan_id: str, received: Path, files: Sequence[InputFile]) -> None:
        """Make received files durable under the scan's id; afterwards they are there whatever happens.

        Parameters
        ----------
        scan_id
            New.
        received
            A folder in ``incoming`` with nothing in it but ``files``.

        Raises
        ------
        StorageFull
            No room.
        """

    def take_back(self, scan_id: str, received: Path) -> None:
        """Undo `keep_scan`, for a scan that is not needed after all: the files are in ``received`` as before."""

    def scan(self, scan_id: str) -> AbstractContextManager[list[InputFile]]:
        """The files of a scan on this machine's disk, with the names their sender gave them, until the context ends.

        Raises
        ------
        StoreDamaged
            They are gone, or not what was kept.
        StorageFull
            No room on this machine's disk.
        """

    def keep_result(self, job_id: str, attempt: int, body: bytes) -> StoredFile:
        """Write a result durably, under a name that no other attempt of the job uses.

        Raises
        ------
        StorageFull
            No room; nothing is left of the try.
        """

    def result(self, job_id: str, file: StoredFile) -> bytes:
        """A result as it was written.

        Raises
        ------
        StoreDamaged
            It is missing, or its sha256 is another.
        """

    def keep_context(self, job_id: str, body: bytes) -> None:
        """Make a job's clinical context durable beside its results, with which it is erased.

        Raises
        ------
        StorageFull
            The disk has no room.
        """

    def context(self, job_id: str, sha256: str) -> bytes:
        """A job's clinical context as it was told.

        Raises
        ------
        StoreDamaged
            It is missing, or its sha256 is another.
        """

    def keep_file(self, job_id: str, name: str, body: bytes) -> StoredFile:
        """Write a file durably beside the results, with which it is erased; `result` reads it.

        Parameters
        ----------
        job_id
            Whose it is.
        name
            New, and nothing of the patient.
        body
            What to write.

        Raises
        ------
        StorageFull
            No room.
        """

    def erase_scan(self, scan_id: str) -> Erased:
        """Remove a scan; nothing happens where it is gone."""

    def erase_results(self, job_id: str) -> Erased:
        """Remove the results of a job; nothing happens where there are none."""

    def erase_result(self, job_id: str, file: StoredFile) -> None:
        """Remove one result that did not become the job's."""

    def left_of(self, job_id: str, scan_id: str | None) -> int:
        """How many files there are of a job and its scan, looked at anew."""

    def scan_ids(self) -> list[str]:
        """Scans of which there is anything, whole or not."""

    def result_ids(self) -> list[str]:
        """Jobs of which there is a result."""

    def age_s(self, now: float, *, scan_id: str | None = None, job_id: str | None = None) -> float:
        """Seconds since a scan or the results of a job were last written to; 0 where there are none."""


def content_digest(files: Sequence[InputFile]) -> tuple[str, int]:
    """sha256 over the sorted sha256 of each file, and the bytes of all: the same whatever order and names were used."""
    each = sorted(_file_sha256(file.path) for file in files)
    size = sum(file.path.stat().st_size for file in files)
    return hashlib.sha256("\n".join(each).encode()).hexdigest(), size


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
