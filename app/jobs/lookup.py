"""Reading the ledger: one job, the list, events, the place in the line and when its turn may come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.records import Attempt, DatabaseUnavailable, Event, Job, JobErased, Outcome, State, UnknownJob
from app.jobs.rows import Row, job_of
from app.jobs.tables import attempts, events, jobs, workers

_FIRST_GUESS_S = 10.0
_LAST_JOBS = 20


@dataclass(frozen=True)
class Place:
    """Where a live job stands."""

    position: int
    """1 for the next to be taken up; 0 for one that is running."""
    eta_s: float | None
    """Seconds until it may be done; None while no worker is there."""


@dataclass(frozen=True)
class Filters:
    """What the list is narrowed to."""

    states: tuple[State, ...] = ()
    model: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    tenant: str | None = None
    """None for those of all."""


@dataclass(frozen=True)
class Lookup:
    """Reads; changes nothing."""

    database: Database

    def job(self, job_id: str) -> Job:
        """One job with its attempts.

        Raises
        ------
        UnknownJob, JobErased
            There is no such job, or no longer.
        """
        with self._reading() as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).mappings().one_or_none()
            if row is None:
                raise UnknownJob("No job has this id.")
            if row["state"] == State.ERASED:
                raise JobErased("The data of this job were erased.", values={"erased_at": row["erased_at"]})
            tried = connection.execute(
                sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
            ).mappings()
            return job_of(row, [_attempt(one) for one in tried])

    def jobs(self, filters: Filters, limit: int, after: tuple[float, str] | None = None) -> list[Job]:
        """Jobs by falling time of creation; ``after`` is the creation and the id of the last one of the page before."""
        query = sa.select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        query = query.where(jobs.c.state.in_(filters.states) if filters.states else jobs.c.state != State.ERASED)
        if filters.model is not None:
            query = query.where(jobs.c.model == filters.model)
        if filters.tenant is not None:
            query = query.where(jobs.c.tenant == filters.tenant)
        if filters.created_after is not None:
            query = query.where(jobs.c.created_at > filters.created_after)
        if filters.created_before is not None:
            query = query.where(jobs.c.created_at < filters.created_before)
        if after is not None:
            query = query.where(sa.tuple_(jobs.c.created_at, jobs.c.id) < sa.tuple_(*map(sa.literal, after)))
        with self._reading() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def events(self, job_id: str, after: int) -> tuple[list[Event], bool]:
        """Events with a higher number, and whether the job has ended with the last of them."""
        with self._reading() as connection:
            state = connection.execute(sa.select(jobs.c.state).where(jobs.c.id == job_id)).scalar_one_or_none()
            rows = connection.execute(
                sa.select(events).where(events.c.job_id == job_id, events.c.seq > after).order_by(events.c.seq)
            ).mappings()
            found = [Event(row["seq"], row["at"], row["kind"], row["data"]) for row in rows]
            return found, state not in (State.QUEUED, State.RUNNING)

    def traceparent(self, job_id: str) -> str | None:
        """Span of the request that made the job, where it had one; None too while the database does not answer."""
        try:
            with self._reading() as connection:
                first = sa.select(events.c.data).where(events.c.job_id == job_id, events.c.seq == 1)
                data = connection.execute(first).scalar_one_or_none()
        except DatabaseUnavailable:
            return None
        return data.get("traceparent") if data else None

    def place(self, job: Job) -> Place:
        """Where a live job stands in the line."""
        with self._reading() as connection:
            ahead = 0
            if job.state is State.QUEUED:
                ahead = connection.execute(
                    sa.select(sa.func.count())
                    .select_from(jobs)
                    .where(jobs.c.state == State.QUEUED, jobs.c.created_at < job.created_at)
                ).scalar_one()
            at_once = connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(workers.c.concurrency), 0)).where(workers.c.stopped_at.is_(None))
            ).scalar_one()
            typical_s = self._typical_s(connection)
        if job.state is State.RUNNING:
            return Place(0, round(max(0.0, typical_s * (1.0 - job.fraction)), 1))
        eta_s = typical_s * (1 + ahead // at_once + 1) if at_once else None
        return Place(ahead + 1, eta_s if eta_s is None else round(eta_s, 1))

    def waiting(self) -> int:
        """How many jobs wait."""
        with self._reading() as connection:
            return connection.execute(
                sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == State.QUEUED)
            ).scalar_one()

    def _typical_s(self, connection: sa.Connection) -> float:
        """Mean of the last jobs that were really analysed."""
        last = (
            sa.select((attempts.c.finished_at - attempts.c.started_at).label("seconds"))
            .where(attempts.c.outcome == Outcome.SUCCEEDED)
            .order_by(attempts.c.finished_at.desc())
            .limit(_LAST_JOBS)
            .subquery()
        )
        mean = connection.execute(sa.select(sa.func.avg(last.c.seconds))).scalar_one()
        return _FIRST_GUESS_S if mean is None else float(mean)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self.database.reading() as connection:
            yield connection


def _attempt(row: Row) -> Attempt:
    return Attempt(row["number"], row["started_at"], row["finished_at"], row["outcome"], row["stage"], row["code"])
