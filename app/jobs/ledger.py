"""The truth about jobs: every change of state, each one transaction.

A worker's right to a job is its attempt number. Whatever it writes is written only while the job is running in that
attempt, so a worker that was taken for dead and comes back can change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.imaging.errors import LungNoduleError
from app.jobs.database import Database
from app.jobs.queue import JobQueue, Ticket
from app.jobs.records import (
    COUNTED,
    LIVE,
    AttemptsExhausted,
    Job,
    JobConflict,
    JobErased,
    Order,
    Outcome,
    State,
    StoredFile,
    UnknownJob,
    Withdrawn,
)
from app.jobs.rows import Row, Who, add_audit, add_event, add_notice, close_attempt, job_of, told
from app.jobs.tables import attempts, job_findings, jobs

WAITING_STAGE = "wait"


@dataclass(frozen=True)
class Claim:
    """A worker's right to one attempt."""

    job: Job
    attempt: int
    worker_id: str


@dataclass(frozen=True)
class Ledger:
    """What may happen to a job once it is there; `app.jobs.intake` admits it, `app.jobs.erasure` removes it.

    Parameters
    ----------
    database, queue
        On the same database.
    max_attempts
        Attempts that may fail or be lost before a job is parked.
    pauses_s
        Before another attempt after the first that failed, the second and so on; the last also for a full disk.
    """

    database: Database
    queue: JobQueue
    max_attempts: int
    pauses_s: tuple[float, ...] = (5.0, 30.0)

    def begin(self, ticket: Ticket, worker_id: str) -> Claim | None:
        """Start an attempt; None where the ticket is void."""
        with self.database.transaction() as connection:
            row = locked_job(self.database, connection, ticket.job_id)
            if row is None or row["state"] not in LIVE or row["ticket"] != ticket.number:
                return None
            at = self.database.now(connection)
            if row["state"] == State.RUNNING:  # handed out twice: the earlier attempt is void from here on
                close_attempt(connection, ticket.job_id, row["attempt"], at, Outcome.LOST)
            number = row["attempt"] + 1
            connection.execute(
                sa.insert(attempts).values(
                    job_id=ticket.job_id, number=number, worker_id=worker_id, started_at=at, stage=WAITING_STAGE
                )
            )
            changes: dict[str, Any] = {
                "state": State.RUNNING,
                "attempt": number,
                "worker_id": worker_id,
                "started_at": at if row["started_at"] is None else row["started_at"],
                "stage": WAITING_STAGE,
                "fraction": 0.0,
                "stages_s": {},
            }
            connection.execute(sa.update(jobs).where(jobs.c.id == ticket.job_id).values(**changes))
            add_event(connection, ticket.job_id, at, "started", {"attempt": number})
            return Claim(job_of({**row, **changes}), number, worker_id)

    def progress(self, claim: Claim, stage: str, fraction: float, stages_s: Mapping[str, float]) -> None:
        """Note how far the attempt is.

        Raises
        ------
        Withdrawn
            The attempt is no longer the current one.
        """
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            self._change(connection, claim, stage=stage, fraction=fraction, stages_s=dict(stages_s))
            add_event(connection, claim.job.id, at, "progress", {"stage": stage, "fraction": round(fraction, 3)})

    def succeed(
        self,
        claim: Claim,
        result: StoredFile,
        stages_s: Mapping[str, float],
        answered_from: str | None = None,
        figures: Sequence[Sequence[float | None]] | None = None,
    ) -> None:
        """The answer is stored.

        Parameters
        ----------
        claim
            To the attempt.
        result
            What was stored.
        stages_s
            Seconds by stage.
        answered_from
            The job whose answer this is a copy of.
        figures
            For the overview, see `app.jobs.overview.figures_of`; None for a copied answer, which is counted once.

        Raises
        ------
        Withdrawn
            The attempt is no longer the current one: this answer is not the job's.
        """
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            self._change(
                connection, claim, state=State.SUCCEEDED, finished_at=at, stage="done", fraction=1.0,
                stages_s=dict(stages_s), result_name=result.name, result_sha256=result.sha256, result_size=result.size,
                answered_from=answered_from,
            )  # fmt: skip
            if figures is not None:
                connection.execute(
                    sa.insert(job_findings).values(job_id=claim.job.id, at=at, nodules=[list(one) for one in figures])
                )
            outcome = Outcome.ANSWERED if answered_from else Outcome.SUCCEEDED
            close_attempt(connection, claim.job.id, claim.attempt, at, outcome)
            self._finished(connection, claim.job.id, claim.job.order, at, State.SUCCEEDED)

    def refuse(self, claim: Claim, error: LungNoduleError) -> None:
        """The scan or an option cannot be used; trying again would not help.

        Raises
        ------
        Withdrawn
            As `succeed`.
        """
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            self._change(connection, claim, state=State.FAILED, finished_at=at, problem=told(error))
            close_attempt(connection, claim.job.id, claim.attempt, at, Outcome.REFUSED, error.code)
            self._finished(connection, claim.job.id, claim.job.order, at, State.FAILED, error.code)

    def give_up_attempt(self, claim: Claim, outcome: Outcome, code: str | None = None) -> None:
        """The attempt ended without an answer: back into the line, or parked when it was the last.

        Raises
        ------
        Withdrawn
            As `succeed`.
        """
        with self.database.transaction() as connection:
            row = locked_job(self.database, connection, claim.job.id)
            if row is None or row["state"] != State.RUNNING or row["attempt"] != claim.attempt:
                raise Withdrawn
            self.requeue(connection, row, outcome, code)

    def requeue(self, connection: sa.Connection, row: Row, outcome: Outcome, code: str | None = None) -> None:
        """Give a live job, whose row is locked, a new ticket; or park it."""
        at = self.database.now(connection)
        if row["state"] == State.RUNNING:
            close_attempt(connection, row["id"], row["attempt"], at, outcome, code)
        failures = connection.execute(
            sa.select(sa.func.count())
            .select_from(attempts)
            .where(attempts.c.job_id == row["id"], attempts.c.outcome.in_(COUNTED))
        ).scalar_one()
        if failures >= self.max_attempts:
            self._park(connection, row, at, code or outcome)
            return
        ticket = Ticket(row["id"], row["ticket"] + 1)
        connection.execute(
            sa.update(jobs)
            .where(jobs.c.id == row["id"])
            .values(state=State.QUEUED, ticket=ticket.number, worker_id=None, stage=WAITING_STAGE, fraction=0.0)
        )
        add_event(connection, row["id"], at, "queued", {"after": outcome, "code": code})
        self.queue.submit(connection, ticket, self._pause_s(outcome, failures))

    def _pause_s(self, outcome: Outcome, failures: int) -> float:
        if outcome is Outcome.DEFERRED:
            return self.pauses_s[-1]
        return self.pauses_s[min(failures, len(self.pauses_s)) - 1] if outcome is Outcome.ERROR else 0.0

    def cancel(self, job_id: str, who: Who) -> Job:
        """End a waiting or running job; asking twice gives the same answer.

        Raises
        ------
        UnknownJob, JobErased
            There is no such job, or no longer.
        JobConflict
            It has ended in another way.
        """
        with self.database.transaction() as connection:
            row = present_job(self.database, connection, job_id)
            if row["state"] not in (*LIVE, State.CANCELLED):
                raise JobConflict(
                    f"The job has ended as {row['state']} and cannot be cancelled.",
                    code="job_finished",
                    values={"state": row["state"]},
                )
            if row["state"] != State.CANCELLED:
                self._cancel(connection, row, who)
        if row["state"] != State.CANCELLED:
            self.queue.withdraw([Ticket(job_id, number) for number in range(1, row["ticket"] + 1)])
        return job_of({**row, "state": State.CANCELLED})

    def _cancel(self, connection: sa.Connection, row: Row, who: Who) -> None:
        at = self.database.now(connection)
        connection.execute(
            sa.update(jobs).where(jobs.c.id == row["id"]).values(state=State.CANCELLED, finished_at=at, worker_id=None)
        )
        close_attempt(connection, row["id"], row["attempt"], at, Outcome.CANCELLED)
        add_audit(connection, at, who, "job.cancel", row["id"])
        self._finished(connection, row["id"], job_of(row).order, at, State.CANCELLED)

    def _park(self, connection: sa.Connection, row: Row, at: float, reason: str) -> None:
        error = AttemptsExhausted(
            f"{self.max_attempts} attempts ended without an answer, the last with {reason}. Ask for it again by retry "
            "once whoever runs the service has found the cause.",
            values={"attempts": self.max_attempts, "last": reason},
        )
        connection.execute(
            sa.update(jobs)
            .where(jobs.c.id == row["id"])
            .values(state=State.PARKED, finished_at=at, worker_id=None, problem=told(error))
        )
        self._finished(connection, row["id"], job_of(row).order, at, State.PARKED, error.code)

    def _change(self, connection: sa.Connection, claim: Claim, **values: Any) -> None:  # noqa: ANN401
        changed = connection.execute(
            sa.update(jobs)
            .where(jobs.c.id == claim.job.id, jobs.c.state == State.RUNNING, jobs.c.attempt == claim.attempt)
            .values(**values)
        )
        if changed.rowcount != 1:
            raise Withdrawn

    def _finished(
        self, connection: sa.Connection, job_id: str, order: Order, at: float, state: State, code: str | None = None
    ) -> None:
        add_event(connection, job_id, at, state, {"code": code} if code else {})
        add_notice(connection, job_id, order, at, state)


def locked_job(database: Database, connection: sa.Connection, job_id: str) -> Row | None:
    """The row of a job, held until the transaction ends."""
    query = database.locked_row(sa.select(jobs).where(jobs.c.id == job_id))
    return connection.execute(query).mappings().one_or_none()


def present_job(database: Database, connection: sa.Connection, job_id: str) -> Row:
    """As `locked_job`, for a caller who names the job.

    Raises
    ------
    UnknownJob, JobErased
        There is no such job, or no longer.
    """
    row = locked_job(database, connection, job_id)
    if row is None:
        raise UnknownJob("No job has this id.")
    if row["state"] == State.ERASED:
        raise JobErased("The data of this job were erased.")
    return row
