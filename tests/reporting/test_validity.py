"""Every object is valid in the eyes of validators that others wrote, and read by their readers with our figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from app.reporting import codes
from app.reporting.dicom_objects import in_bytes
from app.reporting.identifiers import tracking_uid
from app.reporting.judgement import change_of
from app.reporting.results import dicom_objects
from tests.reporting.validators import (
    errors_of_dcentvfy,
    errors_of_dciodvfy,
    pixelmed,
    program,
    run,
)
from tests.reporting.worlds import Scan, scan_of

WORLDS = ("classic", "enhanced", "without_nodules", "compared", "lidc_0001")


@pytest.fixture(scope="session")
def lidc_0001(shared_data: Path) -> Scan:
    """A real scan, its largest nodule where its readers saw it."""
    return scan_of(
        shared_data / "ct" / "LIDC-IDRI-0001.zip", [((56.3, 86.3, -115.5), 26.0), ((-60.0, 86.3, -176.8), 7.0)]
    )


@pytest.fixture(scope="session", params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scan, Path]:
    """A scan and the folder with its objects."""
    scan = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp(f"objects-{request.param}")
    for dataset in dicom_objects(scan.report, scan.originals):
        (folder / f"{dataset.Modality}.dcm").write_bytes(in_bytes(dataset))
    return scan, folder


def test_there_is_an_object_of_each_kind(world):
    scan, folder = world
    expected = {"SR", "SEG", "PR", "KO", "OT", "DOC"} if scan.findings.nodules else {"SR", "OT", "DOC"}
    assert {path.stem for path in folder.iterdir()} == expected


def test_dciodvfy_finds_no_error(world):
    _, folder = world
    assert {path.stem: errors for path in folder.iterdir() if (errors := errors_of_dciodvfy(path))} == {}


def test_dcentvfy_finds_them_in_one_study_with_the_images(world, tmp_path):
    scan, folder = world
    image = tmp_path / "image.dcm"
    if scan.folder.is_dir():
        image = next(scan.folder.iterdir())
    else:
        program("dcentvfy", "dicom3tools")
        pytest.skip("the images are inside a zip")
    assert errors_of_dcentvfy([*sorted(folder.iterdir()), image]) == []


def test_dcmtk_reads_reports_and_accepts_the_presentation_state(world):
    scan, folder = world
    for name in ("SR", "KO"):
        if (folder / f"{name}.dcm").is_file():
            said = run([program("dsrdump", "dcmtk"), folder / f"{name}.dcm"])
            assert "Document" in said
            assert "\nE:" not in f"\n{said}"
    if (folder / "PR.dcm").is_file():
        said = run([program("dcmpschk", "dcmtk"), folder / "PR.dcm"])
        # It wants a name where the images have none.
        nameless = not scan.originals.image(0).PatientName and "patientName absent or empty" in said
        assert "Test passed" in said or nameless


@pytest.mark.parametrize("name", ["classic", "without_nodules", "compared"])
def test_the_report_follows_tid_1500(name, request, tmp_path):
    scan = request.getfixturevalue(name)
    (report,) = dicom_objects(scan.report, scan.originals, ["sr"])
    (tmp_path / "sr.dcm").write_bytes(in_bytes(report))
    said = pixelmed([tmp_path / "sr.dcm"])
    assert "Found Root Template TID_1500 (MeasurementReport)" in said
    assert [line for line in said if line.startswith("Error")] == []


def test_dcmqi_reads_the_same_figures(world, tmp_path):
    scan, folder = world
    if not scan.findings.nodules:
        pytest.skip("nothing to read without nodules")
    run(
        [program("tid1500reader", "dcmqi"), "--inputDICOM", folder / "SR.dcm", "--outputMetadata", tmp_path / "sr.json"]
    )
    groups = [
        group
        for group in json.loads((tmp_path / "sr.json").read_text())["Measurements"]
        if "ReferencedSegment" in group
    ]
    assert [group["ReferencedSegment"] for group in groups] == list(range(1, len(scan.findings.nodules) + 1))
    for group, nodule in zip(groups, scan.findings.nodules, strict=True):
        read = {
            (item["quantity"]["CodeValue"], item.get("derivationModifier", {}).get("CodeValue")): float(item["value"])
            for item in group["measurementItems"]
        }
        change = change_of(scan.report.comparison, nodule.id)
        figures = [*codes.quantities(nodule), *codes.change_quantities(change.growth if change else None)]
        assert read == {(q.name.value, q.derivation and q.derivation.value): q.value for q in figures}
        assert read[codes.VOLUME.value, None] == pytest.approx(nodule.volume_mm3, abs=0.06)
        assert group["TrackingUniqueIdentifier"] == tracking_uid(scan.findings, nodule)
        assert (group["Laterality"]["CodeMeaning"], group["FindingSite"]["CodeValue"]) == ("Left", "45653009")


def test_dcmqi_finds_the_outlines_at_the_same_place(world, tmp_path):
    scan, folder = world
    if not scan.findings.nodules:
        pytest.skip("nothing to read without nodules")
    reader = program("segimage2itkimage", "dcmqi")
    run([reader, "--inputDICOM", folder / "SEG.dcm", "--outputDirectory", tmp_path, "-p", "seg", "-t", "nrrd"])
    spacing_mm = scan.findings.grid.spacing_zyx_mm
    for number, nodule in enumerate(scan.findings.nodules, start=1):
        image = SimpleITK.ReadImage(str(tmp_path / f"seg-{number}.nrrd"))
        marked = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)[:, ::-1].astype(float)
        places = np.array([image.TransformContinuousIndexToPhysicalPoint(index.tolist()) for index in marked])
        off_mm = np.linalg.norm(places.mean(axis=0) - nodule.center_lps_mm)
        assert off_mm < 0.35 * spacing_mm.max()
        volume_mm3 = len(marked) * np.prod(spacing_mm)
        assert volume_mm3 == pytest.approx(nodule.volume_mm3, rel=0.35)


def test_scoord_and_graphics_lie_on_the_nodule_in_mm(world):
    """The corners that a viewer draws, put into the patient by the image's own header."""
    scan, folder = world
    if not scan.findings.nodules:
        pytest.skip("nothing to draw without nodules")
    drawn = list(scoords(pydicom.dcmread(folder / "SR.dcm")))
    assert len(drawn) == len(scan.findings.nodules)
    state = pydicom.dcmread(folder / "PR.dcm")
    for nodule, (uid, frame, corners) in zip(scan.findings.nodules, drawn, strict=True):
        middle_lps_mm = to_patient(scan, uid, frame, corners).mean(axis=0)
        grid = scan.findings.grid
        off_zyx = np.abs(grid.to_index(middle_lps_mm) - grid.to_index(nodule.center_lps_mm))
        assert off_zyx[0] <= 0.51
        assert off_zyx[1:].max() < 0.3
        assert np.ptp(corners, axis=0) == pytest.approx(np.array(size_px(scan, nodule)), abs=1.2)
        assert any(np.allclose(corners, shape, atol=1e-3) for shape in graphics(state, uid, frame))


def scoords(item):
    for child in item.get("ContentSequence", []):
        if child.ValueType == "SCOORD":
            image = child.ContentSequence[0].ReferencedSOPSequence[0]
            frame = image.get("ReferencedFrameNumber")
            yield image.ReferencedSOPInstanceUID, frame, np.reshape(child.GraphicData, (-1, 2))
        yield from scoords(child)


def graphics(state, uid, frame):
    for annotation in state.GraphicAnnotationSequence:
        image = annotation.ReferencedImageSequence[0]
        if (image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")) == (uid, frame):
            yield from (np.reshape(shape.GraphicData, (-1, 2)) for shape in annotation.GraphicObjectSequence)


def to_patient(scan, uid, frame, corners):
    """PS3.3 C.7.6.2.1.1, written again: pixel 0, 0 has its centre at 0.5, 0.5 of the graphics."""
    header = scan.originals.images[uid]
    if frame is not None:
        groups = header.PerFrameFunctionalGroupsSequence[int(frame) - 1], header.SharedFunctionalGroupsSequence[0]
        position = groups[0].PlanePositionSequence[0].ImagePositionPatient
        orientation = groups[1].PlaneOrientationSequence[0].ImageOrientationPatient
        spacing = groups[1].PixelMeasuresSequence[0].PixelSpacing
    else:
        position, orientation = header.ImagePositionPatient, header.ImageOrientationPatient
        spacing = header.PixelSpacing
    row, column = np.reshape(np.array(orientation, float), (2, 3))
    across = (corners[:4] - 0.5) * np.array([float(spacing[1]), float(spacing[0])])
    return np.array(position, float) + across @ np.stack((row, column))


def size_px(scan, nodule):
    """Of a ball's box in pixels (column, row), at its middle."""
    _, y_mm, x_mm = scan.findings.grid.spacing_zyx_mm
    return nodule.long_axis_mm / x_mm, nodule.long_axis_mm / y_mm
