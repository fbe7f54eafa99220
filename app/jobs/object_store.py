"""The store in a bucket: API and workers on several machines share no file system.

A scan is a row of parts and a manifest. The manifest is written last and readers believe nothing else, so a scan is
there whole or not at all. Parts hold the files end to end: a series of hundreds of slices takes tens of requests, each
part is one atomic request, and a process that is killed leaves no half-done transfer that a listing would not show.

A marker lies beside them and names the installation. Where something is missing and our marker too, it is the bucket
that is gone, or another one, and nothing is said about the scan. Where the marker is another's, the start is refused:
the sweep would take the other's scans for leftovers.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.disk_faults import full_disk_refused
from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.jobs.objects import Bucket, open_s3
from app.jobs.records import StoreDamaged, StoredFile, StoreUnavailable
from app.jobs.store import Erased
from app.upload_folders import process_folder

PART_BYTES = 8 << 20
"""Each transfer holds a few parts in memory."""
_AT_ONCE = 4
_MARKER = "lungnodule-store.json"
_MANIFEST = "manifest.json"
_CONTEXT = "context.json"


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Marker(_Stored):
    """Whose store it is."""

    format: Literal[1] = 1
    installation: str


class FileEntry(_Stored):
    """One file of a scan: its bytes follow those of the file before."""

    name: str | None
    """The sender's."""
    size: int = Field(ge=0)


class PartEntry(_Stored):
    """One object that holds bytes of the scan."""

    size: int = Field(gt=0)
    sha256: str


class ScanManifest(_Stored):
    """Says that a scan is whole, and how to put it together."""

    format: Literal[1] = 1
    files: list[FileEntry]
    parts: list[PartEntry]


@dataclass(frozen=True)
class ObjectStore:
    """`app.jobs.store.Store` in objects ``scans/<scan id>/`` and ``results/<job id>/`` below a prefix.

    Parameters
    ----------
    bucket
        Where they are.
    incoming
        Folder of this machine where uploads are received.
    scratch
        Folder of this process where scans lie while they are analysed.
    installation
        Name of the installation, the same for all of its processes.
    """

    bucket: Bucket
    incoming: Path
    scratch: Path
    installation: str

    def prepare(self) -> None:
        """Leave the marker, and try what will have to be done: write, read, list and remove.

        Raises
        ------
        OptionError
            ``store_of_another``: the marker is that of another installation.
        StoreUnavailable
            Something cannot be done.
        """
        self.incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = f"probes/{uuid.uuid4().hex}"
        owner = self._owner()
        if owner not in (None, self.installation):
            raise OptionError(
                "What LUNGNODULE_STORE_URL names is the store of another database. Name another prefix, or the "
                "database that belongs to it.",
                code="store_of_another",
            )
        marker = Marker(installation=self.installation).model_dump_json().encode()
        self.bucket.put({_MARKER: marker, probe: b"probe"})
        self._refuse_when_away()
        if not self._erased(probe).files:
            raise StoreUnavailable(
                "The object store does not let itself be erased in; without that right nothing may be kept there.",
                code="store_denied",
            )

    def keep_scan(self, scan_id: str, received: Path, files: Sequence[InputFile]) -> None:  # noqa: ARG002
        """Send the parts, then the manifest; what was received stays where it is."""
        parts: list[PartEntry] = []
        pieces = _pieces(files)
        try:
            while group := list(islice(pieces, _AT_ONCE)):
                first = len(parts)
                self.bucket.put({_part(scan_id, first + number): piece for number, piece in enumerate(group)})
                parts += [PartEntry(size=len(piece), sha256=hashlib.sha256(piece).hexdigest()) for piece in group]
            entries = [FileEntry(name=file.name, size=file.path.stat().st_size) for file in files]
            manifest = ScanManifest(files=entries, parts=parts).model_dump_json().encode()
            self.bucket.put({f"scans/{scan_id}/{_MANIFEST}": manifest})
        except (StoreUnavailable, OSError):
            with suppress(StoreUnavailable):  # then the sweep removes it
                self.erase_scan(scan_id)
            raise

    def take_back(self, scan_id: str, received: Path) -> None:  # noqa: ARG002
        """Remove it again; what was received is still there."""
        self.erase_scan(scan_id)

    @contextmanager
    def scan(self, scan_id: str) -> Iterator[list[InputFile]]:
        """Fetch a scan into a folder of its own, each part verified by its sha256; the folder goes with the context.

        Raises
        ------
        StoreDamaged
            ``scan_missing`` or ``scan_damaged``.
        StorageFull
            No room on this machine's disk.
        """
        manifest = self._manifest(scan_id)
        with full_disk_refused():
            folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            with full_disk_refused():
                files = _written(folder, manifest.files, self._parts(scan_id, manifest.parts))
            yield files
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep_result(self, job_id: str, attempt: int, body: bytes) -> StoredFile:
        """Write a result as one object."""
        return self.keep_file(job_id, f"{attempt}-{uuid.uuid4().hex[:8]}-result.json", body)

    def keep_file(self, job_id: str, name: str, body: bytes) -> StoredFile:
        """Write one object beside the results."""
        self.bucket.put({f"results/{job_id}/{name}": body})
        return StoredFile(name, hashlib.sha256(body).hexdigest(), len(body))

    def result(self, job_id: str, file: StoredFile) -> bytes:
        """A result as it was written, verified by its sha256."""
        return self._verified(f"results/{job_id}/{file.name}", file.sha256, "result")

    def keep_context(self, job_id: str, body: bytes) -> None:
        """Write a job's clinical context as one object beside its results, with which it is erased."""
        self.bucket.put({f"results/{job_id}/{_CONTEXT}": body})

    def context(self, job_id: str, sha256: str) -> bytes:
        """A job's clinical context as it was told, verified by its sha256."""
        return self._verified(f"results/{job_id}/{_CONTEXT}", sha256, "context")

    def erase_scan(self, scan_id: str) -> Erased:
        """Remove every object of a scan."""
        return self._erased(f"scans/{scan_id}")

    def erase_results(self, job_id: str) -> Erased:
        """Remove every object of a job's results."""
        return self._erased(f"results/{job_id}")

    def erase_result(self, job_id: str, file: StoredFile) -> None:
        """Remove one result."""
        self.bucket.remove([f"results/{job_id}/{file.name}"])

    def left_of(self, job_id: str, scan_id: str | None) -> int:
        """How many objects there are of a job and its scan, in a bucket that is known to be ours."""
        self._refuse_when_away()
        folders = [f"results/{job_id}"] + ([f"scans/{scan_id}"] if scan_id else [])
        return sum(len(self.bucket.objects(folder)) for folder in folders)

    def scan_ids(self) -> list[str]:
        """Scans of which there is any object."""
        return self.bucket.folders("scans")

    def result_ids(self) -> list[str]:
        """Jobs of which there is a result."""
        return self.bucket.folders("results")

    def age_s(self, now: float, *, scan_id: str | None = None, job_id: str | None = None) -> float:
        """Seconds since the newest object was written, by the clocks of both sides."""
        found = self.bucket.objects(f"scans/{scan_id}" if scan_id else f"results/{job_id}")
        return now - max(one.modified_at for one in found) if found else 0.0

    def _verified(self, key: str, sha256: str, what: str) -> bytes:
        try:
            (body,) = self.bucket.get([key]).values()
        except FileNotFoundError:
            self._refuse_when_away()
            raise StoreDamaged(f"The stored {what} is gone.", code=f"{what}_missing") from None
        if hashlib.sha256(body).hexdigest() != sha256:
            raise StoreDamaged(f"The stored {what} is not what was written.", code=f"{what}_damaged")
        return body

    def _erased(self, folder: str) -> Erased:
        found = self.bucket.objects(folder)
        self.bucket.remove(one.key for one in found)
        left = self.bucket.objects(folder) if found else []
        return Erased(len(found) - len(left), sum(one.size for one in found) - sum(one.size for one in left))

    def _manifest(self, scan_id: str) -> ScanManifest:
        try:
            (stored,) = self.bucket.get([f"scans/{scan_id}/{_MANIFEST}"]).values()
        except FileNotFoundError:
            self._refuse_when_away()
            raise StoreDamaged("The stored scan is gone.", code="scan_missing") from None
        try:
            return ScanManifest.model_validate_json(stored)
        except ValidationError:
            # Not chained: the cause quotes the sender's file names.
            pass
        raise StoreDamaged("The manifest of the stored scan is damaged.", code="scan_damaged")

    def _parts(self, scan_id: str, parts: Sequence[PartEntry]) -> Iterator[bytes]:
        for first in range(0, len(parts), _AT_ONCE):
            group = parts[first : first + _AT_ONCE]
            wanted = {_part(scan_id, first + number): part for number, part in enumerate(group)}
            try:
                found = self.bucket.get(wanted)
            except FileNotFoundError:
                self._refuse_when_away()
                raise StoreDamaged("A part of the stored scan is gone.", code="scan_missing") from None
            for key, part in wanted.items():
                if hashlib.sha256(found[key]).hexdigest() != part.sha256:
                    raise StoreDamaged("The stored scan is not what was written.", code="scan_damaged")
                yield found[key]

    def _owner(self) -> str | None:
        """Whom the marker names; empty for one that cannot be read, None where there is none."""
        try:
            (stored,) = self.bucket.get([_MARKER]).values()
            return Marker.model_validate_json(stored).installation
        except FileNotFoundError:
            return None
        except ValidationError:
            return ""

    def _refuse_when_away(self) -> None:
        """Raise unless our marker is there.

        Raises
        ------
        StoreUnavailable
        """
        if self._owner() != self.installation:
            raise StoreUnavailable(
                "The object store is there, but not what was kept in it. Whoever runs the service must look at "
                "LUNGNODULE_STORE_URL and its bucket.",
                code="store_missing",
                values={"retry_after_s": 60},
            )


@contextmanager
def open_object_store(url: str, data_dir: Path, installation: str) -> Iterator[ObjectStore]:
    """The store at ``s3://bucket/prefix``, with folders for what passes through this machine under ``data_dir``.

    Raises
    ------
    OptionError, StoreUnavailable
        As `open_s3` and `ObjectStore.prepare`.
    """
    fetched = data_dir / "fetched"
    fetched.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What a killed worker had fetched goes when the next process starts.
    with process_folder(fetched) as scratch:
        store = ObjectStore(open_s3(url), data_dir / "incoming", scratch, installation)
        store.prepare()
        yield store


def _part(scan_id: str, number: int) -> str:
    return f"scans/{scan_id}/{number:06d}"


def _pieces(files: Iterable[InputFile]) -> Iterator[bytes]:
    """The bytes of all files end to end, in pieces of `PART_BYTES`."""
    piece = bytearray()
    for file in files:
        with file.path.open("rb") as stream:
            while chunk := stream.read(PART_BYTES - len(piece)):
                piece += chunk
                if len(piece) == PART_BYTES:
                    yield bytes(piece)
                    piece.clear()
    if piece:
        yield bytes(piece)


def _written(folder: Path, entries: Sequence[FileEntry], parts: Iterator[bytes]) -> list[InputFile]:
    """Cut the row of parts into files again.

    Raises
    ------
    StoreDamaged
        The parts hold more or less than the files.
    """
    files: list[InputFile] = []
    unwritten = memoryview(b"")
    for number, entry in enumerate(entries):
        file = InputFile(folder / f"{number:06d}", entry.name)
        missing = entry.size
        with file.path.open("xb") as stream:
            while missing and (unwritten := unwritten or memoryview(next(parts, b""))):
                count = min(missing, len(unwritten))
                stream.write(unwritten[:count])
                missing, unwritten = missing - count, unwritten[count:]
        if missing:
            raise StoreDamaged("The stored scan is shorter than it was.", code="scan_damaged")
        files.append(file)
    if unwritten or any(parts):
        raise StoreDamaged("The stored scan is longer than it was.", code="scan_damaged")
    return files
