"""Rows of the ledger: reading one as a record, and what every change of a job writes beside it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from app.identity import DEFAULT_TENANT
from app.imaging.errors import LungNoduleError
from app.jobs.records import Attempt, Job, Order, Outcome, State, StoredFile
from app.jobs.tables import attempts, audit, events, jobs, outbox

Row = sa.RowMapping | dict[str, Any]
"""Of `jobs`, by column."""


@dataclass(frozen=True)
class Who:
    """Who asked for something, for the audit trail, and whose a new job is."""

    actor: str
    request_id: str | None = None
    tenant: str = DEFAULT_TENANT


SERVICE = Who("service")


def new_id() -> str:
    """An id that cannot be guessed."""
    return uuid.uuid4().hex


def job_of(row: Row, tried: Sequence[Attempt] = ()) -> Job:
    """A row of `jobs` as a record."""
    result = None
    if row["result_name"] is not None:
        result = StoredFile(row["result_name"], row["result_sha256"], row["result_size"])
    return Job(
        id=row["id"],
        state=State(row["state"]),
        scan_id=row["scan_id"],
        ticket=row["ticket"],
        attempt=row["attempt"],
        worker_id=row["worker_id"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        order=order_of(row["order"]),
        stage=row["stage"],
        fraction=row["fraction"],
        stages_s=row["stages_s"],
        problem=row["problem"],
        result=result,
        work_digest=row["work_digest"],
        answered_from=row["answered_from"],
        retry_of=row["retry_of"],
        erased_at=row["erased_at"],
        tenant=row["tenant"],
        attempts=tuple(tried),
    )


def order_of(stored: Mapping[str, Any]) -> Order:
    """What `as_json` wrote; an erased job's is empty."""
    fields = {"model": "", "model_sha256": "", "operating_point": "", **stored}
    return Order(**{**fields, "allow_repairs": tuple(fields.get("allow_repairs", ()))})


def as_json(order: Order) -> dict[str, Any]:
    """The order as the column holds it, and as digests and fingerprints see it."""
    column = {**asdict(order), "allow_repairs": list(order.allow_repairs)}
    for name in ("context_sha256", "prior"):
        if column[name] is None:  # so that orders without one keep the digests they had before there were any
            del column[name]
    return column


def told(error: LungNoduleError) -> dict[str, Any]:
    """An error as the column holds it; the classes let the API find its kind."""
    return {
        "classes": [cls.__name__ for cls in type(error).__mro__],
        "code": error.code,
        "message": error.message,
        "values": error.values,
    }


def add_event(connection: sa.Connection, job_id: str, at: float, kind: str, data: Mapping[str, Any]) -> None:
    """Number and keep what happened."""
    seq = connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == job_id)
        .values(last_event=jobs.c.last_event + 1, updated_at=at)
        .returning(jobs.c.last_event)
    ).scalar_one()
    connection.execute(sa.insert(events).values(job_id=job_id, seq=seq, at=at, kind=kind, data=dict(data)))


def add_notice(connection: sa.Connection, job_id: str, order: Order, at: float, event: str) -> None:
    """Put a webhook into the outbox, where one was asked for."""
    if order.notify is not None:
        connection.execute(
            sa.insert(outbox).values(
                id=new_id(), job_id=job_id, target=order.notify, event=event, created_at=at, next_at=at, tries=0
            )
        )


def add_audit(
    connection: sa.Connection,
    at: float,
    who: Who,
    action: str,
    job_id: str | None,
    **values: Any,  # noqa: ANN401
) -> None:
    """Who did what, when. Values are counts and codes, never anything of the patient."""
    connection.execute(
        sa.insert(audit).values(
            id=new_id(),
            at=at,
            actor=who.actor,
            action=action,
            job_id=job_id,
            request_id=who.request_id,
            values=values,
            tenant=who.tenant,
        )
    )


def close_attempt(
    connection: sa.Connection, job_id: str, number: int, at: float, outcome: Outcome, code: str | None = None
) -> None:
    """How an attempt ended; one that has ended stays as it is."""
    stage = sa.select(jobs.c.stage).where(jobs.c.id == job_id).scalar_subquery()
    connection.execute(
        sa.update(attempts)
        .where(attempts.c.job_id == job_id, attempts.c.number == number, attempts.c.outcome.is_(None))
        .values(finished_at=at, outcome=outcome, code=code, stage=stage)
    )
