"""The engine: DBOS Transact on the ledger's own database, so that a job and its ticket are committed together.

DBOS is used for its queue: claims that exclude each other on SQLite and on PostgreSQL, a limit for each worker, delays.
Its own recovery is not: it waits for a process of the same name to come back, or for a proprietary service to say that
none will. Here the ledger knows which workers live, and gives a dead worker's jobs a new ticket.

DBOS keeps one instance in each process; so does this.

Nothing is unpickled: DBOS reads a row in the format that the row itself names, and one of those is pickle, so whoever
can write to the database could run code in a worker. Tickets are written as JSON and carry no arguments.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig
from dbos._serialization import DBOSDefaultSerializer, DBOSPortableJSON

from app.jobs.database import Database
from app.jobs.queue import Handle, Ticket

_NAME = "lungnodule"
_QUEUE = "jobs"
_WORKFLOW = "run_ticket"
_VERSION = "1"
"""Of what a ticket means. The same through releases: a newer release goes on with an older one's tickets."""
_POLL_S = 0.1


class DbosQueue:
    """`app.jobs.queue.JobQueue` on DBOS.

    Parameters
    ----------
    database
        Where the ledger is; DBOS makes its tables beside it (in the schema ``dbos`` on PostgreSQL).
    """

    def __init__(self, database: Database) -> None:
        logger = logging.getLogger("dbos")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # or DBOS would write to stderr in a form of its own
        # It warns ten times a second while the database is away; the ledger says that too, once in a while.
        logger.setLevel(logging.ERROR)
        self._url = database.url
        self._consuming = False
        _read_no_pickles()
        DBOS.migrate(self._url)
        self._client = DBOSClient(
            system_database_url=self._url,
            application_name=_NAME,
            serializer=DBOSPortableJSON,
            retry_connection_errors=False,
            lazy=True,
        )

    def submit(self, connection: sa.Connection, ticket: Ticket, delay_s: float = 0.0) -> None:
        """Put a ticket in line, inside the caller's transaction."""
        options: dict[str, Any] = {
            "workflow_name": _WORKFLOW,
            "queue_name": _QUEUE,
            "workflow_id": ticket.id,
            "app_version": _VERSION,
        }
        if delay_s:
            options["delay_seconds"] = delay_s
        self._client.enqueue_in_transaction(connection, options)  # type: ignore[arg-type]

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        """Forget tickets, whether they wait, are being worked on or are done."""
        if tickets:
            self._client.delete_workflows([ticket.id for ticket in tickets])

    def missing(self, tickets: Sequence[Ticket], live_workers: Sequence[str]) -> list[Ticket]:
        """Those that neither wait nor are with a worker that lives."""
        found = self._client.list_workflows(
            workflow_ids=[ticket.id for ticket in tickets],
            status=["ENQUEUED", "DELAYED", "PENDING"],
            load_input=False,
            load_output=False,
        )
        held = {
            workflow.workflow_id
            for workflow in found
            if workflow.status != "PENDING" or workflow.executor_id in live_workers
        }
        return [ticket for ticket in tickets if ticket.id not in held]

    def consume(self, handle: Handle, worker_id: str, concurrency: int) -> None:
        """Start to hand out tickets.

        The limit is stored with the queue: all workers of one database share that of the one that started last.
        """

        def run_ticket() -> None:
            job_id, _, number = str(DBOS.workflow_id).partition(".")
            handle(Ticket(job_id, int(number)))

        config: DBOSConfig = {
            "name": _NAME,
            "system_database_url": self._url,
            "executor_id": worker_id,
            "application_version": _VERSION,
            "log_level": "ERROR",
            "run_migrations": False,
            "serializer": DBOSPortableJSON,
        }
        DBOS(config=config)
        DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=None)(run_ticket)
        DBOS.launch()
        self._consuming = True
        DBOS.register_queue(
            _QUEUE, worker_concurrency=concurrency, polling_interval_sec=_POLL_S, on_conflict="always_update"
        )

    def stop(self, patience_s: float) -> None:
        """Hand out no more, wait for what is being worked on, and let go of the database."""
        if self._consuming:
            self._consuming = False
            DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=math.ceil(patience_s))
        self._client.destroy()


def _read_no_pickles() -> None:
    """A row of an older release is pickled, and says nothing: what it held is not looked at."""
    DBOSDefaultSerializer.deserialize = _no_arguments  # type: ignore[assignment, method-assign]


def _no_arguments(_pickled: str) -> dict[str, Any]:
    return {"args": (), "kwargs": {}}
