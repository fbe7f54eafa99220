"""Results on their way to a PACS: written down when the job is made, sent once it has succeeded, until confirmed.

A result has the same SOPInstanceUID whenever it is made, so one that arrives twice is stored once. What a receiver has
confirmed is not sent to it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import sqlalchemy as sa
import structlog
from pydicom.dataset import Dataset
from sqlalchemy.exc import IntegrityError

from app.imaging.errors import LungNoduleError
from app.jobs.database import Database
from app.jobs.ledger import present_job
from app.jobs.records import FINISHED, State
from app.jobs.rows import SERVICE, Row, Who, add_audit
from app.jobs.tables import jobs, pacs_returns
from app.logs import described
from app.pacs.claims import CLAIM_S, held

MakeObjects = Callable[[str, Sequence[str]], list[Dataset]]
"""The objects of a job's results by kind, the same UIDs at every call.

Raises LungNoduleError where they cannot be made now.
"""
MAX_TRIES = 60
"""With the pauses below, about two and a half days: a PACS may be away for a weekend."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 3600.0


class Destination(Protocol):
    """Somewhere objects can be sent to."""

    def send(self, objects: Sequence[Dataset]) -> dict[str, str]:
        """Send; gives "stored" or a code for each SOPInstanceUID.

        Raises
        ------
        PacsTroubleError
            Nothing can be said of any of them.
        """

    def check(self) -> str:
        """Ask whether the other side is there; gives what it said.

        Raises
        ------
        PacsTroubleError
            It is not.
        """


STORED = "stored"


@dataclass(frozen=True)
class Return:
    """How far the results of a job are on their way to one target."""

    target: str
    kinds: tuple[str, ...]
    state: str
    """waiting, sent, given_up, or void (the job has ended without a result)."""
    tries: int
    objects_confirmed: int
    last_answer: str | None
    sent_at: float | None


@dataclass(frozen=True)
class Returns:
    """The outbox.

    Parameters
    ----------
    database
        Of the jobs.
    destinations
        By name of the target.
    make_objects
        Gives what is sent.
    """

    database: Database
    destinations: Mapping[str, Destination]
    make_objects: MakeObjects

    def send_due(self, target: str) -> int:
        """Send what is due for one target, each once; gives how many jobs are now wholly confirmed.

        Ends with the first that gets no answer at all: the others would get none either.
        """
        sent = 0
        self._void_ended()
        while (row := self._claim(target)) is not None:
            with held(partial(self._renew, row)):
                confirmed, answer = self._send(row)
            self._note(row, confirmed, answer)
            sent += answer == STORED
            if answer != STORED and confirmed == set(row["confirmed"]):
                break
        return sent

    def of_job(self, job_id: str) -> list[Return]:
        """Where the results of a job go, and how far they are."""
        with self.database.reading() as connection:
            rows = connection.execute(
                sa.select(pacs_returns, jobs.c.state)
                .join(jobs, jobs.c.id == pacs_returns.c.job_id)
                .where(pacs_returns.c.job_id == job_id)
                .order_by(pacs_returns.c.target)
            ).mappings()
            return [_shown(row) for row in rows]

    def ask(self, job_id: str, target: str, kinds: Sequence[str], who: Who = SERVICE) -> None:
        """Send a job's results to a target, also again; who asked is in the audit trail.

        Raises
        ------
        UnknownJob, JobErased
            There is no such job, or no longer.
        """
        with self.database.transaction() as connection:
            present_job(self.database, connection, job_id)
            at = self.database.now(connection)
            connection.execute(
                sa.delete(pacs_returns).where(pacs_returns.c.job_id == job_id, pacs_returns.c.target == target)
            )
            ask_for_return(connection, job_id, target, kinds, at)
            add_audit(connection, at, who, "job.send", job_id, target=target, kinds=list(kinds))

    def waiting(self) -> dict[str, int]:
        """Jobs whose results are still to be confirmed, by target."""
        with self.database.reading() as connection:
            counted = connection.execute(
                sa.select(pacs_returns.c.target, sa.func.count())
                .where(pacs_returns.c.next_at.is_not(None))
                .group_by(pacs_returns.c.target)
            )
            return {**dict.fromkeys(self.destinations, 0), **dict(map(tuple, counted))}

    def _void_ended(self) -> None:
        """Of a job that has ended without a result there is nothing to send."""
        with self.database.transaction() as connection:
            ended = sa.select(jobs.c.id).where(
                jobs.c.state.in_([state for state in FINISHED if state is not State.SUCCEEDED])
            )
            connection.execute(
                sa.update(pacs_returns)
                .where(pacs_returns.c.next_at.is_not(None), pacs_returns.c.job_id.in_(ended))
                .values(next_at=None)
            )

    def _claim(self, target: str) -> Row | None:
        """Take one, so that no other process sends it at the same time."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            due = (
                sa.select(pacs_returns)
                .join(jobs, jobs.c.id == pacs_returns.c.job_id)
                .where(pacs_returns.c.target == target, pacs_returns.c.next_at <= at, jobs.c.state == State.SUCCEEDED)
                .order_by(pacs_returns.c.next_at)
                .limit(1)
            )
            if not self.database.is_sqlite:
                due = due.with_for_update(skip_locked=True, of=pacs_returns)
            row = connection.execute(due).mappings().one_or_none()
            if row is not None:
                connection.execute(_the_row(row).values(next_at=at + CLAIM_S, tries=row["tries"] + 1))
            return row

    def _renew(self, row: Row) -> None:
        """It is still being sent; a row that was asked for anew is another one."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            mine = pacs_returns.c.tries == row["tries"] + 1, pacs_returns.c.created_at == row["created_at"]
            connection.execute(_the_row(row).where(*mine).values(next_at=at + CLAIM_S))

    def _send(self, row: Row) -> tuple[set[str], str]:
        """SOPInstanceUIDs confirmed so far, and one word for how it went."""
        before = set(row["confirmed"])
        try:
            destination = self.destinations[row["target"]]
            made = self.make_objects(row["job_id"], row["kinds"])
            missing = [one for one in made if str(one.SOPInstanceUID) not in before]
            answers = destination.send(missing) if missing else {}
        except LungNoduleError as error:
            return before, error.code
        except Exception as error:  # noqa: BLE001 - libraries and what a PACS answers raise what they like
            structlog.get_logger(__name__).error("sending failed", failure=described(error))
            return before, "internal_error"
        faults = sorted(answer for answer in answers.values() if answer != STORED)
        return before | {uid for uid, answer in answers.items() if answer == STORED}, (faults or [STORED])[0]

    def _note(self, row: Row, confirmed: set[str], answer: str) -> None:
        tries = row["tries"] + 1
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            changes: dict[str, object] = {"last_answer": answer, "next_at": None, "confirmed": sorted(confirmed)}
            if answer == STORED:
                changes["sent_at"] = at
            elif tries < MAX_TRIES:
                changes["next_at"] = at + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries - 1, 20))
            connection.execute(_the_row(row).values(changes))
        structlog.get_logger(__name__).info(
            "results sent", target=row["target"], job_id=row["job_id"], answer=answer, tries=tries
        )


def ask_for_return(connection: sa.Connection, job_id: str, target: str, kinds: Sequence[str], at: float) -> None:
    """Write down, in the caller's transaction, that results are to be sent; what was written before stays."""
    try:
        with connection.begin_nested():
            connection.execute(
                sa.insert(pacs_returns).values(
                    job_id=job_id, target=target, kinds=list(kinds), created_at=at, next_at=at, tries=0, confirmed=[]
                )
            )
    except IntegrityError:
        return


def _the_row(row: Row) -> sa.Update:
    return sa.update(pacs_returns).where(pacs_returns.c.job_id == row["job_id"], pacs_returns.c.target == row["target"])


def _shown(row: Row) -> Return:
    state = "waiting" if row["next_at"] is not None else "given_up"
    if row["sent_at"] is not None:
        state = "sent"
    elif state == "given_up" and row["state"] != State.SUCCEEDED:
        state = "void"
    return Return(
        row["target"], tuple(row["kinds"]), state, row["tries"], len(row["confirmed"]), row["last_answer"],
        row["sent_at"],
    )  # fmt: skip
