"""Batches at the same moment, on SQLite and PostgreSQL: one key is one batch, one content is one scan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import SimpleITK
import sqlalchemy as sa

from app.imaging.inputs import InputFile
from app.imaging.read_options import ReadOptions
from app.jobs.batches import find_batch
from app.jobs.intake import Intake, Request
from app.jobs.records import JobErased
from app.jobs.tables import audit
from app.phantom.dicom_series import write_dicom_series
from tests.imaging.dicom_worlds import SMALL, tiny_ct
from tests.jobs.installations import ORDER, WHO, World, world


@pytest.fixture
def here(tmp_path: Path, database_url: str | None) -> Iterator[World]:
    with world(tmp_path, database_url, max_queued=40) as made:
        yield made


@pytest.fixture
def accept(here: World, tmp_path: Path) -> Callable[..., str]:
    """``accept([2, 1], key)`` sends two series; from 10 on they are volume files, found in the order sent."""
    written = {seed: write_dicom_series(tiny_ct(seed=seed), tmp_path / f"series-{seed}") for seed in (1, 2, 3)}
    for seed in (10, 11):
        written[seed] = [tmp_path / f"{seed}.mha"]
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(tiny_ct(seed=seed).hu), str(written[seed][0]))
    calls = iter(range(100))

    def send(seeds: Sequence[int], key: str | None = None) -> str:
        folder = here.jobs.store.incoming / f"upload-{next(calls)}"
        folder.mkdir()
        files = []
        for path in (path for seed in seeds for path in written[seed]):
            received = folder / f"{len(files):06d}"
            received.write_bytes(path.read_bytes())
            files.append(InputFile(received, path.name))
        return here.jobs.batches.accept(folder, files, Request(ORDER, WHO, key), ReadOptions(limits=SMALL))

    return send


def at_once(*calls: Callable[[], object]) -> list[BaseException]:
    """Run them in threads; gives what they raised."""
    raised: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_the_same_key_at_the_same_moment_is_one_batch(here: World, accept: Callable[..., str]) -> None:
    found: list[str] = []
    assert at_once(*[lambda: found.append(accept([1, 2], "k"))] * 4) == []
    assert (len(found), len(set(found))) == (4, 1)
    assert len(find_batch(here.jobs.database, found[0]).jobs) == 2
    assert here.jobs.lookup.waiting() == len(here.queue.tickets) == 2
    assert len(here.jobs.store.scan_ids()) == 2
    with here.jobs.database.reading() as connection:
        rows = connection.execute(sa.select(audit.c["values"]).where(audit.c.action == "batch.create")).scalars().all()
    assert [(row["jobs"], row["rejected"]) for row in rows] == [(2, 0)]


def test_the_same_series_in_many_batches_at_the_same_moment(here: World, accept: Callable[..., str]) -> None:
    found: list[str] = []
    orders = ([1, 2, 3], [3, 2, 1], [2, 1], [3, 1])
    assert at_once(*[lambda seeds=seeds: found.append(accept(seeds)) for seeds in orders]) == []
    assert len(set(found)) == 4
    assert len(here.jobs.store.scan_ids()) == 3
    assert here.jobs.lookup.waiting() == 10
    here.work()
    assert len(here.analysed) == 3
    for batch_id in found:
        assert not find_batch(here.jobs.database, batch_id).is_live


def test_of_two_last_jobs_that_are_erased_at_the_same_moment_one_closes_the_batch(
    here: World, accept: Callable[..., str]
) -> None:
    batch_id = accept([1, 2, 3])
    jobs = [job.id for job, _ in find_batch(here.jobs.database, batch_id).jobs]
    erase = here.jobs.eraser.erase
    assert at_once(*[lambda job_id=job_id: erase(job_id, WHO, "request") for job_id in jobs]) == []
    with pytest.raises(JobErased):
        find_batch(here.jobs.database, batch_id)
    assert here.jobs.store.scan_ids() == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_batches_with_the_same_series_do_not_wait_for_each_other_for_ever(
    here: World, accept: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its first scan in hand before either goes on, if that can be."""
    accept([10, 11])
    real, both, first = Intake.hold_scan, threading.Barrier(2), threading.local()

    def hold_scan(intake: Intake, *arguments: Any) -> bool:
        held = real(intake, *arguments)
        if not hasattr(first, "held"):
            first.held = True
            with suppress(threading.BrokenBarrierError):
                both.wait(timeout=1)
        return held

    monkeypatch.setattr(Intake, "hold_scan", hold_scan)
    assert at_once(lambda: accept([10, 11]), lambda: accept([11, 10])) == []
