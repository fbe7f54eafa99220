"""A reader's review over HTTP: kept in revisions, never overwritten unseen, gone with its job."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa

from app.jobs.tables import audit, job_reviews
from tests.api.analysed import World, analysed_world, reading_phantom, reading_scan, refused
from tests.api.test_explanations import metaimage

REVIEWER = "Lösch^Änne"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[World]:
    with analysed_world(tmp_path_factory.mktemp("review"), tiny_model_store) as made:
        yield made


@pytest.fixture(scope="module")
def scan() -> bytes:
    return reading_scan()


@pytest.fixture
def done(world: World, scan: bytes) -> str:
    job = world.job(scan)
    world.work()  # after the first, the answer is copied
    return job


def review(**changes: Any) -> dict[str, Any]:
    return {
        "reviewer": REVIEWER,
        "decisions": [
            {"nodule_id": "nodule-1", "decision": "accepted", "note": ""},
            {"nodule_id": "nodule-2", "decision": "rejected", "note": "a vessel"},
        ],
        "added": [{"center_lps_mm": [10.0, 5.0, -20.0], "diameter_mm": 6.5, "note": ""}],
        "finished": False,
        **changes,
    }


def put(world: World, job: str, body: Any, **headers: str) -> Any:
    return world.client.put(f"/v1/jobs/{job}/review", json=body, headers=headers)


def test_a_review_comes_back_and_earlier_revisions_stay(world: World, done: str) -> None:
    assert refused(world.get(done, "review")) == (404, "no_review")
    first = put(world, done, review())
    assert first.status_code == 200, first.text
    kept = world.get(done, "review")
    assert kept.json() == first.json()
    assert kept.headers["etag"] == first.headers["etag"]
    assert kept.headers["cache-control"] == "no-store"
    assert (kept.json()["revision"], kept.json()["finished"]) == (1, False)
    # The whole document may be sent back as it came.
    second = put(world, done, {**kept.json(), "finished": True}, **{"if-match": kept.headers["etag"]})
    assert second.json()["revision"] == 2
    assert second.json()["updated_at"] >= first.json()["updated_at"]
    assert world.get(done, "review").json()["finished"] is True
    assert world.get(done, "review", revision=1).json() == first.json()
    assert refused(world.get(done, "review", revision=3)) == (404, "no_review")


def test_nobody_overwrites_what_they_have_not_seen(world: World, done: str) -> None:
    first = put(world, done, review(), **{"if-none-match": "*"})
    tag = first.headers["etag"]
    assert refused(put(world, done, review())) == (412, "review_changed")
    assert refused(put(world, done, review(), **{"if-none-match": "*"})) == (412, "review_changed")
    assert refused(put(world, done, review(), **{"if-match": '"another"'})) == (412, "review_changed")
    second = put(world, done, review(finished=True), **{"if-match": f'"x", {tag}'})
    assert second.status_code == 200
    assert refused(put(world, done, review(), **{"if-match": tag})) == (412, "review_changed")
    assert put(world, done, review(), **{"if-match": "*"}).json()["revision"] == 3
    other = world.job(b"another scan")
    assert refused(put(world, other, review(), **{"if-match": tag})) == (409, "job_not_finished")
    world.queue.tickets.clear()


def test_of_many_at_once_one_is_kept(world: World, done: str) -> None:
    tag = put(world, done, review()).headers["etag"]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: put(world, done, review(), **{"if-match": tag}).status_code, range(8)))
    assert sorted(answers) == [200] + [412] * 7
    folder = world.jobs.settings.data_dir / "results" / done
    assert len(list(folder.glob("review-*"))) == 2  # nothing is left of those that came too late


def test_the_corrected_report_is_the_readers(world: World, done: str) -> None:
    assert refused(world.get(done, "review/sr")) == (404, "no_review")
    put(world, done, review(finished=True))
    answer = world.get(done, "review/sr")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom")
    report = pydicom.dcmread(io.BytesIO(answer.content))
    draft = pydicom.dcmread(io.BytesIO(world.get(done, "results/sr").content))
    assert report.VerificationFlag == "VERIFIED"
    assert str(report.VerifyingObserverSequence[0].VerifyingObserverName) == REVIEWER
    predecessor = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == draft.SOPInstanceUID
    assert report.StudyInstanceUID == draft.StudyInstanceUID
    assert world.get(done, "review/sr").content == answer.content
    assert done in answer.headers["content-disposition"]


def test_a_scan_that_is_no_dicom_has_a_review_but_no_report(world: World, tmp_path: Path) -> None:
    job = world.job(metaimage(reading_phantom(seed=4).volume, tmp_path / "scan.mha"), "scan.mha")
    world.work()
    assert put(world, job, review(decisions=[])).status_code == 200
    assert refused(world.get(job, "review/sr")) == (409, "needs_dicom")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"decisions": [{"nodule_id": "nodule-99", "decision": "accepted"}]}, "unknown_nodule"),
        ({"decisions": [{"nodule_id": "nodule-1", "decision": "accepted"}] * 2}, "nodule_decided_twice"),
        ({"added": [{"center_lps_mm": [9999.0, 0.0, 0.0], "diameter_mm": 5.0}]}, "outside_scan"),
        ({"added": [{"center_lps_mm": [0.0, 0.0, 1e300], "diameter_mm": 5.0}]}, "invalid_request"),
        ({"added": [{"center_lps_mm": [0.0, 0.0, 0.0], "diameter_mm": 0.0}]}, "invalid_request"),
        ({"added": [{"center_lps_mm": [0.0, 0.0, 0.0], "diameter_mm": 5.0}] * 101}, "invalid_request"),
        ({"decisions": [{"nodule_id": "nodule-1", "decision": "maybe"}]}, "invalid_request"),
        ({"reviewer": ""}, "invalid_request"),
        ({"reviewer": " ^ "}, "invalid_request"),
        ({"reviewer": "a\\b"}, "invalid_request"),
        ({"reviewer": "a=b"}, "invalid_request"),
        ({"reviewer": "a\nb"}, "invalid_request"),
        ({"reviewer": "x" * 65}, "invalid_request"),
        ({"decisions": [{"nodule_id": "nodule-1", "decision": "accepted", "note": "x" * 1001}]}, "invalid_request"),
        ({"decisions": [{"nodule_id": "nodule-1", "decision": "accepted", "note": "\x00"}]}, "invalid_request"),
        ({"patient": "Doe"}, "invalid_request"),
        ({"finished": None}, "invalid_request"),
    ],
)
def test_hostile_reviews(world: World, done: str, changes: dict[str, Any], code: str) -> None:
    answer = put(world, done, review(**changes))
    assert refused(answer) == (422, code)
    assert "Doe" not in answer.text
    assert refused(world.get(done, "review")) == (404, "no_review")


def test_a_body_is_bounded(world: World, done: str) -> None:
    answer = world.client.put(f"/v1/jobs/{done}/review", content=b" " * (1 << 21) + b"{}")
    assert answer.status_code == 413


def test_it_is_noted_without_the_name_and_erased_with_the_job(
    world: World, done: str, capfd: pytest.CaptureFixture[str]
) -> None:
    put(world, done, review(reviewer="Secret^Name"))
    world.get(done, "review/sr")
    with world.jobs.database.reading() as connection:
        rows = connection.execute(sa.select(audit).where(audit.c.job_id == done)).mappings().all()
    told = {row["action"]: row["values"] for row in rows}
    assert told["job.review"] == {"revision": 1, "accepted": 1, "rejected": 1, "added": 1, "finished": False}
    assert "job.review.report" in told
    assert "Secret" not in str([dict(row) for row in rows])
    logged = capfd.readouterr()
    assert "Secret" not in logged.out + logged.err
    assert "Secret" not in world.client.get("/metrics").text
    receipt = world.client.delete(f"/v1/jobs/{done}/data").json()
    assert (receipt["files_left"], receipt["rows_left"]) == (0, 0)
    assert world.get(done, "review").status_code == 410
    assert world.get(done, "review/sr").status_code == 410
    assert put(world, done, review()).status_code == 410
    with world.jobs.database.reading() as connection:
        assert connection.execute(sa.select(job_reviews).where(job_reviews.c.job_id == done)).all() == []
    assert not (world.jobs.settings.data_dir / "results" / done).exists()
