"""Forms of a job's answer over HTTP, from a real scan in the store."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from starlette.testclient import TestClient

from app.api.job_work import order_analysis, priors_of, rendered
from app.inference.findings import Findings
from app.jobs.installation import Jobs
from app.jobs.runner import Runner
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder, left_in, make_findings, make_model, make_nodule, shelved
from tests.jobs.installations import HandQueue
from tests.reporting.worlds import Scan, phantom_scan

MEDIA_TYPES = {
    **dict.fromkeys(("sr", "seg", "gsps", "ko", "sc"), "application/dicom"),
    "pdf": "application/pdf",
    "fhir": "application/fhir+json",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return phantom_scan(tmp_path_factory.mktemp("scan"))


@dataclass
class Desk:
    client: TestClient
    jobs: Jobs
    done: Callable[[list[tuple[str, Any]], Findings], dict[str, Any]]


@pytest.fixture
def desk(tmp_path: Path, recorder: Recorder) -> Iterator[Desk]:
    settings = Settings(data_dir=tmp_path / "data", min_free_disk_bytes=0)
    models, queue = shelved(make_model()), HandQueue()
    app = create_app(settings, load=lambda _: models, run=recorder, make_queue=lambda _: queue)
    with TestClient(app) as client:
        jobs = app.state.desk.jobs
        runner = Runner(
            ledger=jobs.ledger, intake=jobs.intake, store=jobs.store, worker_id="w", turn=nullcontext, timeout_s=60.0,
            analyse=order_analysis(settings, models.registry, tmp_path, recorder, priors_of(jobs)), render=rendered,
            observe=lambda *_: None,
        )  # fmt: skip

        def done(files: list[tuple[str, Any]], findings: Findings) -> dict[str, Any]:
            recorder.answer = findings
            job = client.post("/v1/jobs", files=files).json()
            while queue.tickets:
                runner(queue.tickets.pop(0))
            return dict(client.get(f"/v1/jobs/{job['id']}").json())

        yield Desk(client, jobs, done)


def files_of(scan: Scan) -> list[tuple[str, Any]]:
    return [("files", ("Doe^John.dcm", path.read_bytes())) for path in sorted(scan.folder.iterdir())]


def test_every_link_of_a_job_gives_its_form(desk: Desk, scan: Scan) -> None:
    job = desk.done(files_of(scan), scan.findings)
    assert set(job["links"]["results"]) == set(MEDIA_TYPES)
    for form, link in job["links"]["results"].items():
        answer = desk.client.get(link)
        assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPES[form]), answer.text[:300]
        assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
        assert answer.headers["content-disposition"].startswith(f'attachment; filename="{job["id"]}-')
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "PHANTOM" not in str(answer.headers)
        assert desk.client.get(link).content == answer.content
        if answer.headers["content-type"] == "application/dicom":
            dataset = pydicom.dcmread(io.BytesIO(answer.content))
            assert dataset.StudyInstanceUID == scan.findings.identity.study_instance_uid
    assert desk.client.get(job["links"]["results"]["json"]).content == desk.client.get(job["links"]["result"]).content
    assert left_in(desk.jobs.store.incoming) == []


def test_the_same_scan_again_has_the_same_objects(desk: Desk, scan: Scan) -> None:
    first, second = (desk.done(files_of(scan), scan.findings) for _ in range(2))
    assert second["answered_from"] == first["id"]
    bodies = {desk.client.get(job["links"]["results"]["sr"]).content for job in (first, second)}
    assert len(bodies) == 1


def test_what_cannot_be_had_is_said(desk: Desk, scan: Scan) -> None:
    job = desk.done([("files", ("one.mha", b"first"))], replace(make_findings(make_nodule(1, 0.9)), identity=None))
    answer = desk.client.get(f"/v1/jobs/{job['id']}/results/sr")
    assert (answer.status_code, answer.json()["code"]) == (409, "needs_dicom")
    assert desk.client.get(f"/v1/jobs/{job['id']}/results/csv").status_code == 200
    assert desk.client.get(f"/v1/jobs/{job['id']}/results/exe").status_code == 422
    empty = desk.done(files_of(scan), replace(scan.findings, nodules=()))
    answer = desk.client.get(empty["links"]["results"]["seg"])
    assert (answer.status_code, answer.json()["code"]) == (409, "no_nodules")
    assert desk.client.get("/v1/jobs/none/results/sr").status_code == 404


def test_a_job_without_an_answer_has_no_forms(desk: Desk) -> None:
    job = desk.client.post("/v1/jobs", files=[("files", ("one.dcm", b"first"))]).json()
    assert job["links"]["results"] is None
    answer = desk.client.get(f"/v1/jobs/{job['id']}/results/pdf")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_finished")
