"""Whole jobs on a bucket: nothing shared but the database and the store, whatever is killed or away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.imaging.read_options import ReadOptions
from app.imaging.reading import read_ct
from app.jobs.batches import find_batch
from app.jobs.intake import Request
from app.jobs.records import State, StoreUnavailable
from app.phantom.dicom_series import write_dicom_series
from tests.api.standins import left_in
from tests.imaging.dicom_worlds import SMALL, options, tiny_ct
from tests.jobs.installations import ORDER, WHO, world
from tests.jobs.processes import Farm, kill
from tests.jobs.s3 import TestBucket

StartFarm = Callable[..., Farm]


@pytest.fixture
def start(start_farm: StartFarm, bucket: TestBucket) -> StartFarm:
    def configure(database_url: str | None = None, **settings: str) -> Farm:
        on_bucket = {**bucket.s3.environment, "LUNGNODULE_STORE_URL": bucket.url}
        return start_farm(database_url, **on_bucket, **settings)

    return configure


def test_service_and_worker_share_no_folder(
    start: StartFarm, bucket: TestBucket, postgres_url: str, tmp_path: Path
) -> None:
    farm = start(postgres_url, STUB_STAGE_S="0.01", LUNGNODULE_WORKER_LEASE_S="1")
    farm.serve(LUNGNODULE_WORKER_CONCURRENCY="0")
    elsewhere = tmp_path / "elsewhere"
    first = farm.worker(LUNGNODULE_DATA_DIR=str(elsewhere))
    job_id = farm.submit("hold lungs 7")
    farm.until_in(job_id, "lungs")
    assert list(elsewhere.glob("fetched/*/*/000000"))
    kill(first)
    worker = farm.worker(LUNGNODULE_DATA_DIR=str(elsewhere))
    job = farm.assert_done_once(job_id, 7)
    assert job["attempts"][0]["outcome"] == "lost"
    farm.until(lambda: left_in(elsewhere / "fetched") == [], "nothing is left, of the killed one neither")
    assert list(farm.data_dir.glob("incoming/*/*")) == []
    assert len(bucket.keys("scans/")) == 2
    receipt = requests.delete(f"{farm.url}/v1/jobs/{job_id}/data", timeout=60).json()
    assert (receipt["files_removed"], receipt["files_left"]) == (3, 0)
    assert bucket.keys() == []
    assert worker.poll() is None


def test_killed_during_the_transfer_nothing_is_left(start: StartFarm, bucket: TestBucket, tmp_path: Path) -> None:
    farm = start(LUNGNODULE_WORKER_CONCURRENCY="0")
    process = farm.serve()
    held, let_go = threading.Event(), threading.Event()

    def answer(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("/manifest.json"):
            held.set()
            let_go.wait(60)
            return 500
        return None

    bucket.s3.instead(answer)
    sending = threading.Thread(target=_send_to_a_killed_service, args=(farm,))
    sending.start()
    assert held.wait(60)
    kill(process)
    let_go.set()
    sending.join()
    assert bucket.keys("scans/")
    bucket.s3.instead(lambda _method, _path: None)
    farm.serve()
    assert requests.get(f"{farm.url}/v1/jobs", timeout=60).json()["jobs"] == []
    assert list(farm.data_dir.glob("incoming/*/*")) == []
    with world(tmp_path, store_url=bucket.url) as here:
        assert here.jobs.eraser.sweep() == 0  # perhaps somebody is at it
        assert replace(here.jobs.eraser, orphan_age_s=-60.0).sweep() == 1
    assert bucket.keys() == []


def _send_to_a_killed_service(farm: Farm) -> None:
    with pytest.raises(requests.ConnectionError):
        farm.post("ok 1")


def test_another_database_does_not_sweep_our_bucket(tmp_path: Path, bucket: TestBucket) -> None:
    with world(tmp_path / "ours", store_url=bucket.url) as here:
        here.submit(b"one")
    with world(tmp_path / "ours", store_url=bucket.url) as again:
        assert len(again.jobs.store.scan_ids()) == 1
    with pytest.raises(OptionError) as caught, world(tmp_path / "other", store_url=bucket.url):
        pass
    assert caught.value.code == "store_of_another"


def test_while_the_store_is_away_nothing_is_lost(tmp_path: Path, bucket: TestBucket) -> None:
    with world(tmp_path, store_url=bucket.url, max_attempts=2) as here:
        waiting = here.submit(b"one")
        ledger = replace(here.jobs.ledger, pauses_s=(0.0,))
        runner = replace(here.runner, ledger=ledger)
        bucket.s3.stop()
        try:
            with pytest.raises(StoreUnavailable):
                here.submit(b"two")
            for _ in range(3):
                runner(here.queue.tickets.pop(0))
        finally:
            bucket.s3.start()
        job = here.job(waiting)
        assert job.state is State.QUEUED
        assert [(tried.outcome, tried.code) for tried in job.attempts] == [("deferred", "store_unavailable")] * 3
        here.work()
        assert here.job(waiting).state is State.SUCCEEDED
        assert here.analysed == [b"one"]
        assert here.submit(b"one") != waiting
        assert len(bucket.keys("results/")) == 2  # the second answer was copied
        here.submit(b"two")
        here.work()
        assert here.analysed == [b"one", b"two"]


def test_a_store_that_goes_for_a_moment_does_not_cost_the_analysis(tmp_path: Path, bucket: TestBucket) -> None:
    refusals = iter([503, 503])
    with world(tmp_path, store_url=bucket.url) as here:
        job_id = here.submit(b"one")
        bucket.s3.instead(
            lambda method, path: next(refusals, None) if method == "PUT" and "/results/" in path else None
        )
        here.runner(here.queue.tickets.pop(0))
        assert next(refusals, None) is None
        assert [tried.outcome for tried in here.job(job_id).attempts] == ["succeeded"]
        assert len(bucket.keys("results/")) == 1


@pytest.mark.parametrize("trouble", ["away", "denied"])
def test_an_erasure_that_failed_is_not_called_done(tmp_path: Path, bucket: TestBucket, trouble: str) -> None:
    with world(tmp_path, store_url=bucket.url) as here:
        job_id = here.submit(b"one")
        here.work()
        bucket.s3.instead(lambda method, _path: 403 if method == "POST" else None)
        if trouble == "away":
            bucket.s3.stop()
        try:
            with pytest.raises(StoreUnavailable):
                here.jobs.eraser.erase(job_id, WHO, "request")
        finally:
            if trouble == "away":
                bucket.s3.start()
        bucket.s3.instead(lambda _method, _path: None)
        assert len(bucket.keys()) == 3
        receipt = here.jobs.eraser.erase(job_id, WHO, "request")
        assert (receipt.files_removed, receipt.files_left) == (3, 0)
        assert bucket.keys() == []


def test_a_batch_on_a_bucket(tmp_path: Path, bucket: TestBucket) -> None:
    with world(tmp_path, store_url=bucket.url) as here:
        folder = here.jobs.store.incoming / "upload"
        files = [
            InputFile(path) for seed in (1, 2) for path in write_dicom_series(tiny_ct(seed=seed), folder / str(seed))
        ]
        batch_id = here.jobs.batches.accept(folder, files, Request(ORDER, WHO), ReadOptions(limits=SMALL))
        assert sum(key.endswith("/manifest.json") for key in bucket.keys("scans/")) == 2
        assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "inflated"]
        here.work()
        first, second = (job for job, _ in find_batch(here.jobs.database, batch_id).jobs)
        assert (first.state, second.state) == (State.SUCCEEDED, State.SUCCEEDED)
        assert here.jobs.eraser.erase(first.id, WHO, "request").files_left == 0
        with here.jobs.store.scan(str(second.scan_id)) as found:
            hu = read_ct(found, options())[0].hu.tobytes()
        assert hu in [tiny_ct(seed=seed).hu.tobytes() for seed in (1, 2)]
