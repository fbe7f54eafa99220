"""How a scan becomes a job: stored, known again by its content, and put in line in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.identity import DEFAULT_TENANT
from app.imaging.inputs import InputFile
from app.jobs.database import Database
from app.jobs.identities import Identities
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
from app.reporting import bundle

RACES = 5
"""Tries when others store the same scan or use the same key at the same moment."""


@dataclass(frozen=True)
class Request:
    """What a client asked for, beside the scan."""

    order: Order
    who: Who
    idempotency_key: str | None = None
    retry_of: str | None = None
    context: bytes | None = None
    """Clinical context, whose sha256 the order holds."""
    asked: Mapping[str, Any] | None = None
    """The options as they were sent. With the same key they are the same job, though what they leave open may mean
    another model by now; None compares the order."""
    traceparent: str | None = None
    """The span that the job's own will be linked to."""
    identity: bytes | None = field(default=None, repr=False)
    """Whose scan it was before it was de-identified."""

    @property
    def compared(self) -> dict[str, Any]:
        """What must be the same for the same Idempotency-Key, beside the content."""
        return as_json(self.order) if self.asked is None else dict(self.asked)


@dataclass(frozen=True)
class Admission:
    """A request with what was found out about its scan."""

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
    identities
        Where it is kept whose a de-identified scan was.
    """

    database: Database
    queue: JobQueue
    store: Store
    max_queued: int
    identities: Identities

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
        digest = tenants_own(digest, request.who.tenant)
        fingerprint = digest_of([digest, request.compared])
        for _ in range(RACES):
            if (known := self._job_of_key(request, fingerprint)) is not None:
                return known
            self.refuse_when_full()
            scan_id = self.live_scan(digest)
            admission = Admission(request, fingerprint, scan_id or new_id(), digest, size, scan_id is None)
            if admission.is_new_scan:
                self.store.keep_scan(admission.scan_id, folder, files)
            job_id = self._admit(admission)
            if job_id is not None:
                return job_id
            if admission.is_new_scan:
                self.store.take_back(admission.scan_id, folder)
        raise DatabaseUnavailable("Too many requests for the same scan at once. Try again.", code="contention")

    def again(self, job_id: str, request: Request) -> str:
        """Make a job of the scan of another one; it belongs to the same tenant, whoever asks.

        Raises
        ------
        UnknownJob, JobErased
            There is no such job, or no longer.
        QueueFull, IdempotencyMismatch, DatabaseUnavailable
            As `accept`.
        """
        for _ in range(RACES):
            with self.database.transaction() as connection:
                source = present_job(self.database, connection, job_id)
                scan = connection.execute(sa.select(scans).where(scans.c.id == source["scan_id"])).mappings().one()
            asked = replace(request, who=replace(request.who, tenant=source["tenant"]))
            fingerprint = digest_of([scan["digest"], as_json(request.order), job_id])
            if (known := self._job_of_key(asked, fingerprint)) is not None:
                return known
            self.refuse_when_full()
            asked = replace(asked, identity=self.identities.of(job_id))
            admission = Admission(asked, fingerprint, scan["id"], scan["digest"], scan["size"], is_new_scan=False)
            made = self._admit(admission)
            if made is not None:
                return made
        raise JobErased("The data of this job were erased.")

    def refuse_when_full(self, more: int = 1) -> None:
        """Before a body is read, too.

        Parameters
        ----------
        more
            Jobs that are to be added.

        Raises
        ------
        QueueFull
            As many jobs wait as may.
        """
        with self.database.reading() as connection:
            waiting = connection.execute(
                sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == State.QUEUED)
            ).scalar_one()
        if waiting + more > self.max_queued:
            raise QueueFull(
                f"{waiting} jobs wait; {more} more would be over the limit of {self.max_queued}. Try again later.",
                values={"waiting": waiting, "limit": self.max_queued, "more": more, "retry_after_s": 60},
            )

    def job_of_key(self, key: str, tenant: str) -> str | None:
        """The job that came with this Idempotency-Key; None where none did, or it is erased."""
        with self.database.reading() as connection:
            query = sa.select(idempotency_keys.c.job_id).where(idempotency_keys.c.key_sha256 == key_digest(key, tenant))
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

    def _admit(self, admission: Admission) -> str | None:
        """Write it all down; None where somebody was faster with the same scan or the same key."""
        job_id = new_id()
        work = work_digest(admission.digest, admission.request.order)
        if admission.request.context is not None:
            self.store.keep_context(job_id, admission.request.context)
        if admission.request.identity is not None:
            self.identities.keep(job_id, admission.request.identity)
        answer = self.copied_answer(work, job_id, 0)
        if self._written(job_id, admission, work, answer):
            return job_id
        self.store.erase_results(job_id)
        self.identities.erase(job_id)
        return None

    def _written(self, job_id: str, admission: Admission, work: str, answer: tuple[str, StoredFile] | None) -> bool:
        try:
            with self.database.transaction() as connection:
                at = self.database.now(connection)
                if not self.hold_scan(connection, admission, at):
                    return False
                insert_job(connection, job_id, admission, work, at, answer)
                self._insert_key(connection, job_id, admission, at)
                if answer is None:
                    self.queue.submit(connection, Ticket(job_id, 1))
        except IntegrityError:
            return False
        return True

    def hold_scan(self, connection: sa.Connection, admission: Admission, at: float) -> bool:
        """Write a new scan down, or see to it that a known one stays; False where it has just been erased.

        Raises
        ------
        sqlalchemy.exc.IntegrityError
            Somebody was faster with the same scan.
        """
        if admission.is_new_scan:
            connection.execute(
                sa.insert(scans).values(
                    id=admission.scan_id, digest=admission.digest, size=admission.size, created_at=at
                )
            )
            return True
        query = sa.select(scans.c.id).where(scans.c.id == admission.scan_id, scans.c.erased_at.is_(None))
        return connection.execute(self.database.locked_row(query)).one_or_none() is not None

    def _insert_key(self, connection: sa.Connection, job_id: str, admission: Admission, at: float) -> None:
        if (key := admission.request.idempotency_key) is not None:
            connection.execute(
                sa.insert(idempotency_keys).values(
                    key_sha256=key_digest(key, admission.request.who.tenant), fingerprint=admission.fingerprint,
                    job_id=job_id, created_at=at,
                )
            )  # fmt: skip

    def _job_of_key(self, request: Request, fingerprint: str) -> str | None:
        if request.idempotency_key is None:
            return None
        key = key_digest(request.idempotency_key, request.who.tenant)
        with self.database.reading() as connection:
            found = connection.execute(
                sa.select(idempotency_keys).where(idempotency_keys.c.key_sha256 == key)
            ).one_or_none()
        if found is None:
            return None
        if found.fingerprint != fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key came before with another scan or other options.")
        return str(found.job_id)

    def live_scan(self, digest: str) -> str | None:
        """The id of the stored scan with this content, if there is one."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(scans.c.id).where(scans.c.digest == digest)).scalar_one_or_none()


def work_digest(scan_digest: str, order: Order) -> str:
    """The same for two jobs that must give the same answer: content, model, options, program, form of what is kept."""
    asked = as_json(order)
    del asked["notify"]
    return digest_of([scan_digest, asked, version("lungnodule"), bundle.VERSION])


def insert_job(
    connection: sa.Connection,
    job_id: str,
    admission: Admission,
    work: str,
    at: float,
    answer: tuple[str, StoredFile] | None,
) -> None:
    """Write down a job on a scan that is held, with the copied answer where the same work had been done."""
    order, request = admission.request.order, admission.request
    values = {
        "id": job_id, "state": State.QUEUED, "scan_id": admission.scan_id, "ticket": 1, "attempt": 0, "created_at": at,
        "updated_at": at, "model": order.model, "work_digest": work, "order": as_json(order), "stage": WAITING_STAGE,
        "fraction": 0.0, "stages_s": {}, "retry_of": request.retry_of, "last_event": 0, "tenant": request.who.tenant,
    }  # fmt: skip
    if answer is not None:
        source, kept = answer
        values |= {
            "state": State.SUCCEEDED, "ticket": 0, "finished_at": at, "stage": "done", "fraction": 1.0,
            "result_name": kept.name, "result_sha256": kept.sha256, "result_size": kept.size, "answered_from": source,
        }  # fmt: skip
    connection.execute(sa.insert(jobs).values(values))
    traced = {"traceparent": request.traceparent} if request.traceparent else {}
    add_event(connection, job_id, at, State.QUEUED, traced)
    if answer is not None:
        add_event(connection, job_id, at, State.SUCCEEDED, {"answered_from": answer[0]})
        add_notice(connection, job_id, order, at, State.SUCCEEDED)
    action = "job.retry" if request.retry_of else "job.create"
    add_audit(connection, at, request.who, action, job_id, bytes=admission.size, model=order.model)


def tenants_own(digest: str, tenant: str) -> str:
    """The digest by which a tenant's content is known again: nobody is answered from, or shares, what others sent.

    That of the tenant `default` is the content's own, as it was before there were tenants.
    """
    return digest if tenant == DEFAULT_TENANT else digest_of([tenant, digest])


def key_digest(key: str, tenant: str) -> str:
    """What is kept of an Idempotency-Key; two tenants may use the same."""
    return tenants_own(digest_of(key), tenant)


def digest_of(value: object) -> str:
    """sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
