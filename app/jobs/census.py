"""How the line stands, from the database: what no single process can count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.records import FINISHED, LIVE, DatabaseUnavailable, Outcome, State
from app.jobs.tables import attempts, jobs, outbox, scans, workers

_KEPT = (*LIVE, *FINISHED)
_FRESH_S = 5.0
"""How long a census is good for: however many scrapers there are, the database is asked this often."""
_PATIENCE_S = 1.0
"""How long a scrape waits for the database."""


@dataclass(frozen=True)
class Census:
    """The line at one moment. What was erased counts nowhere."""

    jobs: Mapping[State, int]
    """Every state but erased; 0 where there are none."""
    oldest_waiting_s: float
    """Seconds since the oldest waiting job was made; 0 when none waits."""
    attempts: Mapping[Outcome, int]
    """Ended attempts of the jobs that are kept."""
    workers: int
    """Those that have not ended and whose heartbeat is younger than the lease."""
    places: int
    """Jobs that they can work on at once."""
    webhooks_waiting: int
    webhooks_given_up: int
    oldest_webhook_s: float
    """Seconds since the oldest undelivered webhook that is still tried was made; 0 when there is none."""
    scan_bytes: int
    result_bytes: int


def take_census(database: Database, lease_s: float) -> Census:
    """Count, in one view of the database.

    Parameters
    ----------
    database
        Of the ledger.
    lease_s
        Age of a heartbeat, in seconds, at which a worker counts as dead.

    Raises
    ------
    DatabaseUnavailable
        It does not answer.
    """
    # Not "all but erased": those stay for ever, and an index finds the others.
    kept = jobs.c.state.in_(_KEPT)
    due = sa.and_(outbox.c.delivered_at.is_(None), outbox.c.next_at.is_not(None))
    with database.reading() as connection:
        at = database.now(connection)

        def one(*columns: sa.ColumnElement[Any], where: sa.ColumnElement[bool]) -> Sequence[Any]:
            return tuple(connection.execute(sa.select(*columns).where(where)).one())

        by_state = _counts(connection, jobs.c.state, kept)
        by_outcome = _counts(connection, attempts.c.outcome, attempts.c.outcome.is_not(None))
        oldest = one(sa.func.min(jobs.c.created_at), where=jobs.c.state == State.QUEUED)[0]
        living = one(
            sa.func.count(), _sum(workers.c.concurrency),
            where=sa.and_(workers.c.stopped_at.is_(None), workers.c.heartbeat_at >= at - lease_s),
        )  # fmt: skip
        waiting = one(sa.func.count(outbox.c.id), sa.func.min(outbox.c.created_at), where=due)
        given_up = one(
            sa.func.count(outbox.c.id), where=sa.and_(outbox.c.delivered_at.is_(None), outbox.c.next_at.is_(None))
        )[0]
        scan_bytes = one(_sum(scans.c.size), where=scans.c.erased_at.is_(None))[0]
        result_bytes = one(_sum(jobs.c.result_size), where=kept)[0]
    return Census(
        jobs={state: by_state.get(state, 0) for state in _KEPT},
        oldest_waiting_s=_age_s(at, oldest),
        attempts={outcome: by_outcome.get(outcome, 0) for outcome in Outcome},
        workers=int(living[0]),
        places=int(living[1]),  # PostgreSQL sums to a Decimal
        webhooks_waiting=int(waiting[0]),
        webhooks_given_up=int(given_up),
        oldest_webhook_s=_age_s(at, waiting[1]),
        scan_bytes=int(scan_bytes),
        result_bytes=int(result_bytes),
    )


def _counts(
    connection: sa.Connection, column: sa.Column[Any], where: sa.ColumnElement[bool]
) -> Mapping[str | None, int]:
    rows = connection.execute(sa.select(column, sa.func.count()).where(where).group_by(column))
    return {row[0]: row[1] for row in rows}


def _sum(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _age_s(at: float, since: float | None) -> float:
    return 0.0 if since is None else max(0.0, at - since)


class LatestCensus:
    """A census that is at most some seconds old, or None: never slow, and never a failure.

    The database is asked in a thread of its own, one at a time. A database that hangs keeps that thread; whoever asks
    goes on without after ``patience_s``.

    Parameters
    ----------
    take
        Takes the census.
    fresh_s
        How long an answer is good for, in seconds; also that there was none.
    patience_s
        How long to wait for an answer, in seconds.
    """

    def __init__(self, take: Callable[[], Census], fresh_s: float = _FRESH_S, patience_s: float = _PATIENCE_S) -> None:
        self._take = take
        self._fresh_s = fresh_s
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._good_until = 0.0
        self._latest: Census | None = None
        self._asked: Future[Census | None] | None = None

    def __call__(self) -> Census | None:
        """The census; None where the database does not answer in time."""
        with self._lock:
            if time.monotonic() < self._good_until:
                return self._latest
            if self._asked is None:
                self._asked = Future()
                threading.Thread(target=self._ask, args=(self._asked,), name="census", daemon=True).start()
            asked = self._asked
        try:
            return asked.result(timeout=self._patience_s)
        except TimeoutError:
            return None

    def _ask(self, asked: Future[Census | None]) -> None:
        census = None
        try:
            census = self._take()
        except (DatabaseUnavailable, sa.exc.SQLAlchemyError):
            pass  # told by the gauge, at every scrape; a log line for each would be one too many
        finally:
            with self._lock:
                self._latest, self._asked = census, None
                self._good_until = time.monotonic() + self._fresh_s
            asked.set_result(census)
