"""What may happen to a job, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.disk_faults import StorageFull
from app.imaging.errors import UnreadableScan
from app.inference.findings import Progress
from app.jobs.leases import Living, worker_slot
from app.jobs.lookup import Filters
from app.jobs.queue import Ticket
from app.jobs.records import (
    IdempotencyMismatch,
    JobConflict,
    JobErased,
    Outcome,
    QueueFull,
    State,
    StoreDamaged,
    StoredFile,
    UnknownJob,
    Withdrawn,
)
from app.jobs.tables import audit, metadata, scans
from app.reporting.bundle import document_of
from tests.jobs.installations import ORDER, WHO, World, world

SENSITIVE = replace(ORDER, operating_point="sensitive")
ANSWER = StoredFile("1-result.json", "ab" * 32, 3)


@pytest.fixture
def here(tmp_path: Path, database_url: str | None) -> Iterator[World]:
    with world(tmp_path, database_url, max_queued=20) as made:
        yield made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """On SQLite, with settings."""
    opened = []

    def make(**settings: Any) -> World:
        opened.append(world(tmp_path, **settings))
        return opened[-1].__enter__()

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def test_the_migrations_make_the_tables(here: World) -> None:
    with here.jobs.database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_object": lambda item, name, kind, _reflected, _other: (
                    kind != "table" or name in metadata.tables
                ),
            },
        )
        assert compare_metadata(context, metadata) == []


def test_a_job_is_done(here: World) -> None:
    job_id = here.submit(b"one")
    assert here.job(job_id).state is State.QUEUED
    here.work()
    job = here.job(job_id)
    assert job.state is State.SUCCEEDED
    assert here.analysed == [b"one"]
    assert job.result is not None
    assert b'"probability":0.9' in document_of(here.jobs.store.result(job_id, job.result))
    assert [(a.number, a.outcome, a.stage) for a in job.attempts] == [(1, "succeeded", "done")]
    assert here.kinds(job_id) == ["queued", "started", "succeeded"]
    assert [row["action"] for row in here.rows(audit, job_id)] == ["job.create"]
    assert here.rows(audit, job_id)[0]["actor"] == "anna"


def test_the_same_key_and_body_is_the_same_job(here: World) -> None:
    first = here.submit(b"one", key="k")
    assert here.submit(b"one", key="k") == first
    assert here.submit(b"one", key="other") != first
    for content, order in ((b"two", ORDER), (b"one", SENSITIVE)):
        with pytest.raises(IdempotencyMismatch):
            here.submit(content, order, key="k")
    assert len(here.jobs.store.scan_ids()) == 1


def test_the_same_key_at_the_same_moment_is_one_job(here: World, tmp_path: Path) -> None:
    """Each thread receives into a folder of its own, as requests do."""
    found: list[str] = []

    def send(number: int) -> None:
        from app.imaging.inputs import InputFile  # noqa: PLC0415
        from app.jobs.intake import Request  # noqa: PLC0415

        folder = here.jobs.store.incoming / str(number)
        folder.mkdir()
        (folder / "000000").write_bytes(b"one")
        found.append(here.jobs.intake.accept(folder, [InputFile(folder / "000000", "a")], Request(ORDER, WHO, "k")))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(here.jobs.store.scan_ids()) == 1


def test_the_same_work_is_answered_from_what_is_stored(here: World) -> None:
    first = here.submit(b"one")
    waiting = here.submit(b"one")
    here.work()
    after = here.submit(b"one")
    assert here.job(waiting).answered_from == first
    assert here.job(waiting).attempts[0].outcome == Outcome.ANSWERED
    assert (here.job(after).state, here.job(after).answered_from) == (State.SUCCEEDED, first)
    assert here.job(first).answered_from is None
    assert here.analysed == [b"one"]
    bodies = {here.jobs.store.result(job_id, here.job(job_id).result) for job_id in (first, waiting, after)}
    assert len(bodies) == 1
    here.submit(b"one", SENSITIVE)
    here.submit(b"one", replace(ORDER, model_sha256="cd" * 32))
    here.work()
    assert len(here.analysed) == 3


def test_a_damaged_answer_is_not_given(here: World) -> None:
    first = here.submit(b"one")
    here.work()
    kept = here.job(first).result
    assert kept is not None
    (here.jobs.store.root / "results" / first / kept.name).write_bytes(b"{}")
    with pytest.raises(StoreDamaged):
        here.jobs.store.result(first, kept)
    second = here.submit(b"one")
    here.work()
    assert here.job(second).answered_from is None
    assert len(here.analysed) == 2


def test_a_void_ticket_does_nothing(here: World) -> None:
    job_id = here.submit()
    for ticket in (Ticket(job_id, 2), Ticket("0" * 32, 1)):
        assert here.jobs.ledger.begin(ticket, "w") is None
    assert here.jobs.ledger.begin(Ticket(job_id, 1), "w") is not None


def test_only_the_current_attempt_may_write(here: World) -> None:
    job_id = here.submit()
    ledger = here.jobs.ledger
    stale, current = ledger.begin(Ticket(job_id, 1), "a"), ledger.begin(Ticket(job_id, 1), "b")
    assert stale is not None
    assert current is not None
    writes: list[Callable[[], None]] = [
        lambda: ledger.progress(stale, "read", 0.5, {}),
        lambda: ledger.succeed(stale, ANSWER, {}),
        lambda: ledger.refuse(stale, UnreadableScan("No.")),
        lambda: ledger.give_up_attempt(stale, Outcome.ERROR),
    ]
    for write in writes:
        with pytest.raises(Withdrawn):
            write()
    ledger.succeed(current, ANSWER, {})
    with pytest.raises(Withdrawn):
        ledger.succeed(current, ANSWER, {})
    assert [attempt.outcome for attempt in here.job(job_id).attempts] == ["lost", "succeeded"]


def test_a_scan_that_cannot_be_used_fails_with_its_reason(here: World) -> None:
    error = UnreadableScan("Rows is 0.", code="rows_invalid", values={"rows": 0})
    job_id = here.submit()
    _raising(here, error).__call__(here.queue.tickets.pop())
    job = here.job(job_id)
    assert job.state is State.FAILED
    assert job.problem is not None
    assert (job.problem["code"], job.problem["values"]) == ("rows_invalid", {"rows": 0})
    assert job.problem["classes"][:2] == ["UnreadableScan", "ScanError"]
    assert here.queue.tickets == []


def test_a_job_that_always_fails_is_parked(here: World) -> None:
    job_id = here.submit()
    runner = _raising(here, RuntimeError("Doe^John"))
    while here.queue.tickets:
        runner(here.queue.tickets.pop(0))
    job = here.job(job_id)
    assert job.state is State.PARKED
    assert [attempt.outcome for attempt in job.attempts] == ["error"] * 3
    assert "Doe" not in str(job)


def test_a_full_disk_parks_nothing(here: World) -> None:
    job_id = here.submit()
    runner = _raising(here, StorageFull("No room."))
    for _ in range(5):
        runner(here.queue.tickets.pop(0))
    assert here.job(job_id).state is State.QUEUED
    here.work()
    assert here.job(job_id).state is State.SUCCEEDED


def test_cancel(here: World) -> None:
    waiting, running, done = here.submit(b"1"), here.submit(b"2"), here.submit(b"3")
    here.runner(Ticket(done, 1))
    claim = here.jobs.ledger.begin(Ticket(running, 1), "w")
    assert claim is not None
    for job_id in (waiting, running, waiting):
        assert here.jobs.ledger.cancel(job_id, WHO).state is State.CANCELLED
    with pytest.raises(Withdrawn):
        here.jobs.ledger.progress(claim, "read", 0.0, {})
    with pytest.raises(JobConflict):
        here.jobs.ledger.cancel(done, WHO)
    with pytest.raises(UnknownJob):
        here.jobs.ledger.cancel("0" * 32, WHO)
    here.work()
    assert here.analysed == [b"3"]


def test_a_cancelled_analysis_ends_at_its_next_step(here: World) -> None:
    job_id = here.submit()

    def analyse(_files: Any, _order: Any, on_progress: Callable[[Progress], None]) -> Any:
        here.jobs.ledger.cancel(job_id, WHO)
        on_progress(Progress("read", 0.0))
        raise AssertionError("went on")

    replace(here.runner, analyse=analyse)(here.queue.tickets.pop())
    assert here.job(job_id).state is State.CANCELLED
    assert [attempt.outcome for attempt in here.job(job_id).attempts] == ["cancelled"]


def test_the_jobs_of_a_dead_worker_go_back_into_the_line(here: World) -> None:
    job_id, other = here.submit(b"1"), here.submit(b"2")
    for worker, job in (("dead", job_id), ("alive", other)):
        here.leases.enrol(worker, worker, 1)
        here.jobs.ledger.begin(Ticket(job, 1), worker)
    here.queue.tickets.clear()
    me = Living("alive", lambda: [other])
    assert here.leases.recover(me) == 0
    with here.jobs.database.transaction() as connection:
        connection.execute(sa.text("UPDATE workers SET heartbeat_at = heartbeat_at - 60 WHERE id = 'dead'"))
    assert here.leases.recover(me) == 1
    assert here.queue.tickets == [Ticket(job_id, 2)]
    assert here.leases.recover(me) == 0
    here.work()
    assert [a.outcome for a in here.job(job_id).attempts] == ["lost", "succeeded"]


def test_who_gets_a_slot_buries_its_last_holder(here: World, tmp_path: Path) -> None:
    job_id = here.submit()
    with worker_slot(tmp_path / "data") as slot, worker_slot(tmp_path / "data") as beside:
        assert slot != beside
        here.leases.enrol("before", slot, 1)
        here.jobs.ledger.begin(Ticket(job_id, 1), "before")
    with worker_slot(tmp_path / "data") as again:
        assert again == slot
        here.leases.enrol("after", again, 1)
        assert here.leases.recover(Living("after", list)) == 1


def test_machines_of_one_name_do_not_bury_each_other(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with worker_slot(tmp_path / "one") as slot, worker_slot(tmp_path / "other") as elsewhere:
        assert slot != elsewhere


def test_a_ticket_that_the_engine_lost_is_given_anew(here: World) -> None:
    job_id = here.submit()
    here.queue.tickets.clear()
    with here.jobs.database.transaction() as connection:
        connection.execute(sa.text("UPDATE jobs SET updated_at = updated_at - 60"))
    assert here.leases.recover(Living("me", list)) == 1
    here.work()
    assert here.job(job_id).state is State.SUCCEEDED


def test_more_jobs_than_may_wait(here: World) -> None:
    for number in range(20):
        here.submit(str(number).encode())
    with pytest.raises(QueueFull):
        here.submit(b"one more")
    assert len(here.jobs.store.scan_ids()) == 20


def test_the_list_is_narrowed_and_paged(here: World) -> None:
    ids = [here.submit(str(number).encode()) for number in range(5)]
    here.runner(Ticket(ids[0], 1))
    lookup = here.jobs.lookup
    assert [job.id for job in lookup.jobs(Filters(), 10)] == ids[::-1]
    assert [job.id for job in lookup.jobs(Filters(states=(State.SUCCEEDED,)), 10)] == [ids[0]]
    assert lookup.jobs(Filters(model="other:1"), 10) == []
    page = lookup.jobs(Filters(), 2)
    after = (page[-1].created_at, page[-1].id)
    assert [job.id for job in lookup.jobs(Filters(), 2, after)] == [ids[2], ids[1]]
    assert [job.id for job in lookup.jobs(Filters(created_after=page[0].created_at), 2)] == []


def test_the_place_in_the_line(here: World) -> None:
    ids = [here.submit(str(number).encode()) for number in range(3)]
    assert [here.jobs.lookup.place(here.job(job_id)).position for job_id in ids] == [1, 2, 3]
    assert here.jobs.lookup.place(here.job(ids[0])).eta_s is None
    here.leases.enrol("w", "slot", 1)
    here.jobs.ledger.begin(Ticket(ids[0], 1), "w")
    places = [here.jobs.lookup.place(here.job(job_id)) for job_id in ids]
    assert [place.position for place in places] == [0, 1, 2]
    assert places[1].eta_s < places[2].eta_s


def test_erasing_leaves_nothing(here: World, tmp_path: Path) -> None:
    secret = b"PatientName Doe^John 1.2.840.99"
    job_id = here.submit(secret, replace(ORDER, series_uid="1.2.840.99"), key="Doe^John")
    here.work()
    scan_id = here.job(job_id).scan_id
    receipt = here.jobs.eraser.erase(job_id, WHO, "request")
    assert (receipt.files_left, receipt.rows_left, receipt.scan_shared_with) == (0, 0, ())
    assert receipt.files_removed == 3
    assert receipt.bytes_removed > len(secret)
    with pytest.raises(JobErased):
        here.job(job_id)
    with here.jobs.database.reading() as connection:
        row = connection.execute(sa.select(scans).where(scans.c.id == scan_id)).mappings().one()
    assert row["digest"] is None
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"Doe^John" not in content, path
            assert b"1.2.840.99" not in content, path
    again = here.jobs.eraser.erase(job_id, WHO, "request")
    assert (again.files_removed, again.rows_removed, again.files_left) == (0, 0, 0)
    assert [row["action"] for row in here.rows(audit, job_id)] == ["job.create", "job.erase"]
    # The same scan may come again.
    here.submit(secret)
    here.work()
    assert len(here.analysed) == 2


def test_a_shared_scan_goes_with_its_last_job(here: World) -> None:
    first, second = here.submit(b"one"), here.submit(b"one", SENSITIVE)
    here.work()
    assert here.jobs.eraser.erase(first, WHO, "request").scan_shared_with == (second,)
    assert len(here.jobs.store.scan_ids()) == 1
    assert here.jobs.eraser.erase(second, WHO, "request").files_left == 0
    assert here.jobs.store.scan_ids() == []


def test_a_running_job_can_be_erased(here: World) -> None:
    job_id = here.submit()
    claim = here.jobs.ledger.begin(Ticket(job_id, 1), "w")
    assert claim is not None
    assert here.jobs.eraser.erase(job_id, WHO, "request").files_left == 0
    with pytest.raises(Withdrawn):
        here.jobs.ledger.succeed(claim, ANSWER, {})


def test_retention_by_age(start: Callable[..., World]) -> None:
    here = start(retention_days=1)
    old, new, live = here.submit(b"1"), here.submit(b"2"), here.submit(b"3")
    here.runner(Ticket(old, 1))
    here.runner(Ticket(new, 1))
    with here.jobs.database.transaction() as connection:
        connection.execute(sa.text("UPDATE jobs SET finished_at = finished_at - 90000 WHERE id = :id"), {"id": old})
        connection.execute(sa.text("UPDATE jobs SET created_at = created_at - 90000 WHERE id = :id"), {"id": live})
    assert here.jobs.eraser.retain() == 1
    with pytest.raises(JobErased):
        here.job(old)
    assert here.job(new).state is State.SUCCEEDED
    assert here.job(live).state is State.QUEUED


def test_retention_by_size(start: Callable[..., World]) -> None:
    here = start(retention_bytes=250)
    ids = [here.submit(bytes([number]) * 100) for number in range(4)]
    here.work()
    assert here.jobs.eraser.retain() == 2
    assert [job.id for job in here.jobs.lookup.jobs(Filters(), 10)] == ids[:1:-1]


def test_what_belongs_to_nothing_is_swept(start: Callable[..., World]) -> None:
    import os  # noqa: PLC0415

    here = start()
    kept = here.submit(b"1")
    here.work()
    for folder in ("scans", "results"):
        for name, age_s in (("old", 7200), ("fresh", 0)):
            path = here.jobs.store.root / folder / name
            path.mkdir()
            (path / "file").write_bytes(b"x")
            when = path.stat().st_mtime - age_s
            os.utime(path, (when, when))
    assert here.jobs.eraser.sweep() == 2
    assert "fresh" in here.jobs.store.scan_ids()
    assert here.job(kept).state is State.SUCCEEDED


def _raising(here: World, error: Exception) -> Any:
    def analyse(*_: Any) -> Any:
        raise error

    return replace(here.runner, analyse=analyse)
