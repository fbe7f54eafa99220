"""Reading the audit trail: who did what, when, with which job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.tables import audit


@dataclass(frozen=True)
class Entry:
    """One row. ``at`` is seconds since 1970 (UTC) by the database's clock."""

    id: str
    at: float
    actor: str
    action: str
    tenant: str | None
    job_id: str | None
    request_id: str | None
    values: dict[str, Any]


@dataclass(frozen=True)
class AuditFilters:
    """What the trail is narrowed to."""

    actor: str | None = None
    action: str | None = None
    job_id: str | None = None
    after: float | None = None
    before: float | None = None


def read_audit(
    database: Database, filters: AuditFilters, limit: int, beyond: tuple[float, str] | None = None
) -> list[Entry]:
    """Entries, the newest first; ``beyond`` is the time and the id of the last one of the page before.

    Raises
    ------
    DatabaseUnavailable
        The database does not answer.
    """
    table = audit.c
    query = sa.select(audit).order_by(table.at.desc(), table.id.desc()).limit(limit)
    for column, wanted in (
        (table.actor, filters.actor),
        (table.action, filters.action),
        (table.job_id, filters.job_id),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if filters.after is not None:
        query = query.where(table.at > filters.after)
    if filters.before is not None:
        query = query.where(table.at < filters.before)
    if beyond is not None:
        query = query.where(sa.tuple_(table.at, table.id) < sa.tuple_(*map(sa.literal, beyond)))
    with database.reading() as connection:
        return [
            Entry(row["id"], row["at"], row["actor"], row["action"], row["tenant"], row["job_id"], row["request_id"],
                  row["values"])
            for row in connection.execute(query).mappings()
        ]  # fmt: skip
