"""A reviewed answer as SR: valid in the eyes of others' validators, and the person's word apart from the model's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from app.inference.findings import DISCLAIMER
from app.reporting import codes
from app.reporting.dicom_objects import in_bytes
from app.reporting.identifiers import tracking_uid
from app.reporting.material import Material
from app.reporting.results import dicom_objects
from app.reporting.review import AddedNodule, Decision, KeptReview
from app.reporting.reviewed_report import reviewed_report
from tests.reporting.validators import errors_of_dciodvfy, pixelmed, program, run
from tests.reporting.worlds import Scan

AT = datetime(2026, 5, 6, 7, 8, 9, 120000, UTC)
WORLDS = ("classic", "enhanced", "without_nodules")


def review_of(scan: Scan, *, finished: bool) -> KeptReview:
    first = [Decision(nodule_id="nodule-1", decision="accepted", note="as last year")] if scan.findings.nodules else []
    second = [Decision(nodule_id="nodule-2", decision="rejected", note="a vessel")] if scan.findings.nodules else []
    middle = scan.findings.grid.to_patient([(n - 1) / 2 for n in scan.findings.grid.shape_zyx])
    added = AddedNodule(center_lps_mm=tuple(middle), diameter_mm=11.0, note="seen in the coronal plane")
    return KeptReview(
        reviewer="Anna Reader", decisions=(*first, *second), added=(added,), finished=finished, revision=3,
        updated_at=AT,
    )  # fmt: skip


def report_of(scan: Scan, *, finished: bool = True) -> Dataset:
    return reviewed_report(Material(scan.report, scan.originals), review_of(scan, finished=finished))


@pytest.fixture(params=WORLDS)
def scan(request: pytest.FixtureRequest) -> Scan:
    found: Scan = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("finished", [True, False])
def test_validators_find_no_error(scan: Scan, finished: bool, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(in_bytes(report_of(scan, finished=finished)))
    assert errors_of_dciodvfy(path) == []
    said = run([program("dsrdump", "dcmtk"), path])
    assert "Document" in said
    assert "\nE:" not in f"\n{said}"


@pytest.mark.parametrize("name", ["classic", "without_nodules"])
def test_it_follows_tid_1500(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    (tmp_path / "sr.dcm").write_bytes(in_bytes(report_of(request.getfixturevalue(name))))
    said = pixelmed([tmp_path / "sr.dcm"])
    assert "Found Root Template TID_1500 (MeasurementReport)" in said
    assert [line for line in said if line.startswith("Error")] == []


def test_only_a_finished_review_is_verified_by_its_reader(classic: Scan) -> None:
    report, open_report = report_of(classic), report_of(classic, finished=False)
    assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == ("VERIFIED", "COMPLETE", "FINAL")
    (observer,) = report.VerifyingObserverSequence
    assert str(observer.VerifyingObserverName).rstrip("^") == "Anna Reader"
    assert str(observer.VerificationDateTime).startswith("20260506070809.12")
    assert (open_report.VerificationFlag, open_report.CompletionFlag) == ("UNVERIFIED", "PARTIAL")
    assert "VerifyingObserverSequence" not in open_report
    assert (report.ContentDate, str(report.ContentTime)) == ("20260506", "070809.120000")
    assert report.SOPInstanceUID != open_report.SOPInstanceUID
    assert report_of(classic).SOPInstanceUID == report.SOPInstanceUID
    assert DISCLAIMER in report.SeriesDescription


def test_the_draft_of_the_ai_is_the_predecessor(classic: Scan) -> None:
    (draft,) = dicom_objects(classic.report, classic.originals, ["sr"])
    (study,) = report_of(classic).PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == draft.StudyInstanceUID
    assert series.SeriesInstanceUID == draft.SeriesInstanceUID
    assert reference.ReferencedSOPInstanceUID == draft.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == draft.SOPClassUID


def test_a_person_and_a_device_observed(classic: Scan) -> None:
    items = list(walk(report_of(classic)))
    assert [str(item.PersonName).rstrip("^") for item in items if item.ValueType == "PNAME"] == ["Anna Reader"]
    types = [
        item.ConceptCodeSequence[0].CodeMeaning
        for item in items
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "121005"
    ]
    assert sorted(types) == ["Device", "Person"]


def test_each_decision_stands_at_its_nodule(classic: Scan) -> None:
    groups = {tracking(group): group for group in groups_of(report_of(classic)) if decision(group)}
    first, second = (tracking_uid(classic.findings, nodule) for nodule in classic.findings.nodules)
    added = next(uid for uid in groups if uid not in (first, second))
    assert [decision(groups[uid]) for uid in (first, second, added)] == ["ACCEPTED", "REJECTED", "ADDED"]
    assert codes.VOLUME.value in measured(groups[first])
    # Whoever computes with the report does not count what was rejected, and the added is nobody's but the person's.
    assert measured(groups[second]) == {}
    assert measured(groups[added]) == {codes.DIAMETER.value: 11.0}
    assert algorithms(groups[first])
    assert not algorithms(groups[added])


def test_notes_and_what_is_undecided_are_told_in_words(classic: Scan) -> None:
    text = "\n".join(item.TextValue for item in walk(report_of(classic)) if item.ValueType == "TEXT")
    for words in ("nodule-2 rejected: a vessel", "1 accepted, 1 rejected, 0 not decided, 1 added", "Anna Reader"):
        assert words in text
    nothing = KeptReview(reviewer="A^B", revision=1, updated_at=AT)
    report = reviewed_report(Material(classic.report, classic.originals), nothing)
    assert {decision(group) for group in groups_of(report)} == {"UNDECIDED", None}


def test_the_mark_of_an_added_nodule_lies_at_its_place(classic: Scan) -> None:
    """The corners that a viewer draws, put into the patient by the image's own header."""
    report = report_of(classic)
    (group,) = [group for group in groups_of(report) if decision(group) == "ADDED"]
    (region,) = [item for item in walk(group) if item.ValueType == "SCOORD"]
    uid = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    headers = (pydicom.dcmread(path, stop_before_pixels=True) for path in classic.folder.iterdir())
    header = next(one for one in headers if uid == one.SOPInstanceUID)
    corners = [(float(a), float(b)) for a, b in zip(region.GraphicData[::2], region.GraphicData[1::2], strict=True)]
    column, row = (sum(values) / 4 - 0.5 for values in zip(*corners[:4], strict=True))
    across, down = header.ImageOrientationPatient[:3], header.ImageOrientationPatient[3:]
    row_mm, column_mm = header.PixelSpacing
    place = [
        p + column * column_mm * a + row * row_mm * d
        for p, a, d in zip(header.ImagePositionPatient, across, down, strict=True)
    ]
    wanted = review_of(classic, finished=True).added[0].center_lps_mm
    assert max(abs(a - b) for a, b in zip(place, wanted, strict=True)) <= 0.51 * 5.0


def walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def groups_of(report: Dataset) -> list[Dataset]:
    return [item for item in walk(report) if item.get("ConceptNameCodeSequence") and named(item) == "125007"]


def named(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def tracking(group: Dataset) -> str:
    return next(str(item.UID) for item in group.ContentSequence if named(item) == "112040")


def decision(group: Dataset) -> str | None:
    found = [item for item in group.ContentSequence if named(item) == codes.DECISION.value]
    return str(found[0].ConceptCodeSequence[0].CodeValue) if found else None


def measured(group: Dataset) -> dict[str, float]:
    return {
        named(item): float(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def algorithms(group: Dataset) -> list[str]:
    return [item.TextValue for item in walk(group) if item.ValueType == "TEXT" and named(item) == "111001"]
