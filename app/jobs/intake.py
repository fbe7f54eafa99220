"""How a scan becomes a job: stored, known again by its content, and put in line in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.imaging.inputs import InputFile
from app.jobs.database import Database
from app.jobs.ledger import WAITING_STAGE, present_job
from app.jobs.queue import JobQueue, Ticket
from app.jobs.records import (
    DatabaseUnavailable,
    IdempotencyMismatch,
    JobErased,
    Order,
    QueueFull,
    State,
    StoreDamaged,
    StoredFile,
)
from app.jobs.rows import Row, Who, add_audit, add_event, add_notice, as_json, new_id
from app.jobs.store import Store, content_digest
from app.jobs.tables import idempotency_keys, jobs, scans

_RACES = 5
"""Tries when others store the same scan or use the same key at the same moment."""


@dataclass(frozen=True)
class Request:
    """What a client asked for, beside the scan."""

    order: Order
    who: Who
    idempotency_key: str | None = None
    retry_of: str | None = None


@dataclass(frozen=True)
class _Admission:
    """A request with what was found out about it."""

    request: Request
    fingerprint: str
    scan_id: str
    digest: str
    size: int
    is_new_scan: bool


@dataclass(frozen=True)
class Intake:
    """The way in. Blocking: the API calls it from a thread.

    Parameters
    ----------
    database, queue, store
        Of the installation.
    max_queued
        Jobs that may wait.
    """

    database: Database
    queue: JobQueue
    store: Store
    max_queued: int

    def accept(self, folder: Path, files: Sequence[InputFile], request: Request) -> str:
        """Store a received scan and make its job; gives the job's id once both outlive the power.

        Parameters
        ----------
        folder
            In the store's ``incoming``, with nothing in it but ``files``.

        Raises
        ------
        IdempotencyMismatch
            The key came before, with another scan or other options.
        QueueFull
            As many jobs wait as may.
        StorageFull, DatabaseUnavailable
            Nothing was taken in.
        """
        digest, size = content_digest(files)
        fingerprint = _sha256([digest, as_json(request.order)])
        for _ in range(_RACES):
            if (known := self._job_of_key(request.idempotency_key, fingerprint)) is not None:
                return known
            self.refuse_when_full()
            scan_id = self._live_scan(digest)
            admission = _Admission(request, fingerprint, scan_id or new_id(), digest, size, scan_id is None)
            if admission.is_new_scan:
                self.store.keep_scan(admission.scan_id, folder, files)
            job_id = self._admit(admission)
            if job_id is not None:
                return job_id
            if admission.is_new_scan:
                self.store.take_back(admission.scan_id, folder)
        raise DatabaseUnavailable("Too many requests for the same scan at once. Try again.", code="contention")

    def again(self, job_id: str, request: Request) -> str:
        """Make a job of the scan of another one.

        Raises
        ------
        UnknownJob, JobErased
            There is no such job, or no longer.
        QueueFull, IdempotencyMismatch, DatabaseUnavailable
            As `accept`.
        """
        for _ in range(_RACES):
            with self.database.transaction() as connection:
                source = present_job(self.database, connection, job_id)
                scan = connection.execute(sa.select(scans).where(scans.c.id == source["scan_id"])).mappings().one()
            fingerprint = _sha256([scan["digest"], as_json(request.order), job_id])
            if (known := self._job_of_key(request.idempotency_key, fingerprint)) is not None:
                return known
            self.refuse_when_full()
            admission = _Admission(request, fingerprint, scan["id"], scan["digest"], scan["size"], is_new_scan=False)
            made = self._admit(admission)
            if made is not None:
                return made
        raise JobErased("The data of this job were erased.")

    def refuse_when_full(self) -> None:
        """Before a body is read, too.

        Raises
        ------
        QueueFull
            As many jobs wait as may.
        """
        with self.database.reading() as connection:
            waiting = connection.execute(
                sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == State.QUEUED)
            ).scalar_one()
        if waiting >= self.max_queued:
            raise QueueFull(
                f"{waiting} jobs wait, as many as may. Try again later.",
                values={"waiting": waiting, "limit": self.max_queued, "retry_after_s": 60},
            )

    def job_of_key(self, key: str) -> str | None:
        """The job that came with this Idempotency-Key; None where none did, or it is erased."""
        with self.database.reading() as connection:
            query = sa.select(idempotency_keys.c.job_id).where(idempotency_keys.c.key_sha256 == _sha256(key))
            return connection.execute(query).scalar_one_or_none()

    def stored_answer(self, connection: sa.Connection, work_digest: str) -> Row | None:
        """The newest job that did the same work and whose result is still there."""
        return (
            connection.execute(
                sa.select(jobs)
                .where(jobs.c.work_digest == work_digest, jobs.c.state == State.SUCCEEDED)
                .order_by(jobs.c.finished_at.desc())
                .limit(1)
            )
            .mappings()
            .one_or_none()
        )

    def copied_answer(self, work_digest: str, job_id: str, attempt: int) -> tuple[str, StoredFile] | None:
        """A copy of the stored answer for another job, with the id of the job that it is from."""
        with self.database.reading() as connection:
            source = self.stored_answer(connection, work_digest)
        if source is None:
            return None
        kept = StoredFile(source["result_name"], source["result_sha256"], source["result_size"])
        try:
            body = self.store.result(source["id"], kept)
        except StoreDamaged:  # erased at this moment, or damaged: then it is analysed
            return None
        return source["answered_from"] or source["id"], self.store.keep_result(job_id, attempt, body)

    def _admit(self, admission: _Admission) -> str | None:
        """Write it all down; None where somebody was faster with the same scan or the same key."""
        job_id = new_id()
        work = work_digest(admission.digest, admission.request.order)
        answer = self.copied_answer(work, job_id, 0)
        try:
            with self.database.transaction() as connection:
                at = self.database.now(connection)
                if not self._hold_scan(connection, admission, at):
                    return None
                _insert_job(connection, job_id, admission, work, at, answer)
                self._insert_key(connection, job_id, admission, at)
                if answer is None:
                    self.queue.submit(connection, Ticket(job_id, 1))
        except IntegrityError:
            return None
        return job_id

    def _hold_scan(self, connection: sa.Connection, admission: _Admission, at: float) -> bool:
        if admission.is_new_scan:
            connection.execute(
                sa.insert(scans).values(
                    id=admission.scan_id, digest=admission.digest, size=admission.size, created_at=at
                )
            )
            return True
        query = sa.select(scans.c.id).where(scans.c.id == admission.scan_id, scans.c.erased_at.is_(None))
        return connection.execute(self.database.locked_row(query)).one_or_none() is not None

    def _insert_key(self, connection: sa.Connection, job_id: str, admission: _Admission, at: float) -> None:
        if (key := admission.request.idempotency_key) is not None:
            connection.execute(
                sa.insert(idempotency_keys).values(
                    key_sha256=_sha256(key), fingerprint=admission.fingerprint, job_id=job_id, created_at=at
                )
            )

    def _job_of_key(self, key: str | None, fingerprint: str) -> str | None:
        if key is None:
            return None
        with self.database.reading() as connection:
            found = connection.execute(
                sa.select(idempotency_keys).where(idempotency_keys.c.key_sha256 == _sha256(key))
            ).one_or_none()
        if found is None:
            return None
        if found.fingerprint != fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key came before with another scan or other options.")
        return str(found.job_id)

    def _live_scan(self, digest: str) -> str | None:
        with self.database.reading() as connection:
            return connection.execute(sa.select(scans.c.id).where(scans.c.digest == digest)).scalar_one_or_none()


def work_digest(scan_digest: str, order: Order) -> str:
    """The same for two jobs that must give the same answer: content, model, options and version of the program."""
    asked = as_json(order)
    del asked["notify"]
    return _sha256([scan_digest, asked, version("lungnodule")])


def _insert_job(
    connection: sa.Connection,
    job_id: str,
    admission: _Admission,
    work: str,
    at: float,
    answer: tuple[str, StoredFile] | None,
) -> None:
    order, request = admission.request.order, admission.request
    values = {
        "id": job_id, "state": State.QUEUED, "scan_id": admission.scan_id, "ticket": 1, "attempt": 0, "created_at": at,
        "updated_at": at, "model": order.model, "work_digest": work, "order": as_json(order), "stage": WAITING_STAGE,
        "fraction": 0.0, "stages_s": {}, "retry_of": request.retry_of, "last_event": 0,
    }  # fmt: skip
    if answer is not None:
        source, kept = answer
        values |= {
            "state": State.SUCCEEDED, "ticket": 0, "finished_at": at, "stage": "done", "fraction": 1.0,
            "result_name": kept.name, "result_sha256": kept.sha256, "result_size": kept.size, "answered_from": source,
        }  # fmt: skip
    connection.execute(sa.insert(jobs).values(values))
    add_event(connection, job_id, at, State.QUEUED, {})
    if answer is not None:
        add_event(connection, job_id, at, State.SUCCEEDED, {"answered_from": answer[0]})
        add_notice(connection, job_id, order, at, State.SUCCEEDED)
    action = "job.retry" if request.retry_of else "job.create"
    add_audit(connection, at, request.who, action, job_id, bytes=admission.size, model=order.model)


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
