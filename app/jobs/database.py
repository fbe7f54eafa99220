"""The ledger's database: SQLite in the data folder, or PostgreSQL by one setting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError, OperationalError

from app.jobs.records import DatabaseUnavailable, StoreUnavailable

Result = TypeVar("Result")

SQLITE_FILE = "jobs.sqlite"
BUSY_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_S = 5
"""A PostgreSQL host that does not answer at all must not hold a probe or a scrape."""
_MIGRATION_LOCK = 7_235_019_441
"""PostgreSQL advisory lock that one migrating process holds."""
_TRIES, _FIRST_PAUSE_S = 6, 0.2


@dataclass(frozen=True)
class Database:
    """An open database.

    Parameters
    ----------
    url
        As libpq or SQLite understand it: ``postgresql://...`` or ``sqlite:////absolute/path``.
    engine
        Of SQLAlchemy.
    """

    url: str
    engine: sa.Engine

    @property
    def is_sqlite(self) -> bool:
        """Whether it is the embedded one."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """All or nothing, one writer at a time on SQLite.

        Raises
        ------
        DatabaseUnavailable
            It does not answer, or was lost in between: nothing was written.
        """
        with _losses_told(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One view of the whole, which waits for no writer.

        Raises
        ------
        DatabaseUnavailable
            It does not answer.
        """
        with _losses_told(), self.engine.connect().execution_options(reading=True) as connection:
            yield connection

    def refuse_when_gone(self) -> None:
        """Ask it for nothing.

        Raises
        ------
        DatabaseUnavailable
            It does not answer.
        """
        with self.reading() as connection:
            connection.execute(sa.text("SELECT 1"))

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the one clock that all processes share."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def locked_row(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, holding the rows it finds; SQLite holds the whole file already."""
        return query if self.is_sqlite else query.with_for_update()

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


def open_database(url: str | None, data_dir: Path) -> Database:
    """Open the database and bring its tables up to date.

    Parameters
    ----------
    url
        ``postgresql://...``; None takes a SQLite file in ``data_dir``.
    data_dir
        An existing folder.

    Raises
    ------
    DatabaseUnavailable
        It does not answer after several tries.
    """
    if url is None:
        url = f"sqlite:///{(data_dir / SQLITE_FILE).absolute()}"
        database = Database(url, _sqlite_engine(url))
    else:
        database = Database(url, _postgresql_engine(url))
    with_patience(lambda: _migrate(database))
    return database


def with_patience(work: Callable[[], Result]) -> Result:
    """Try again while the database, or the store, does not answer, with growing pauses, about 6 s in all.

    Raises
    ------
    DatabaseUnavailable, StoreUnavailable
        When the last try fails too.
    """
    for attempt in range(_TRIES - 1):
        try:
            return work()
        except (DatabaseUnavailable, StoreUnavailable):
            time.sleep(_FIRST_PAUSE_S * 2**attempt)
    return work()


@contextmanager
def _losses_told() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            raise DatabaseUnavailable(
                "The database of the jobs does not answer. Try again later.", values={"retry_after_s": 10}
            ) from error
        raise


def _sqlite_engine(url: str) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=8, max_overflow=8)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3.Connection
        connection.isolation_level = None  # transactions begin where SQLAlchemy says, not where sqlite3 guesses
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a commit that was told of outlives the power
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        # Taking the write lock at once is what makes "look, then write" one step.
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(url: str) -> sa.Engine:
    _, _, rest = url.partition("://")
    return sa.create_engine(
        f"postgresql+psycopg://{rest}",
        pool_size=8,
        max_overflow=8,
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
    )


def _migrate(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", "app.jobs:migrations")
    with database.transaction() as connection:
        if not database.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
