"""`/v1/jobs` where only de-identified scans may be stored."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from starlette.testclient import TestClient

from app.imaging.identity import Identity
from app.imaging.inputs import InputFile
from app.jobs.installation import Jobs
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder, left_in, make_model, shelved
from tests.jobs.installations import HandQueue
from tests.pacs.pacs_worlds import write_series


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(data_dir=tmp_path / "data", deidentify="basic", min_free_disk_bytes=0)
    app = create_app(settings, load=lambda _: shelved(make_model()), run=Recorder(), make_queue=lambda _: HandQueue())
    with TestClient(app) as made:
        yield made


def jobs_of(client: TestClient) -> Jobs:
    found: Jobs = client.app.state.desk.jobs  # type: ignore[attr-defined]
    return found


def zipped(tmp_path: Path) -> bytes:
    """A series of KANARIE^ANNA in a zip whose names tell it, too."""
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for path in write_series(tmp_path / "ct", patient="KANARIE^ANNA"):
            archive.write(path, f"KANARIE^ANNA/{path.name}")
    return (tmp_path / "scan.zip").read_bytes()


def stored_files(jobs: Jobs, job_id: str) -> list[InputFile]:
    with jobs.store.scan(jobs.lookup.job(job_id).scan_id or "") as files:
        return list(files)


def post(client: TestClient, body: bytes, **options: Any) -> Any:
    return client.post("/v1/jobs", files=[("files", ("KANARIE^ANNA.zip", body))], **options)


def test_what_is_stored_names_nobody_and_the_series_is_still_found(client: TestClient, tmp_path: Path) -> None:
    body = zipped(tmp_path)
    original = pydicom.dcmread(next((tmp_path / "ct").iterdir()))
    answer = post(client, body, data={"series_uid": str(original.SeriesInstanceUID)})
    assert answer.status_code == 202, answer.text
    jobs, job_id = jobs_of(client), answer.json()["id"]
    stored = [pydicom.dcmread(file.path) for file in stored_files(jobs, job_id)]
    assert len(stored) == 4
    assert {one.SeriesInstanceUID for one in stored} == {jobs.lookup.job(job_id).order.series_uid}
    traces = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and b"KANARIE" in path.read_bytes()]
    assert [path.name for path in traces] == [f"{job_id}.json"]
    assert traces[0].stat().st_mode & 0o777 == 0o600
    identity = Identity.from_bytes(jobs.identities.of(job_id) or b"")
    assert identity.uid(stored[0].StudyInstanceUID) == original.StudyInstanceUID
    assert left_in(jobs.store.incoming) == []


def test_the_same_scan_is_the_same_job_and_a_retry_knows_whose_it_is(client: TestClient, tmp_path: Path) -> None:
    body, key = zipped(tmp_path), {"Idempotency-Key": "once"}
    first, again = (post(client, body, headers=key).json()["id"] for _ in range(2))
    assert first == again
    client.delete(f"/v1/jobs/{first}")
    retry = client.post(f"/v1/jobs/{first}/retry", json={})
    assert retry.status_code == 202, retry.text
    jobs = jobs_of(client)
    assert jobs.identities.of(retry.json()["id"]) == jobs.identities.of(first) is not None
    receipt = client.delete(f"/v1/jobs/{first}/data").json()
    assert (receipt["files_removed"], receipt["files_left"], jobs.identities.of(first)) == (1, 0, None)
    assert jobs.identities.of(retry.json()["id"]) is not None


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("scan.nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 1 1 1\nencoding: raw\n\n\0\0", "needs_dicom"),
        ("scan.dcm", bytes(128) + b"DICM" + b"KANARIE", "truncated"),
        ("notes.txt", b"KANARIE", "nothing_left"),
    ],
)
def test_what_cannot_be_deidentified_is_not_stored(
    client: TestClient, tmp_path: Path, name: str, body: bytes, code: str
) -> None:
    answer = client.post("/v1/jobs", files=[("files", (name, body))])
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "KANARIE" not in json.dumps(answer.json())
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and b"KANARIE" in path.read_bytes()]


def test_batches_are_refused(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/v1/batches", files=[("files", ("scan.zip", zipped(tmp_path)))])
    assert (answer.status_code, answer.json()["code"]) == (422, "batches_not_deidentified")
