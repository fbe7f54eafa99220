"""What is in each form, that it comes out the same each time, and what bad headers cannot do to it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess

import numpy as np
import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle

from app.imaging.errors import UnreadableScan
from app.imaging.volume import Grid
from app.inference.findings import DISCLAIMER
from app.phantom.dicom_headers import PhantomPatient
from app.reporting.errors import ResultUnavailable
from app.reporting.originals import Originals
from app.reporting.outlines import label_planes, original_voxels
from app.reporting.results import DICOM_KINDS, KINDS, dicom_objects, make_result
from tests.reporting.validators import program
from tests.reporting.worlds import MADE_AT, Scan, phantom_scan, sphere


def made(scan, kind):
    return make_result(kind, scan.report, scan.originals)


def text_of(pdf: bytes) -> str:
    command = [program("pdftotext", "poppler-utils"), "-layout", "-", "-"]
    return subprocess.run(command, input=pdf, capture_output=True, check=True).stdout.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_answer_is_the_same_bytes(classic, kind):
    first, second = made(classic, kind), made(classic, kind)
    assert first == second
    assert "PHANTOM" not in first.file_name


def test_another_analysis_is_another_object_and_the_nodule_stays_the_same(classic):
    later = MADE_AT.replace(hour=9)
    uids = [
        {d.SOPInstanceUID for d in dicom_objects(dataclasses.replace(classic.report, made_at=at), classic.originals)}
        for at in (MADE_AT, later)
    ]
    assert len(uids[0]) == len(DICOM_KINDS)
    assert not uids[0] & uids[1]
    tracked = [
        [
            s.TrackingUID
            for s in dicom_objects(dataclasses.replace(classic.report, made_at=at), classic.originals, ["seg"])[
                0
            ].SegmentSequence
        ]
        for at in (MADE_AT, later)
    ]
    assert tracked[0] == tracked[1]


def test_objects_carry_patient_study_and_the_time_of_the_findings(classic):
    for dataset in dicom_objects(classic.report, classic.originals):
        assert (dataset.PatientID, dataset.StudyInstanceUID) == (
            "PHANTOM-0001",
            classic.findings.identity.study_instance_uid,
        )
        assert dataset.SeriesInstanceUID != classic.findings.identity.series_instance_uid
        assert (dataset.SeriesDate, dataset.SeriesTime) == ("20260304", "050607.000089")
        assert DISCLAIMER in dataset.SeriesDescription
        assert re.fullmatch(r"2\.25\.\d+", dataset.SOPInstanceUID)


def test_the_time_is_told_in_the_zone_of_the_images(tmp_path):
    scan = phantom_scan(tmp_path, edit=lambda dataset, _z: setattr(dataset, "TimezoneOffsetFromUTC", "+0530"))
    (report,) = dicom_objects(scan.report, scan.originals, ["sr"])
    assert (report.ContentTime[:4], report.TimezoneOffsetFromUTC) == ("1036", "+0530")


def test_the_report_is_preliminary_and_says_what_its_figures_mean(classic):
    body = made(classic, "sr").body
    report = pydicom.dcmread(io.BytesIO(body))
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    model = classic.findings.model.sha256
    for words in (DISCLAIMER, "Rated 4 or 5 by readers.", model, "Nodule", "Upper lobe of lung", "lungs are cut off"):
        assert words.encode() in body


def test_without_nodules_sr_pdf_and_sc_say_so_and_the_others_cannot_be_had(without_nodules):
    assert b"No nodule reached the operating point balanced" in made(without_nodules, "sr").body
    assert "No nodule reached the operating point balanced" in text_of(made(without_nodules, "pdf").body)
    assert pydicom.dcmread(io.BytesIO(made(without_nodules, "sc").body)).pixel_array.max() == 255
    for kind in ("seg", "gsps", "ko"):
        with pytest.raises(ResultUnavailable) as refused:
            made(without_nodules, kind)
        assert refused.value.code == "no_nodules"
    assert json.loads(made(without_nodules, "fhir").body)["entry"][0]["resource"]["status"] == "preliminary"


def test_a_scan_that_is_no_dicom(classic, tmp_path):
    from app.phantom.files import write_metaimage  # noqa: PLC0415 - SimpleITK is slow to import

    straight = dataclasses.replace(classic.originals.volume, identity=None)
    path = write_metaimage(straight, tmp_path / "ct.mha")
    findings = dataclasses.replace(classic.findings, identity=None)
    scan = Scan(path, findings)
    for kind in ("sr", "seg", "gsps", "ko", "sc"):
        with pytest.raises(ResultUnavailable) as refused:
            made(scan, kind)
        assert refused.value.code == "needs_dicom"
    assert "the scan was no DICOM" in text_of(made(scan, "pdf").body)
    Bundle.model_validate_json(made(scan, "fhir").body)
    assert made(scan, "csv").body


def test_headers_that_the_standard_forbids_break_nothing(tmp_path):
    def spoil(dataset, _z):
        for tag, vr, value in (
            ("StudyDate", "DA", "01.02.2020"), ("PatientBirthDate", "DA", "19"), ("PatientAge", "AS", "old"),
            ("StudyID", "SH", "x" * 40), ("PatientWeight", "DS", "heavy"),
        ):  # fmt: skip
            with pydicom.config.disable_value_validation():
                dataset.add_new(tag, vr, "")
                dataset[tag]._value = value
        del dataset.PatientSex, dataset.ReferringPhysicianName

    with pydicom.config.disable_value_validation():
        scan = phantom_scan(tmp_path, edit=spoil)
    (report,) = dicom_objects(scan.report, scan.originals, ["sr"])
    assert (report.StudyDate or "", report.PatientSex, report.PatientID) == ("", "", "PHANTOM-0001")
    assert "PatientAge" not in report
    assert made(scan, "pdf").body.startswith(b"%PDF")


def test_markup_in_a_name_is_text_and_a_foreign_alphabet_is_kept_in_dicom(tmp_path):
    name = '<img src="file:etc/passwd"/>^Ελένη'
    scan = phantom_scan(tmp_path, patient=PhantomPatient(name=name))
    assert '<img src="file:etc/passwd"/>' in text_of(made(scan, "pdf").body)
    (report,) = dicom_objects(scan.report, scan.originals, ["sr"])
    assert str(report.PatientName) == name


def test_files_of_another_scan_are_refused(classic, enhanced):
    mixed = Originals(enhanced.folder, classic.findings)
    with pytest.raises(UnreadableScan) as refused:
        make_result("sr", classic.report, mixed)
    assert refused.value.code == "originals_changed"


def test_fhir_is_valid_and_says_the_same(classic):
    bundle = Bundle.model_validate_json(made(classic, "fhir").body)
    report, *observations = [entry.resource for entry in bundle.entry]
    assert DISCLAIMER in report.conclusion
    assert [r.reference for r in report.result] == [entry.fullUrl for entry in bundle.entry[1:]]
    for observation, nodule in zip(observations, classic.findings.nodules, strict=True):
        read = {c.code.coding[0].code: float(c.valueQuantity.value) for c in observation.component if c.valueQuantity}
        assert read["118565006"] == pytest.approx(nodule.volume_mm3, abs=0.06)
        assert observation.bodySite.text == "left upper lobe"
        assert observation.status == "preliminary"


def test_csv_has_a_line_for_each_nodule(classic):
    rows = list(csv.DictReader(io.StringIO(made(classic, "csv").body.decode())))
    assert [row["id"] for row in rows] == ["nodule-1", "nodule-2"]
    assert float(rows[0]["volume_mm3"]) == pytest.approx(classic.findings.nodules[0].volume_mm3, abs=0.06)
    assert rows[0]["disclaimer"] == DISCLAIMER


def test_more_nodules_than_a_page_holds(classic):
    nodules = tuple(dataclasses.replace(classic.findings.nodules[0], id=f"nodule-{n}") for n in range(1, 15))
    many = Scan(classic.folder, dataclasses.replace(classic.findings, nodules=nodules))
    text = text_of(made(many, "pdf").body)
    assert "nodule-14" in text
    pages = int(re.search(r"Page 1 of (\d+)", text).group(1))
    assert pages >= 4
    assert text.count(DISCLAIMER) >= pages
    assert pydicom.dcmread(io.BytesIO(made(many, "sc").body)).Rows < 4096


def test_the_box_of_the_summary_frames_the_bright_ball(classic):
    from app.reporting.views import ORANGE, Chest, views  # noqa: PLC0415

    for nodule in classic.findings.nodules:
        pictures = views(Chest.of(classic.originals.volume), nodule, 400)
        for name, picture in pictures.items():
            pixels = np.asarray(picture).astype(int)
            rows, columns = np.nonzero((pixels == ORANGE).all(axis=2))
            inside = pixels[rows.min() + 4 : rows.max() - 3, columns.min() + 4 : columns.max() - 3, 0]
            middle = inside[inside.shape[0] // 2, inside.shape[1] // 2]
            assert middle > 150, name  # soft tissue in a lung window, lung is below 90
            if name == "near":
                assert inside[0, 0] < middle - 60


def test_a_nodule_between_two_thick_slices_keeps_an_outline():
    grid = Grid.from_spacing((20, 64, 64), (10.0, 2.0, 2.0))
    voxels = original_voxels(sphere((60.0, 60.0, 55.0), 4.0), grid)
    assert len(voxels)
    assert set(voxels[:, 0]) <= {5, 6}
    assert len(original_voxels(sphere((-900.0, 0.0, 0.0), 4.0), grid)) == 0


def test_a_small_outline_inside_a_large_one_is_not_lost():
    grid = Grid.from_spacing((20, 64, 64), (2.0, 2.0, 2.0))
    small, large = (original_voxels(sphere((60.0, 60.0, 20.0), d), grid) for d in (6.0, 16.0))
    slices, planes = label_planes([small, large], grid)
    assert slices == sorted(slices)
    assert (planes == 1).sum() == len(small)
    assert (planes == 2).sum() == len(large) - len(small)


def test_an_interpolated_slice_has_no_outline_of_its_own(classic):
    identity = classic.findings.identity
    z = classic.findings.nodules[0].slices[0].index_z + 1
    slices = (*identity.slices[:z], identity.slices[z - 1], *identity.slices[z + 1 :])
    findings = dataclasses.replace(classic.findings, identity=dataclasses.replace(identity, slices=slices))
    scan = Scan(classic.folder, findings)
    (whole,) = dicom_objects(classic.report, classic.originals, ["seg"])
    (gapped,) = dicom_objects(scan.report, scan.originals, ["seg"])
    assert gapped.NumberOfFrames < whole.NumberOfFrames
