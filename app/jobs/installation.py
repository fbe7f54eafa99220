"""The parts of the jobs, put together from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.jobs.database import Database, open_database
from app.jobs.erasure import Eraser
from app.jobs.intake import Intake
from app.jobs.leases import Leases
from app.jobs.ledger import Ledger
from app.jobs.lookup import Lookup
from app.jobs.queue import JobQueue
from app.jobs.runner import AnalyseOrder, Observe, Render, Runner, Trace, Turn
from app.jobs.store import Store
from app.jobs.webhooks import Deliveries
from app.jobs.worker import Chores, Worker, running_worker
from app.settings import Settings

MakeQueue = Callable[[Database], JobQueue]


@dataclass(frozen=True)
class Jobs:
    """Everything that is asked of jobs."""

    settings: Settings
    database: Database
    queue: JobQueue
    store: Store
    ledger: Ledger
    intake: Intake
    lookup: Lookup
    eraser: Eraser


def dbos_queue(database: Database) -> JobQueue:
    """The engine; imported here, because it costs half a second."""
    from app.jobs.dbos_queue import DbosQueue  # noqa: PLC0415

    return DbosQueue(database)


@contextmanager
def open_jobs(settings: Settings, make_queue: MakeQueue = dbos_queue) -> Iterator[Jobs]:
    """Open the database and the store, made or brought up to date where needed.

    Raises
    ------
    DatabaseUnavailable
        The database does not answer.
    OSError
        The data folder cannot be written.
    """
    store = Store(settings.data_dir.absolute())
    store.prepare()
    url = settings.database_url.get_secret_value() if settings.database_url else None
    database = open_database(url, store.root)
    try:
        queue = make_queue(database)
        ledger = Ledger(database, queue, settings.max_attempts)
        yield Jobs(
            settings=settings,
            database=database,
            queue=queue,
            store=store,
            ledger=ledger,
            intake=Intake(database, queue, store, settings.max_queued),
            lookup=Lookup(database),
            eraser=Eraser(ledger, store, settings.retention_days, settings.retention_bytes),
        )
    finally:
        database.close()


@contextmanager
def work(
    jobs: Jobs, analyse: AnalyseOrder, render: Render, turn: Turn, observe: Observe, trace: Trace
) -> Iterator[Worker]:
    """Work on jobs in this process until the context ends; then give running ones the drain timeout."""
    settings = jobs.settings

    def make_runner(worker_id: str) -> Runner:
        return Runner(
            ledger=jobs.ledger,
            intake=jobs.intake,
            store=jobs.store,
            worker_id=worker_id,
            analyse=analyse,
            render=render,
            turn=turn,
            observe=observe,
            trace=trace,
            timeout_s=settings.analysis_timeout_s,
        )

    chores = Chores(
        Leases(jobs.ledger, settings.worker_lease_s), Deliveries(jobs.database, settings.webhooks), jobs.eraser
    )
    with running_worker(
        make_runner, jobs.queue, chores, settings.worker_concurrency, settings.drain_timeout_s
    ) as worker:
        yield worker
