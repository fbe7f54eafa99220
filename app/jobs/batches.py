"""What is known of a batch: the jobs that one upload became, and what in it became none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.ledger import Ledger
from app.jobs.records import LIVE, Job, JobConflict, JobErased, State, UnknownJob
from app.jobs.rows import Who, job_of
from app.jobs.tables import batch_jobs, batches, jobs


@dataclass(frozen=True)
class Batch:
    """One row of `batches` with its jobs, in the order in which their scans were found."""

    id: str
    created_at: float
    jobs: tuple[tuple[Job, dict[str, Any]], ...]
    """Each with the summary of its series. Erased ones are left out."""
    erased: int
    left_out: dict[str, Any]
    """``rejected``, ``ignored`` and ``files_received`` of `app.imaging.upload_contents.UploadContents`."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs by state, erased ones among them."""
        counts = Counter({State.ERASED.value: self.erased} if self.erased else {})
        counts.update(job.state.value for job, _ in self.jobs)
        return counts

    @property
    def is_live(self) -> bool:
        """Whether something is still to be expected of it."""
        return any(job.state in LIVE for job, _ in self.jobs)


def find_batch(database: Database, batch_id: str) -> Batch:
    """One batch.

    Raises
    ------
    UnknownJob, JobErased
        ``unknown_batch``, or ``batch_erased`` where its last job was erased.
    """
    with database.reading() as connection:
        row = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().one_or_none()
        if row is None:
            raise UnknownJob("No batch has this id.", code="unknown_batch")
        if row["erased_at"] is not None:
            raise JobErased(
                "The data of all jobs of this batch were erased.",
                code="batch_erased",
                values={"erased_at": row["erased_at"]},
            )
        query = (
            sa.select(jobs, batch_jobs.c.series)
            .join(batch_jobs, batch_jobs.c.job_id == jobs.c.id)
            .where(batch_jobs.c.batch_id == batch_id)
            .order_by(batch_jobs.c.place)
        )
        found = tuple((job_of(one), one["series"]) for one in connection.execute(query).mappings())
    return Batch(batch_id, row["created_at"], found, row["jobs"] - len(found), row["left_out"])


def cancel_jobs_of(ledger: Ledger, batch_id: str, who: Who) -> None:
    """Cancel every job of a batch that has not ended; asking twice changes nothing more.

    Raises
    ------
    UnknownJob, JobErased
        As `find_batch`.
    """
    for job, _ in find_batch(ledger.database, batch_id).jobs:
        if job.state in LIVE:
            with suppress(JobConflict, JobErased):  # it has ended, or was erased, at this moment
                ledger.cancel(job.id, who)


def locked_batch_of(database: Database, connection: sa.Connection, job_id: str) -> str | None:
    """The batch that a job is of, held until the transaction ends: of two last jobs one sees that it is the last."""
    of_job = sa.select(batch_jobs.c.batch_id).where(batch_jobs.c.job_id == job_id).scalar_subquery()
    query = database.locked_row(sa.select(batches.c.id).where(batches.c.id == of_job))
    return connection.execute(query).scalar_one_or_none()


def close_when_empty(connection: sa.Connection, batch_id: str, at: float) -> None:
    """Erase what a batch says of its series once none of its jobs is left."""
    left = sa.select(batch_jobs.c.job_id).where(batch_jobs.c.batch_id == batch_id).exists()
    connection.execute(
        sa.update(batches)
        .where(batches.c.id == batch_id, ~left)
        .values(erased_at=at, left_out={}, key_sha256=None, fingerprint=None)
    )
