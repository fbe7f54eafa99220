"""Which workers live, and what becomes of the jobs of those that do not.

A worker writes a heartbeat; one whose heartbeat is older than the lease is dead. On one machine that is known at once:
a worker holds the lock of its slot for as long as it lives; whoever gets the slot knows that its last holder is gone.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.ledger import Ledger, locked_job
from app.jobs.queue import Ticket
from app.jobs.records import Outcome, State
from app.jobs.tables import jobs, workers

_SETTLED_AFTER_S = 5.0
"""A job that has waited so long has its ticket in the engine, if ever."""
_BATCH = 200


@contextmanager
def worker_slot(data_dir: Path) -> Iterator[str]:
    """Hold the lowest free slot of this machine in the data folder; gives its name, which no other folder gives."""
    folder = data_dir / "workers"
    folder.mkdir(mode=0o700, exist_ok=True)
    host = f"{socket.gethostname()[:90]}-{_id_of(folder)}"
    for number in itertools.count():
        slot = f"{host}-{number}"
        descriptor = os.open(folder / f"{slot}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        try:
            yield slot
        finally:
            os.close(descriptor)
        return


def _id_of(folder: Path) -> str:
    """The same for all processes that share a folder; machines that share none may still have the same name."""
    path = folder / "id"
    if not path.exists():
        made = folder / f"{uuid.uuid4().hex}.new"
        made.write_text(uuid.uuid4().hex[:12])
        made.rename(path)  # whole, whoever is faster
    return path.read_text()


@dataclass(frozen=True)
class Living:
    """A worker that asks, and so lives, with the jobs that it has in hand at the moment of the call."""

    worker_id: str
    working_on: Callable[[], Sequence[str]]


@dataclass(frozen=True)
class Leases:
    """Heartbeats, and the jobs of workers that have none.

    Parameters
    ----------
    ledger
        Where jobs go back into the line.
    lease_s
        Age of a heartbeat at which a worker counts as dead.
    """

    ledger: Ledger
    lease_s: float

    @property
    def database(self) -> Database:
        """Of the ledger."""
        return self.ledger.database

    def enrol(self, worker_id: str, slot: str, concurrency: int) -> None:
        """A worker begins; whoever had its slot is dead."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            connection.execute(
                sa.update(workers).where(workers.c.slot == slot, workers.c.stopped_at.is_(None)).values(stopped_at=at)
            )
            connection.execute(
                sa.insert(workers).values(
                    id=worker_id, slot=slot, concurrency=concurrency, started_at=at, heartbeat_at=at
                )
            )

    def beat(self, worker_id: str) -> None:
        """The worker lives."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            connection.execute(sa.update(workers).where(workers.c.id == worker_id).values(heartbeat_at=at))

    def leave(self, worker_id: str) -> None:
        """A worker ends in order."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            connection.execute(sa.update(workers).where(workers.c.id == worker_id).values(stopped_at=at))

    def recover(self, me: Living) -> int:
        """Put back into the line what nobody works on; gives how many jobs. ``me`` is the calling worker."""
        live = self._bury_and_list_living(me)
        recovered = 0
        for job_id in self._running_with_none_of(live) + self._running_without_thread(me):
            recovered += self._put_back(job_id, State.RUNNING, live, me)
        for job_id in self._waiting_without_ticket(live):
            recovered += self._put_back(job_id, State.QUEUED, live, me)
        return recovered

    def _bury_and_list_living(self, me: Living) -> list[str]:
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            connection.execute(
                sa.update(workers)
                .where(
                    workers.c.id != me.worker_id,
                    workers.c.stopped_at.is_(None),
                    workers.c.heartbeat_at < at - self.lease_s,
                )
                .values(stopped_at=at)
            )
            living = sa.select(workers.c.id).where(workers.c.stopped_at.is_(None))
            return [me.worker_id, *connection.execute(living).scalars()]

    def _running_with_none_of(self, live: Sequence[str]) -> list[str]:
        with self.database.reading() as connection:
            query = sa.select(jobs.c.id).where(jobs.c.state == State.RUNNING, jobs.c.worker_id.not_in(live))
            return list(connection.execute(query).scalars())

    def _running_without_thread(self, me: Living) -> list[str]:
        """Jobs that are written down as ours and that no thread of ours works on."""
        with self.database.reading() as connection:
            query = sa.select(jobs.c.id).where(
                jobs.c.state == State.RUNNING, jobs.c.worker_id == me.worker_id, jobs.c.id.not_in(me.working_on())
            )
            return list(connection.execute(query).scalars())

    def _waiting_without_ticket(self, live: Sequence[str]) -> list[str]:
        with self.database.reading() as connection:
            at = self.database.now(connection)
            query = (
                sa.select(jobs.c.id, jobs.c.ticket)
                .where(jobs.c.state == State.QUEUED, jobs.c.updated_at < at - min(_SETTLED_AFTER_S, self.lease_s))
                .order_by(jobs.c.created_at)
                .limit(_BATCH)
            )
            waiting = [Ticket(row.id, row.ticket) for row in connection.execute(query)]
        return [ticket.job_id for ticket in self.ledger.queue.missing(waiting, live)] if waiting else []

    def _put_back(self, job_id: str, seen: State, live: Sequence[str], me: Living) -> bool:
        """Only what is still as it was seen: others recover at the same time."""
        with self.database.transaction() as connection:
            row = locked_job(self.database, connection, job_id)
            if row is None or row["state"] != seen:
                return False
            lives = row["worker_id"] in live and (row["worker_id"] != me.worker_id or job_id in me.working_on())
            if seen is State.RUNNING and lives:
                return False
            self.ledger.requeue(connection, row, Outcome.LOST, "worker_lost")
        self.ledger.queue.withdraw([Ticket(job_id, row["ticket"])])
        return True
