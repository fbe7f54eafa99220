"""The port to the engine that hands jobs to workers. `app.jobs.dbos_queue` is the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa


@dataclass(frozen=True)
class Ticket:
    """One right to work on a job. The ledger knows which number is current; any other is void."""

    job_id: str
    number: int

    @property
    def id(self) -> str:
        """Unique in the engine."""
        return f"{self.job_id}.{self.number}"


Handle = Callable[[Ticket], None]


class JobQueue(Protocol):
    """What the ledger and the workers need of an engine.

    An engine may hand out a ticket twice or late. It must not lose one whose transaction was committed, other than
    `missing` then tells.
    """

    def submit(self, connection: sa.Connection, ticket: Ticket, delay_s: float = 0.0) -> None:
        """Put a ticket in line, inside the caller's transaction on the same database."""

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Forget tickets, whether they wait, are being worked on or are done. Not inside a transaction."""

    def missing(self, tickets: Sequence[Ticket], live_workers: Sequence[str]) -> list[Ticket]:
        """Those of the tickets that neither wait nor are with a worker that lives. Not inside a transaction."""

    def consume(self, handle: Handle, worker_id: str, concurrency: int) -> None:
        """Start to hand out tickets, each in a thread of the engine, oldest first; returns at once."""

    def stop(self, patience_s: float) -> None:
        """Hand out no more tickets, wait so long for those being worked on, and let go of the engine."""
