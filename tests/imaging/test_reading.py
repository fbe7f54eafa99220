"""The same scan comes back, voxel for voxel and millimetre for millimetre, in whatever form it was sent."""

from __future__ import annotations

import json
import logging
import random
import tempfile
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from app.imaging.errors import IrregularSeries, SeriesSelectionError, UnreadableScan
from app.imaging.inputs import InputFile
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from app.phantom.dicom_headers import SeriesAttributes
from app.phantom.dicom_series import write_dicom_series
from app.phantom.pixel_encoding import ENCAPSULATED_SYNTAXES, NATIVE_SYNTAXES
from tests.imaging.dicom_worlds import SMALL, options, rotation, tiny_ct, write_tiny


def assert_same(found: CtVolume, expected: CtVolume) -> None:
    np.testing.assert_array_equal(found.hu, expected.hu)
    np.testing.assert_allclose(found.grid.affine, expected.grid.affine, atol=1e-5)


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES, ids=lambda uid: uid.name)
def test_uncompressed(tmp_path: Path, syntax: str, enhanced: bool) -> None:
    write_dicom_series(tiny_ct(), tmp_path, transfer_syntax_uid=syntax, enhanced=enhanced)
    volume, report = read_ct(tmp_path, options())
    assert_same(volume, tiny_ct())
    assert report.source_format == ("dicom-enhanced" if enhanced else "dicom")


@pytest.mark.parametrize("syntax", ENCAPSULATED_SYNTAXES, ids=lambda uid: uid.name)
def test_compressed(tmp_path: Path, syntax: str) -> None:
    scan = tiny_ct((6, 40, 36))
    write_dicom_series(scan, tmp_path, transfer_syntax_uid=syntax, enhanced=syntax == ENCAPSULATED_SYNTAXES[0])
    volume, report = read_ct(tmp_path, options())
    assert_same(volume, scan)
    assert report.chosen.transfer_syntax_uid == syntax


def test_slices_in_other_transfer_syntaxes_make_one_volume(tmp_path: Path) -> None:
    scan = tiny_ct((6, 40, 36))
    paths = write_dicom_series(scan, tmp_path / "a")
    compressed = write_dicom_series(scan, tmp_path / "b", transfer_syntax_uid=ENCAPSULATED_SYNTAXES[0])
    two_workers = options(limits=replace(SMALL, decode_workers=2))
    volume, _ = read_ct([*paths[:3], *compressed[3:]], two_workers)
    assert_same(volume, scan)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_zip(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", method) as archive:
        archive.writestr("readme.txt", "not an image")
        for path in write_tiny(tmp_path / "series"):
            archive.write(path, f"patient/study/{path.name}")
    volume, report = read_ct(tmp_path / "scan.zip", options())
    assert_same(volume, tiny_ct())
    assert (report.files_received, [notice.code for notice in report.files_ignored]) == (9, ["not_dicom"])


def test_files_in_any_order_with_any_names(tmp_path: Path) -> None:
    order = list(range(8))
    random.Random(1).shuffle(order)
    paths = write_tiny(tmp_path, file_names=lambda z: f"ÄÖ {order[z]}.jpg")
    volume, _ = read_ct(sorted(paths), options())
    assert_same(volume, tiny_ct())


def test_names_given_by_the_server(tmp_path: Path) -> None:
    paths = write_tiny(tmp_path, file_names=lambda z: f"upload-{z}")
    files = [InputFile(path, name=f"../../{path.name}\n<script>") for path in paths]
    assert_same(read_ct(files, options())[0], tiny_ct())


def test_instance_numbers_do_not_order_the_slices(tmp_path: Path) -> None:
    def count_down(dataset: Dataset, z: int) -> None:
        dataset.InstanceNumber = 8 - z

    write_tiny(tmp_path, count_down)
    volume, _ = read_ct(tmp_path, options())
    assert_same(volume, tiny_ct())
    assert volume.identity is not None
    assert [each.instance_number for each in volume.identity.slices] == [8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_identity_follows_the_slices(tmp_path: Path, enhanced: bool) -> None:
    written = read_ct(write_dicom_series(tiny_ct(), tmp_path, enhanced=enhanced), options())[0].identity
    assert written is not None
    assert len(written.slices) == 8
    if enhanced:
        assert {each.sop_class_uid for each in written.slices} == {"1.2.840.10008.5.1.4.1.1.2.1"}
        assert [each.frame_number for each in written.slices] == [1, 2, 3, 4, 5, 6, 7, 8]
    else:
        assert len({each.sop_instance_uid for each in written.slices}) == 8
        assert {each.frame_number for each in written.slices} == {None}


def test_enhanced_frames_stored_in_any_order(tmp_path: Path) -> None:
    order = [3, 0, 7, 5, 1, 2, 6, 4]

    def shuffle(dataset: Dataset, _: int) -> None:
        groups = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = [groups[z] for z in order]
        size = len(dataset.PixelData) // 8
        dataset.PixelData = b"".join(dataset.PixelData[z * size : (z + 1) * size] for z in order)

    write_tiny(tmp_path, shuffle, enhanced=True)
    volume, _ = read_ct(tmp_path, options())
    assert_same(volume, tiny_ct())
    assert volume.identity is not None
    assert [each.frame_number for each in volume.identity.slices] == [1 + order.index(z) for z in range(8)]


def test_oblique_direction_cosines(tmp_path: Path) -> None:
    scan = tiny_ct(direction_lps_zyx=rotation((1, 2, 3), 15) @ np.eye(3)[:, ::-1])
    write_dicom_series(scan, tmp_path)
    assert_same(read_ct(tmp_path, options())[0], scan)


def test_slices_run_along_the_normal_of_rows_and_columns(tmp_path: Path) -> None:
    """Prone, feet first: rows and columns are turned, so ascending z of the array is still right-handed."""
    scan = tiny_ct(direction_lps_zyx=np.diag([-1.0, -1.0, 1.0])[:, ::-1])
    write_dicom_series(scan, tmp_path)
    volume, _ = read_ct(tmp_path, options())
    assert_same(volume, scan)
    assert np.linalg.det(volume.grid.direction_lps_zyx[:, ::-1]) == pytest.approx(1.0)


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    stored = np.arange(12 * 10, dtype=np.int16).reshape(12, 10)

    def own_slope(dataset: Dataset, z: int) -> None:
        dataset.PixelData, dataset.PixelRepresentation = stored.tobytes(), 1
        dataset.RescaleSlope, dataset.RescaleIntercept = str(1 + z / 4), str(-1000 + z)

    write_tiny(tmp_path, own_slope)
    hu = read_ct(tmp_path, options())[0].hu
    for z in range(8):
        np.testing.assert_array_equal(hu[z], np.rint(stored * (1 + z / 4) - 1000 + z))


def test_whole_study_with_files_beside_it(tmp_path: Path) -> None:
    def localizer(dataset: Dataset, _: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def other_modality(dataset: Dataset, _: int) -> None:
        dataset.Modality = "SR"

    write_tiny(tmp_path / "scout", localizer, series=SeriesAttributes(series_number=1))
    write_tiny(tmp_path / "report", other_modality, series=SeriesAttributes(series_number=3))
    write_tiny(tmp_path / "lung")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "nothing").write_bytes(b"")
    volume, report = read_ct(tmp_path, options())
    assert_same(volume, tiny_ct())
    assert sorted(notice.code for notice in report.files_ignored) == ["empty_file", "not_dicom"]
    assert sorted(each.reasons[0].code for each in report.rejected) == ["localizer", "modality"]
    assert report.files_received == 26


def test_dicomdir_is_never_followed(tmp_path: Path) -> None:
    def directory(dataset: Dataset, _: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"

    write_tiny(tmp_path, directory, file_names=lambda z: f"DICOMDIR{z}")
    write_tiny(tmp_path)
    volume, report = read_ct(tmp_path, options())
    assert_same(volume, tiny_ct())
    assert {notice.code for notice in report.files_ignored} == {"dicomdir"}


def test_localizer_within_the_series_is_left_out(tmp_path: Path) -> None:
    def first_is_localizer(dataset: Dataset, z: int) -> None:
        if z == 0:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_tiny(tmp_path, first_is_localizer)
    volume, report = read_ct(tmp_path, options())
    assert volume.hu.shape[0] == 7
    assert [notice.code for notice in report.files_ignored] == ["localizer"]


@pytest.mark.parametrize("syntax", [NATIVE_SYNTAXES[1], ENCAPSULATED_SYNTAXES[0]], ids=lambda uid: uid.name)
def test_copies_of_a_slice_are_told_by_their_pixels(tmp_path: Path, syntax: str) -> None:
    def rename(dataset: Dataset, _: int) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}9"

    paths = write_tiny(tmp_path / "a", transfer_syntax_uid=syntax)
    copy = write_tiny(tmp_path / "b", rename, transfer_syntax_uid=syntax)[3]
    volume, report = read_ct([*paths, copy], options())
    assert_same(volume, tiny_ct())
    assert [(each.code, each.values["file"]) for each in report.files_ignored] == [("duplicate_slice", 8)]

    def same_series(dataset: Dataset, _: int) -> None:
        first = dcmread(paths[0], stop_before_pixels=True)
        for attribute in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, attribute, first[attribute].value)

    changed = replace(tiny_ct(), hu=tiny_ct(seed=1).hu)
    other = write_dicom_series(changed, tmp_path / "c", transfer_syntax_uid=syntax, edit=same_series)[3]
    with pytest.raises(IrregularSeries) as caught:
        read_ct([*paths, other], options())
    assert caught.value.code == "duplicate_slices"


def test_absent_slice_is_the_mean_of_its_neighbours_when_allowed(tmp_path: Path) -> None:
    paths = write_tiny(tmp_path)
    with pytest.raises(IrregularSeries):
        read_ct(paths[:4] + paths[5:], options())
    volume, report = read_ct(paths[:4] + paths[5:], options(allow_repairs=frozenset({"missing_slices"})))
    expected = tiny_ct().hu.copy()
    expected[4] = np.floor((expected[3].astype(float) + expected[5]) / 2)
    assert_same(volume, replace(tiny_ct(), hu=expected))
    assert volume.identity is not None
    assert len(volume.identity.slices) == 8
    assert [(each.code, each.values["index_z"]) for each in report.repairs] == [("missing_slices", 4)]
    assert json.dumps(asdict(report))


@pytest.mark.parametrize("syntax", [NATIVE_SYNTAXES[1], ENCAPSULATED_SYNTAXES[0]], ids=lambda uid: uid.name)
def test_a_caller_who_gives_up_is_not_kept_waiting(tmp_path: Path, syntax: str) -> None:
    def give_up(fraction: float) -> None:
        if fraction > 0.35:
            raise InterruptedError

    write_tiny(tmp_path, transfer_syntax_uid=syntax)
    with pytest.raises(InterruptedError):
        read_ct(tmp_path, options(on_progress=give_up))


def test_progress_rises_to_one(tmp_path: Path) -> None:
    said: list[float] = []
    read_ct(write_tiny(tmp_path), options(on_progress=said.append))
    assert said == sorted(said)
    assert (said[0] > 0, said[-1]) == (True, 1.0)


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in write_tiny(tmp_path / "series"):
            archive.write(path, path.name)
        archive.writestr("broken.dcm", bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")
    with pytest.raises(UnreadableScan):
        read_ct(tmp_path / "scan.zip", options())
    assert list(scratch.iterdir()) == []


def test_pydicom_says_nothing_about_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(dataset: Dataset, _: int) -> None:
        dataset.add_new(0x00080005, "CS", "NOSUCHSET-JohnDoe")
        dataset.PatientName = "Doe^John"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.add_new(0x00281054, "CS", "not-a-code-JohnDoe")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = write_tiny(tmp_path, spoil)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        volume, _ = read_ct(paths, options())
    assert_same(volume, tiny_ct())
    assert caplog.text == ""


def test_series_named_by_the_caller(tmp_path: Path) -> None:
    write_tiny(tmp_path / "thin")
    other = replace(tiny_ct(), hu=tiny_ct(seed=5).hu)
    write_dicom_series(other, tmp_path / "other", series=SeriesAttributes(series_number=9, slice_thickness_mm=5.0))
    _, first = read_ct(tmp_path, options())
    (rejected,) = first.rejected
    uid = rejected.summary.series_instance_uid
    volume, report = read_ct(tmp_path, options(series_uid=uid))
    assert_same(volume, other)
    assert (report.chosen.series_instance_uid, report.rejected[0].reasons[0].code) == (uid, "not_requested")
    with pytest.raises(SeriesSelectionError) as caught:
        read_ct(tmp_path, options(series_uid="1.2.3"))
    assert caught.value.code == "series_not_found"
    assert uid in caught.value.values["series_instance_uids"]


def test_scans_are_read_side_by_side(tmp_path: Path) -> None:
    """pydicom is silenced through filters that belong to the whole process: each thread puts them back."""
    write_tiny(tmp_path)
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_ct(tmp_path, options())[0], range(8)))
    for volume in found:
        assert_same(volume, tiny_ct())
    assert list(warnings.filters) == filters
    assert not logging.getLogger("pydicom").disabled


def test_missing_path_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_ct(tmp_path / "nowhere")


def test_real_series(shared_data: Path) -> None:
    volume, report = read_ct(shared_data / "ct/LIDC-IDRI-0001.zip")
    assert volume.hu.shape == (133, 512, 512)
    np.testing.assert_allclose(volume.grid.spacing_zyx_mm, (2.5, 0.703125, 0.703125), atol=1e-6)
    np.testing.assert_allclose(volume.grid.origin_lps_mm, (-166.0, -171.699997, -340.0), atol=1e-5)
    assert (int(volume.hu.min()), int(volume.hu.max())) == (-2048, 3071)
    assert report.chosen.convolution_kernel == "STANDARD"
    assert [warning.code for warning in report.warnings] == ["contrast"]


@pytest.mark.parametrize(
    ("name", "shape"), [("0002", (261, 304, 428)), ("0028", (141, 294, 422)), ("0306", (123, 352, 464))]
)
def test_real_volume_file(shared_data: Path, name: str, shape: tuple[int, int, int]) -> None:
    volume, report = read_ct(shared_data / f"ct/LIDC-IDRI-{name}.mha")
    assert volume.hu.shape == shape
    assert (int(volume.hu.min()), report.warnings) == (-1104, ())
