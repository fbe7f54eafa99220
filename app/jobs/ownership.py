"""Whose a job or a batch is."""

from __future__ import annotations

import re

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.tables import batches, jobs

_ID = re.compile(r"[0-9a-f]{32}")


def tenant_of_job(database: Database, job_id: str) -> str | None:
    """The tenant of a job, erased ones too; None where there is no such job.

    Raises
    ------
    DatabaseUnavailable
        The database does not answer.
    """
    return _tenant(database, jobs, job_id)


def tenant_of_batch(database: Database, batch_id: str) -> str | None:
    """The tenant of a batch; None where there is no such batch.

    Raises
    ------
    DatabaseUnavailable
        The database does not answer.
    """
    return _tenant(database, batches, batch_id)


def _tenant(database: Database, table: sa.Table, wanted: str) -> str | None:
    if not _ID.fullmatch(wanted):  # whatever was typed, also what a database would choke on
        return None
    with database.reading() as connection:
        return connection.execute(sa.select(table.c.tenant).where(table.c.id == wanted)).scalar_one_or_none()
