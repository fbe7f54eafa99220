"""Figures of the whole line: right on both databases, and never slow or a failure where there is none."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import SecretStr

from app.imaging.errors import UnreadableScan
from app.jobs.census import Census, LatestCensus, take_census
from app.jobs.census_metrics import census_shown
from app.jobs.records import DatabaseUnavailable, Outcome, State
from app.jobs.tables import jobs, outbox, workers
from app.settings import WebhookTarget
from tests.jobs.installations import ORDER, WHO, World, world

TARGET = {"pacs": WebhookTarget(url="http://127.0.0.1:9/", secret=SecretStr("x" * 16))}


def census_of(made: World) -> Census:
    return take_census(made.jobs.database, lease_s=30.0)


def test_the_census_counts_what_is_there(tmp_path: Path, database_url: str | None) -> None:
    with world(tmp_path, database_url, webhooks=TARGET) as made:
        done = made.submit(b"12345", replace(ORDER, notify="pacs"))
        made.work()
        made.submit(b"1234567")
        counted = census_of(made)
        assert {state: count for state, count in counted.jobs.items() if count} == {State.SUCCEEDED: 1, State.QUEUED: 1}
        assert {outcome: count for outcome, count in counted.attempts.items() if count} == {Outcome.SUCCEEDED: 1}
        assert counted.scan_bytes == 12
        assert counted.result_bytes == made.job(done).result.size
        assert (counted.webhooks_waiting, counted.webhooks_given_up) == (1, 0)
        assert 0 <= counted.oldest_waiting_s < 60
        with made.jobs.database.transaction() as connection:
            connection.execute(sa.update(outbox).values(next_at=None, tries=20))
            connection.execute(
                sa.update(jobs).where(jobs.c.state == State.QUEUED).values(created_at=jobs.c.created_at - 1000)
            )
        later = census_of(made)
        assert (later.webhooks_waiting, later.webhooks_given_up, later.oldest_webhook_s) == (0, 1, 0.0)
        assert 1000 <= later.oldest_waiting_s < 1060
        made.jobs.eraser.erase(done, WHO, "request")
        left = census_of(made)
        assert (sum(left.jobs.values()), sum(left.attempts.values()), left.scan_bytes, left.result_bytes) == (
            1,
            0,
            7,
            0,
        )


def test_only_workers_that_live_are_counted(tmp_path: Path, database_url: str | None) -> None:
    with world(tmp_path, database_url) as made:
        for number, places in enumerate((1, 2, 4)):
            made.leases.enrol(f"{number}" * 32, f"slot-{number}", places)
        with made.jobs.database.transaction() as connection:
            late = sa.update(workers).where(workers.c.slot == "slot-1")
            connection.execute(late.values(heartbeat_at=workers.c.heartbeat_at - 31))
        made.leases.leave("0" * 32)
        assert (census_of(made).workers, census_of(made).places) == (1, 4)


def test_no_job_no_age(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        counted = census_of(made)
        assert counted.oldest_waiting_s == counted.oldest_webhook_s == 0.0
        assert sum(counted.jobs.values()) == counted.scan_bytes == counted.result_bytes == 0


def test_a_database_that_hangs_delays_nobody_and_is_asked_once() -> None:
    release, calls = threading.Event(), []

    def hanging() -> Census:
        calls.append(1)
        release.wait(60)
        raise DatabaseUnavailable("gone")

    latest = LatestCensus(hanging, patience_s=0.01)
    try:
        assert [latest() for _ in range(3)] == [None] * 3
        assert len(calls) == 1
    finally:
        release.set()


@pytest.mark.parametrize("failure", [DatabaseUnavailable("gone"), sa.exc.TimeoutError("pool")])
def test_no_answer_is_remembered_for_a_while_too(failure: Exception) -> None:
    calls = []

    def failing() -> Census:
        calls.append(1)
        raise failure

    latest = LatestCensus(failing, fresh_s=60.0, patience_s=60.0)
    assert [latest(), latest()] == [None, None]
    assert len(calls) == 1


def test_a_census_that_is_old_is_taken_anew(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        latest = LatestCensus(lambda: census_of(made), fresh_s=0.0, patience_s=60.0)
        assert latest().jobs[State.QUEUED] == 0
        made.submit()
        assert latest().jobs[State.QUEUED] == 1
        kept = LatestCensus(lambda: census_of(made), fresh_s=60.0, patience_s=60.0)
        assert kept().jobs[State.QUEUED] == 1
        made.submit(b"another")
        assert kept().jobs[State.QUEUED] == 1


def test_gauges_are_absent_where_the_database_is_and_one_says_so(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    with world(tmp_path) as made, census_shown(registry, made.jobs.database, 30.0):
        made.submit()
        text = generate_latest(registry).decode()
        assert "lungnodule_database_up 1.0" in text
        assert 'lungnodule_jobs{state="queued"} 1.0' in text
        assert 'lungnodule_jobs{state="parked"} 0.0' in text
    assert generate_latest(registry) == b""
    with world(tmp_path) as made:
        broken = replace(made.jobs.database, engine=sa.create_engine("sqlite:////absent/folder/file"))
        with census_shown(registry, broken, 30.0):
            text = generate_latest(registry).decode()
            assert "lungnodule_database_up 0.0" in text
            assert "lungnodule_jobs" not in text


def test_a_refused_job_is_counted_as_failed(tmp_path: Path) -> None:
    with world(tmp_path) as made:

        def refuse(*_: object) -> object:
            raise UnreadableScan("Rows is 0.")

        made.submit()
        replace(made.runner, analyse=refuse)(made.queue.tickets.pop())
        counted = census_of(made)
        assert (counted.jobs[State.FAILED], counted.attempts[Outcome.REFUSED]) == (1, 1)
