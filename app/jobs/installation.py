"""The parts of the jobs, put together from the settings."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from app.jobs.activation import Activations
from app.jobs.batch_intake import BatchIntake
from app.jobs.database import Database, open_database
from app.jobs.erasure import Eraser
from app.jobs.folder_store import FolderStore
from app.jobs.identities import FOLDER, Identities
from app.jobs.intake import Intake
from app.jobs.leases import Leases, worker_slot
from app.jobs.ledger import Ledger
from app.jobs.lookup import Lookup
from app.jobs.object_store import open_object_store
from app.jobs.queue import JobQueue
from app.jobs.runner import After, AnalyseOrder, Observe, Render, Runner, Trace, Turn
from app.jobs.store import Store
from app.jobs.tables import installation
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
    batches: BatchIntake
    lookup: Lookup
    eraser: Eraser
    activations: Activations
    identities: Identities


def dbos_queue(database: Database) -> JobQueue:
    """The engine; imported here, because it costs half a second."""
    from app.jobs.dbos_queue import DbosQueue  # noqa: PLC0415

    return DbosQueue(database)


@contextmanager
def open_jobs(settings: Settings, make_queue: MakeQueue = dbos_queue) -> Iterator[Jobs]:
    """Open the database and the store, made or brought up to date where needed.

    Raises
    ------
    DatabaseUnavailable, StoreUnavailable
        The database or the object store does not answer.
    OptionError
        The object store is of a kind that cannot be used.
    OSError
        The data folder cannot be written.
    """
    with opened_database(settings) as database, open_store(settings, database) as store:
        queue = make_queue(database)
        ledger = Ledger(database, queue, settings.max_attempts)
        identities = Identities(settings.data_dir.absolute() / FOLDER)
        intake = Intake(database, queue, store, settings.max_queued, identities)
        yield Jobs(
            settings=settings,
            database=database,
            queue=queue,
            store=store,
            ledger=ledger,
            intake=intake,
            batches=BatchIntake(intake, settings.max_batch_jobs),
            lookup=Lookup(database),
            eraser=Eraser(ledger, store, identities, settings.retention_days, settings.retention_bytes),
            activations=Activations(database),
            identities=identities,
        )


@contextmanager
def open_store(settings: Settings, database: Database) -> Iterator[Store]:
    """The store that the settings name, ready for use: the data folder, or an object store.

    Raises
    ------
    OptionError, StoreUnavailable, OSError
        As `open_jobs`.
    """
    data_dir = settings.data_dir.absolute()
    if settings.store_url is not None:
        with database.reading() as connection:
            name = connection.execute(sa.select(installation.c.id)).scalar_one()
        with open_object_store(settings.store_url, data_dir, name) as store:
            yield store
        return
    folder = FolderStore(data_dir)
    folder.prepare()
    yield folder


@contextmanager
def opened_database(settings: Settings) -> Iterator[Database]:
    """The database that the settings name, made or brought up to date where needed.

    Raises
    ------
    DatabaseUnavailable, OSError
        As `open_jobs`.
    """
    data_dir = settings.data_dir.absolute()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(data_dir, os.W_OK | os.X_OK):  # SQLite would only say that it cannot open a file
        message = "The data folder cannot be written; LUNGNODULE_DATA_DIR names it"
        raise PermissionError(errno.EACCES, message, str(data_dir))
    url = settings.database_url.get_secret_value() if settings.database_url else None
    database = open_database(url, data_dir)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def open_activations(settings: Settings) -> Iterator[Activations]:
    """Only the choice of the model, without the engine.

    Raises
    ------
    DatabaseUnavailable, OSError
        As `open_jobs`.
    """
    with opened_database(settings) as database:
        yield Activations(database)


@contextmanager
def work(
    jobs: Jobs,
    analyse: AnalyseOrder,
    render: Render,
    turn: Turn,
    observe: Observe,
    trace: Trace,
    after: After = lambda _job, _findings: None,
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
            after=after,
            timeout_s=settings.analysis_timeout_s,
        )

    chores = Chores(
        Leases(jobs.ledger, settings.worker_lease_s), Deliveries(jobs.database, settings.webhooks), jobs.eraser
    )
    with (
        worker_slot(settings.data_dir.absolute()) as slot,
        running_worker(
            make_runner, jobs.queue, chores, slot, settings.worker_concurrency, settings.drain_timeout_s
        ) as worker,
    ):
        yield worker
