"""The jobs' parts without an engine and without processes: tickets are worked on when a test says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from app.api.job_work import rendered
from app.imaging.inputs import InputFile
from app.inference.findings import Findings, OnProgress
from app.jobs.installation import Jobs, open_jobs
from app.jobs.intake import Request
from app.jobs.leases import Leases
from app.jobs.queue import Handle, Ticket
from app.jobs.records import Job, Order
from app.jobs.rows import Who
from app.jobs.runner import Runner
from app.settings import Settings
from tests.api.standins import SHA, make_findings, make_nodule

ORDER = Order(model="standin:1.2.3", model_sha256=SHA, operating_point="balanced")
WHO = Who("anna", "request-1")


@dataclass
class HandQueue:
    """Fits where DBOS does; hands out a ticket when asked to."""

    tickets: list[Ticket] = field(default_factory=list)

    def submit(self, connection: sa.Connection, ticket: Ticket, delay_s: float = 0.0) -> None:
        self.tickets.append(ticket)

    def withdraw(self, tickets: Sequence[Ticket]) -> None:
        self.tickets = [ticket for ticket in self.tickets if ticket not in tickets]

    def missing(self, tickets: Sequence[Ticket], live_workers: Sequence[str]) -> list[Ticket]:
        return [ticket for ticket in tickets if ticket not in self.tickets]

    def consume(self, handle: Handle, worker_id: str, concurrency: int) -> None:
        raise AssertionError("tests hand out tickets themselves")

    def stop(self, patience_s: float) -> None:
        pass


@dataclass
class World:
    """An installation, its engine, and an analysis that can be changed."""

    jobs: Jobs
    queue: HandQueue
    runner: Runner
    leases: Leases
    analysed: list[bytes]

    def submit(self, content: bytes = b"scan", order: Order = ORDER, key: str | None = None) -> str:
        folder = self.jobs.store.incoming / "upload"
        folder.mkdir(exist_ok=True)
        (folder / "000000").write_bytes(content)
        files = [InputFile(folder / "000000", "Doe^John.dcm")]
        return self.jobs.intake.accept(folder, files, Request(order, WHO, key))

    def work(self) -> None:
        """Hand out every ticket that waits."""
        while self.queue.tickets:
            self.runner(self.queue.tickets.pop(0))

    def job(self, job_id: str) -> Job:
        return self.jobs.lookup.job(job_id)

    def rows(self, table: sa.Table, job_id: str) -> list[dict[str, Any]]:
        with self.jobs.database.reading() as connection:
            found = connection.execute(sa.select(table).where(table.c.job_id == job_id)).mappings()
            return [dict(row) for row in found]

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.jobs.lookup.events(job_id, 0)[0]]


@contextmanager
def world(folder: Path, database_url: str | None = None, **settings: Any) -> Iterator[World]:
    url = None if database_url is None else SecretStr(database_url)
    chosen = Settings(data_dir=folder / "data", database_url=url, **settings)
    queue, analysed = HandQueue(), []

    def analyse(files: Sequence[InputFile], _order: Order, _on_progress: OnProgress) -> Findings:
        analysed.append(files[0].path.read_bytes())
        return make_findings(make_nodule(1, 0.9))

    with open_jobs(chosen, lambda _database: queue) as jobs:
        runner = Runner(
            ledger=jobs.ledger, intake=jobs.intake, store=jobs.store, worker_id="w" * 32, analyse=analyse,
            render=rendered, turn=nullcontext, timeout_s=60.0, observe=lambda _findings, _waited_s: None,
        )  # fmt: skip
        yield World(jobs, queue, runner, Leases(jobs.ledger, lease_s=0.5), analysed)
