"""How one upload with several scans becomes several jobs: all of them, in one transaction, or none.

Each scan is stored by itself, not the upload as it came. So erasing one patient's job removes that patient's images
though the others of the batch stay, what cannot be analysed is not kept at all, a series is known again however it
was packed, and a worker reads no more than its own series.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.disk_faults import full_disk_refused
from app.imaging.acceptance import Notice, RejectedSeries, SeriesSummary
from app.imaging.errors import LungNoduleError, UploadTooLarge
from app.imaging.inputs import InputFile
from app.imaging.read_options import ReadOptions
from app.imaging.upload_contents import UploadContents, find_scans, lay_out
from app.jobs.database import Database
from app.jobs.intake import (
    RACES,
    Admission,
    Intake,
    Request,
    digest_of,
    insert_job,
    key_digest,
    tenants_own,
    work_digest,
)
from app.jobs.queue import Ticket
from app.jobs.records import DatabaseUnavailable, IdempotencyMismatch, StoredFile, StoreUnavailable
from app.jobs.rows import add_audit, new_id
from app.jobs.store import content_digest
from app.jobs.tables import batch_jobs, batches


@dataclass(frozen=True)
class _Entry:
    """A job that is to be."""

    job_id: str
    series: SeriesSummary
    admission: Admission
    work: str
    answer: tuple[str, StoredFile] | None


@dataclass
class _Draft:
    """What was stored for a batch that is not written down yet."""

    entries: list[_Entry] = field(default_factory=list)
    rejected: list[RejectedSeries] = field(default_factory=list)
    kept_scans: list[str] = field(default_factory=list)


class _OutrunError(Exception):
    """A scan that was there is being erased."""


@dataclass(frozen=True)
class BatchIntake:
    """The way in for many. Blocking, and longer than for one: headers are read here.

    Parameters
    ----------
    intake
        Of single jobs, on the same database and store.
    max_jobs
        Most jobs of one batch.
    """

    intake: Intake
    max_jobs: int

    @property
    def database(self) -> Database:
        """Of the ledger."""
        return self.intake.database

    def accept(self, folder: Path, files: Sequence[InputFile], request: Request, options: ReadOptions) -> str:
        """Make a job of each scan of an upload that can be analysed; gives the id of the batch.

        Returns once everything outlives the power. Of a batch that is refused nothing is left.

        Parameters
        ----------
        folder
            In the store's ``incoming``, with nothing in it but ``files``; the caller removes it.
        request
            Its order is that of each job.
        options
            Limits and repairs for reading headers.

        Raises
        ------
        ScanError
            As `find_scans`; ``too_many_series`` for more than ``max_jobs``.
        IdempotencyMismatch
            The key came before, with another upload or other options.
        QueueFull, StorageFull, StoreUnavailable, DatabaseUnavailable
            Nothing was taken in.
        """
        digest, size = content_digest(files)
        fingerprint = digest_of([digest, request.compared])
        if (known := self._batch_of_key(request, fingerprint)) is not None:
            return known
        with full_disk_refused():
            scratch = folder / "inflated"
            scratch.mkdir()
            contents = find_scans(files, scratch, options)
        self._refuse_too_many(len(contents.scans))
        for _ in range(RACES):
            if (known := self._batch_of_key(request, fingerprint)) is not None:
                return known
            self.intake.refuse_when_full(len(contents.scans))
            draft = self._stored(folder, contents, request)
            batch_id = self._written_down(draft, contents, request, fingerprint, size)
            if batch_id is not None:
                return batch_id
        raise DatabaseUnavailable("Too many requests for the same scans at once. Try again.", code="contention")

    def _refuse_too_many(self, found: int) -> None:
        limit = min(self.max_jobs, self.intake.max_queued)  # more would wait for ever for room
        if found > limit:
            raise UploadTooLarge(
                f"The upload holds {found} series to analyse; at most {limit} make a batch. Send fewer.",
                code="too_many_series",
                values={"series": found, "max_batch_jobs": limit},
            )

    def _stored(self, folder: Path, contents: UploadContents, request: Request) -> _Draft:
        """Keep every scan that is not there yet, and copy every answer that is."""
        draft = _Draft()
        laid = folder / "scan"
        try:
            for scan in contents.scans:
                with full_disk_refused():
                    laid.mkdir()
                    digest, size = content_digest(files := lay_out(scan.files, laid))
                    digest = tenants_own(digest, request.who.tenant)
                if any(entry.admission.digest == digest for entry in draft.entries):
                    draft.rejected.append(_repeated(scan.summary, scan.files[0].index))
                else:
                    scan_id = self.intake.live_scan(digest)
                    admission = Admission(
                        replace(request, idempotency_key=None), "", scan_id or new_id(), digest, size, scan_id is None
                    )
                    if admission.is_new_scan:
                        draft.kept_scans.append(admission.scan_id)
                        self.intake.store.keep_scan(admission.scan_id, laid, files)
                    draft.entries.append(self._entry(scan.summary, admission))
                shutil.rmtree(laid, ignore_errors=True)
        except (LungNoduleError, OSError):
            self._undo(draft)
            raise
        return draft

    def _entry(self, series: SeriesSummary, admission: Admission) -> _Entry:
        job_id, work = new_id(), work_digest(admission.digest, admission.request.order)
        return _Entry(job_id, series, admission, work, self.intake.copied_answer(work, job_id, 0))

    def _written_down(
        self, draft: _Draft, contents: UploadContents, request: Request, fingerprint: str, size: int
    ) -> str | None:
        """All rows in one transaction; None, and nothing left, where somebody was faster with a scan or the key.

        Where the database is lost in the middle it may have been written, so what was stored is left to the sweep.
        """
        batch_id = new_id()
        rejected = (*contents.rejected, *draft.rejected)
        left_out = {
            "rejected": [asdict(one) for one in rejected],
            "ignored": [asdict(one) for one in contents.ignored],
            "files_received": contents.files_received,
        }
        key = request.idempotency_key
        try:
            with self.database.transaction() as connection:
                at = self.database.now(connection)
                self._hold_scans(connection, draft, at)
                connection.execute(
                    sa.insert(batches).values(
                        id=batch_id, key_sha256=key_digest(key, request.who.tenant) if key else None,
                        fingerprint=fingerprint, created_at=at, jobs=len(draft.entries), left_out=left_out,
                        tenant=request.who.tenant,
                    )
                )  # fmt: skip
                for place, entry in enumerate(draft.entries):
                    self._insert(connection, batch_id, place, entry, at)
                counts = {"jobs": len(draft.entries), "rejected": len(rejected)}
                add_audit(connection, at, request.who, "batch.create", None, batch=batch_id, bytes=size, **counts)
        except (IntegrityError, _OutrunError):
            self._undo(draft)
            return None
        return batch_id

    def _hold_scans(self, connection: sa.Connection, draft: _Draft, at: float) -> None:
        # In one order for all, or two batches with the same scans would wait for each other.
        for entry in sorted(draft.entries, key=lambda entry: entry.admission.digest):
            if not self.intake.hold_scan(connection, entry.admission, at):
                raise _OutrunError

    def _insert(self, connection: sa.Connection, batch_id: str, place: int, entry: _Entry, at: float) -> None:
        insert_job(connection, entry.job_id, entry.admission, entry.work, at, entry.answer)
        connection.execute(
            sa.insert(batch_jobs).values(
                job_id=entry.job_id, batch_id=batch_id, place=place, series=asdict(entry.series)
            )
        )
        if entry.answer is None:
            self.intake.queue.submit(connection, Ticket(entry.job_id, 1))

    def _undo(self, draft: _Draft) -> None:
        with suppress(StoreUnavailable):  # then the sweep removes it
            for scan_id in draft.kept_scans:
                self.intake.store.erase_scan(scan_id)
            for entry in draft.entries:
                if entry.answer is not None:
                    self.intake.store.erase_results(entry.job_id)

    def _batch_of_key(self, request: Request, fingerprint: str) -> str | None:
        if request.idempotency_key is None:
            return None
        key = key_digest(request.idempotency_key, request.who.tenant)
        with self.database.reading() as connection:
            found = connection.execute(sa.select(batches).where(batches.c.key_sha256 == key)).one_or_none()
        if found is None:
            return None
        if found.fingerprint != fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key came before with another upload or other options.")
        return str(found.id)


def _repeated(series: SeriesSummary, file: int) -> RejectedSeries:
    notice = Notice("repeated", "The same content came before in this upload and has its job.", {"file": file})
    return RejectedSeries(series, (notice,))
