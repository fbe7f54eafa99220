"""The engine's own rows: what is read from them, and what is not."""

from __future__ import annotations

import base64
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.dbos_queue import DbosQueue
from app.jobs.installation import open_jobs
from app.jobs.queue import Ticket
from app.settings import Settings

TICKET = Ticket("a" * 32, 1)


class _Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self.path), "w")


@contextmanager
def _handed_out(folder: Path, inputs: str) -> Iterator[list[Ticket]]:
    """A ticket whose row was given other inputs, after a worker has come for it."""
    came, got = threading.Event(), []
    queues = []

    def queue_on(database: Database) -> DbosQueue:
        queues.append(DbosQueue(database))
        return queues[0]

    with open_jobs(Settings(data_dir=folder / "data"), queue_on) as jobs:
        with jobs.database.transaction() as connection:
            queues[0].submit(connection, TICKET)
        with jobs.database.transaction() as connection:
            rows = sa.text("UPDATE workflow_input SET inputs = :inputs"), {"inputs": inputs}
            assert connection.execute(*rows).rowcount == 1
            assert connection.execute(sa.text("UPDATE workflow_status SET serialization = 'py_pickle'")).rowcount == 1

        def handle(ticket: Ticket) -> None:
            got.append(ticket)
            came.set()

        queues[0].consume(handle, "w" * 32, 1)
        try:
            assert came.wait(timeout=60)
            yield got
        finally:
            queues[0].stop(5.0)


def test_a_pickle_in_the_database_is_not_read(tmp_path: Path) -> None:
    proof = tmp_path / "run"
    evil = base64.b64encode(pickle.dumps({"args": (_Evil(proof),), "kwargs": {}})).decode()
    with _handed_out(tmp_path, evil) as got:
        assert got == [TICKET]
    assert not proof.exists()


def test_a_ticket_of_an_older_release_still_counts(tmp_path: Path) -> None:
    with _handed_out(tmp_path, base64.b64encode(pickle.dumps({"args": (), "kwargs": {}})).decode()) as got:
        assert got == [TICKET]


def test_tickets_are_written_as_json(tmp_path: Path) -> None:
    with open_jobs(Settings(data_dir=tmp_path / "data"), DbosQueue) as jobs:
        with jobs.database.transaction() as connection:
            jobs.queue.submit(connection, TICKET)
        with jobs.database.reading() as connection:
            joined = "workflow_status JOIN workflow_input USING (workflow_uuid)"
            rows = connection.execute(sa.text(f"SELECT workflow_input.inputs, serialization FROM {joined}")).all()
        jobs.queue.stop(0.0)
    assert rows == [('{"namedArgs":{},"positionalArgs":[]}', "portable_json")]
