"""Removing what was stored: on request with a receipt, by age, by size; and what killed processes left lying."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

import sqlalchemy as sa

from app.jobs.batches import close_when_empty, locked_batch_of
from app.jobs.database import Database
from app.jobs.identities import Identities
from app.jobs.ledger import Ledger, locked_job
from app.jobs.queue import Ticket
from app.jobs.records import FINISHED, LIVE, State, UnknownJob
from app.jobs.rows import SERVICE, Who, add_audit
from app.jobs.store import Erased, Store
from app.jobs.tables import OF_A_JOB, jobs, scans

_BATCH = 100
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Receipt:
    """What an erasure removed, and what it then found left."""

    job_id: str
    erased_at: float
    files_removed: int
    bytes_removed: int
    rows_removed: int
    files_left: int
    rows_left: int
    scan_shared_with: tuple[str, ...]
    """Other jobs of the same scan: while there is one, the scan stays."""


@dataclass(frozen=True)
class Eraser:
    """The way out.

    Parameters
    ----------
    ledger, store, identities
        Of the installation.
    max_age_days, max_bytes
        What retention allows: age since the end of a job, and bytes of all scans.
    orphan_age_s
        Age from which what belongs to no row is swept: a younger one may be one whose row is about to be written.
    """

    ledger: Ledger
    store: Store
    identities: Identities
    max_age_days: float
    max_bytes: int
    orphan_age_s: float = 3600.0

    @property
    def database(self) -> Database:
        """Of the ledger."""
        return self.ledger.database

    def erase(self, job_id: str, who: Who, reason: str) -> Receipt:
        """Remove a job's result, rows and, unless another job needs it, its scan; doing it twice finds nothing more.

        A live job is cancelled first. What stays is its id, that it was erased and when, and the audit trail.

        Raises
        ------
        UnknownJob
            There is no such job.
        """
        with self.database.transaction() as connection:
            row = locked_job(self.database, connection, job_id)
        if row is None:
            raise UnknownJob("No job has this id.")
        if row["state"] in LIVE:
            self.ledger.cancel(job_id, who)
        scan_id, rows = self._mark_erased(job_id, who, reason)
        removed = _both(self.store.erase_results(job_id), self.identities.erase(job_id))
        sharing = self._sharing(job_id, scan_id)
        if scan_id is not None and not sharing:
            removed = _both(removed, self.store.erase_scan(scan_id))
        self.ledger.queue.withdraw([Ticket(job_id, number) for number in range(1, row["ticket"] + 1)])
        return self._receipt(job_id, scan_id, removed, rows, sharing)

    def retain(self) -> int:
        """Erase what is too old or too much, the oldest first; gives how many jobs."""
        erased = 0
        while due := self._due():
            for job_id, reason in due:
                self.erase(job_id, SERVICE, reason)
            erased += len(due)
        return erased

    def sweep(self) -> int:
        """Remove folders that belong to nothing: of uploads that were not acknowledged, of erasures cut short."""
        now = time.time()
        removed = 0
        with self.database.reading() as connection:
            known_scans = set(connection.execute(sa.select(scans.c.id).where(scans.c.erased_at.is_(None))).scalars())
            known_jobs = set(connection.execute(sa.select(jobs.c.id).where(jobs.c.state != State.ERASED)).scalars())
        for scan_id in set(self.store.scan_ids()) - known_scans:
            if self.store.age_s(now, scan_id=scan_id) > self.orphan_age_s:
                removed += self.store.erase_scan(scan_id).files
        for job_id in set(self.store.result_ids()) - known_jobs:
            if self.store.age_s(now, job_id=job_id) > self.orphan_age_s:
                removed += self.store.erase_results(job_id).files
        for job_id in set(self.identities.older_than(self.orphan_age_s)) - known_jobs:
            removed += self.identities.erase(job_id).files
        return removed

    def _mark_erased(self, job_id: str, who: Who, reason: str) -> tuple[str | None, int]:
        """From here on nobody is told anything of the job; files go after."""
        with self.database.transaction() as connection:
            row = locked_job(self.database, connection, job_id)
            if row is None or row["state"] == State.ERASED:
                return (row["scan_id"] if row else None), 0
            at = self.database.now(connection)
            removed = 0
            batch_id = locked_batch_of(self.database, connection, job_id)
            for table in OF_A_JOB:
                removed += connection.execute(sa.delete(table).where(table.c.job_id == job_id)).rowcount
            connection.execute(
                sa.update(jobs)
                .where(jobs.c.id == job_id)
                .values(
                    state=State.ERASED, erased_at=at, order={}, problem=None, stages_s={}, work_digest=None,
                    result_name=None, result_sha256=None, result_size=None, answered_from=None, retry_of=None,
                )
            )  # fmt: skip
            if batch_id is not None:
                close_when_empty(connection, batch_id, at)
            scan_id: str = row["scan_id"]
            connection.execute(self.database.locked_row(sa.select(scans.c.id).where(scans.c.id == scan_id)))
            # After the lock: a job that was made of the scan in between is seen.
            if not _users(connection, scan_id):
                connection.execute(sa.update(scans).where(scans.c.id == scan_id).values(digest=None, erased_at=at))
            add_audit(connection, at, who, "job.erase", job_id, reason=reason, rows=removed)
            return scan_id, removed

    def _sharing(self, job_id: str, scan_id: str | None) -> tuple[str, ...]:
        with self.database.reading() as connection:
            return tuple(user for user in _users(connection, scan_id) if user != job_id)

    def _receipt(
        self, job_id: str, scan_id: str | None, removed: Erased, rows: int, sharing: tuple[str, ...]
    ) -> Receipt:
        """Look again at what is left; that is the proof."""
        with self.database.reading() as connection:
            left = sum(
                connection.execute(
                    sa.select(sa.func.count()).select_from(table).where(table.c.job_id == job_id)
                ).scalar_one()
                for table in OF_A_JOB
            )
            erased_at = connection.execute(sa.select(jobs.c.erased_at).where(jobs.c.id == job_id)).scalar_one()
        if self.database.is_sqlite:
            self._empty_write_ahead_log()
        files_left = self.store.left_of(job_id, None if sharing else scan_id) + self.identities.left_of(job_id)
        return Receipt(job_id, erased_at, removed.files, removed.size, rows, files_left, left, sharing)

    def _empty_write_ahead_log(self) -> None:
        """SQLite keeps old pages beside the database until they are folded in."""
        with closing(self.database.engine.raw_connection()) as connection:  # outside any transaction
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _due(self) -> list[tuple[str, str]]:
        with self.database.reading() as connection:
            at = self.database.now(connection)
            finished = sa.select(jobs.c.id).where(jobs.c.state.in_(FINISHED)).order_by(jobs.c.finished_at)
            old = finished.where(jobs.c.finished_at < at - self.max_age_days * _DAY_S).limit(_BATCH)
            if due := list(connection.execute(old).scalars()):
                return [(job_id, "age") for job_id in due]
            size = sa.select(sa.func.coalesce(sa.func.sum(scans.c.size), 0)).where(scans.c.erased_at.is_(None))
            if connection.execute(size).scalar_one() <= self.max_bytes:
                return []
            return [(job_id, "size") for job_id in connection.execute(finished.limit(1)).scalars()]


def _both(one: Erased, other: Erased) -> Erased:
    return Erased(one.files + other.files, one.size + other.size)


def _users(connection: sa.Connection, scan_id: str | None) -> list[str]:
    """Jobs that still need a scan."""
    query = sa.select(jobs.c.id).where(jobs.c.scan_id == scan_id, jobs.c.state != State.ERASED)
    return list(connection.execute(query).scalars())
