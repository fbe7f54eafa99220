"""Several scans in one upload: each is found, laid out by itself, and read as if it had come alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom.uid import DeflatedExplicitVRLittleEndian

from app.imaging.acceptance import Notice
from app.imaging.errors import NotChestCt, UnreadableScan, UnsupportedFormat, UploadTooLarge
from app.imaging.inputs import InputFile, listed_files
from app.imaging.read_options import MISSING_SLICES, ReadLimits, ReadOptions
from app.imaging.reading import read_ct
from app.imaging.upload_contents import UploadContents, find_scans, lay_out
from app.imaging.volume import CtVolume
from app.phantom.dicom_series import write_dicom_series
from tests.imaging.dicom_worlds import SMALL, options, tiny_ct


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    folder = tmp_path / "sent"
    folder.mkdir()
    return folder


def contents(sent: Path, read: ReadOptions | None = None) -> UploadContents:
    scratch = sent.parent / "scratch"
    scratch.mkdir()
    return find_scans(listed_files(sent), scratch, read or options())


def volumes(found: UploadContents, tmp_path: Path) -> list[CtVolume]:
    """Each scan, laid out and read alone."""
    read = []
    for number, scan in enumerate(found.scans):
        folder = tmp_path / f"laid-{number}"
        folder.mkdir()
        read.append(read_ct(lay_out(scan.files, folder), options())[0])
    return read


def write_volume(volume: CtVolume, path: Path) -> None:
    image = SimpleITK.GetImageFromArray(volume.hu)
    image.SetSpacing([float(mm) for mm in volume.grid.spacing_zyx_mm[::-1]])
    SimpleITK.WriteImage(image, str(path))


def zip_of(folder: Path, path: Path, method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"any/{file.name}")


def codes(notices: tuple[Notice, ...]) -> list[str]:
    return sorted(notice.code for notice in notices)


def test_every_kind_at_once(sent: Path, tmp_path: Path) -> None:
    expected = [tiny_ct(seed=seed) for seed in range(6)]
    write_dicom_series(expected[0], sent / "loose")
    write_dicom_series(expected[1], sent / "enhanced", enhanced=True)
    write_dicom_series(expected[2], sent / "deflated", transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    write_dicom_series(expected[3], tmp_path / "packed")
    zip_of(tmp_path / "packed", sent / "packed.zip", zipfile.ZIP_DEFLATED)
    write_volume(expected[4], sent / "volume.mhd")
    write_volume(expected[5], sent / "volume.nii.gz")
    (sent / "letter.txt").write_text("Dear colleague")
    found = contents(sent)
    read = {volume.hu.tobytes() for volume in volumes(found, tmp_path)}
    assert {expected[number].hu.tobytes() for number in range(5)} <= read
    assert len(found.scans) == len(read) == 6
    assert codes(found.ignored) == ["not_dicom"]
    assert found.rejected == ()
    assert {scan.summary.slice_count for scan in found.scans} == {8}
    assert found.files_received == 8 + 1 + 8 + 8 + 2 + 1 + 1


def test_files_are_laid_out_byte_for_byte(sent: Path, tmp_path: Path) -> None:
    """Also those that had to be inflated to be read, so that the same series has the same content however it came."""
    paths = write_dicom_series(tiny_ct(), tmp_path / "p", transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    zip_of(tmp_path / "p", sent / "packed.zip", zipfile.ZIP_DEFLATED)
    (scan,) = contents(sent).scans
    laid = lay_out(scan.files, sent)
    assert sorted(file.path.read_bytes() for file in laid) == sorted(path.read_bytes() for path in paths)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_several_in_one_archive(sent: Path, tmp_path: Path, method: int) -> None:
    both = [tiny_ct(seed=seed) for seed in (1, 2)]
    for number, volume in enumerate(both):
        write_dicom_series(volume, tmp_path / "packed", file_names=lambda z, n=number: f"{z}-{n}.dcm")
    zip_of(tmp_path / "packed", sent / "all.zip", method)
    read = volumes(contents(sent), tmp_path)
    assert sorted(volume.hu.tobytes() for volume in read) == sorted(volume.hu.tobytes() for volume in both)


def test_what_cannot_be_analysed_is_told(sent: Path, tmp_path: Path) -> None:
    good = tiny_ct(seed=1)
    write_dicom_series(good, sent / "good")
    write_dicom_series(tiny_ct((2, 12, 10), seed=2), sent / "short")
    for missing in write_dicom_series(tiny_ct(seed=3), sent / "gap")[3:4]:
        missing.unlink()
    (sent / "broken.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n")
    write_volume(tiny_ct(seed=4), sent / "alone.mhd")
    (sent / "alone.raw").unlink()
    found = contents(sent)
    assert np.array_equal(volumes(found, tmp_path)[0].hu, good.hu)
    assert len(found.scans) == 1
    assert sorted(codes(each.reasons)[0] for each in found.rejected) == [
        "damaged_header", "missing_data_file", "nonuniform_spacing", "too_few_slices",
    ]  # fmt: skip


def test_a_repair_that_is_permitted(sent: Path) -> None:
    write_dicom_series(tiny_ct(seed=3), sent / "gap")[3].unlink()
    assert len(contents(sent, options(allow_repairs=frozenset({MISSING_SLICES}))).scans) == 1


def test_a_header_that_cannot_be_read_refuses_all(sent: Path) -> None:
    """It may be the last slice of a series that looks whole without it."""
    write_dicom_series(tiny_ct(seed=1), sent / "good")
    last = write_dicom_series(tiny_ct(seed=2), sent / "other")[-1]
    last.write_bytes(last.read_bytes()[:300])
    with pytest.raises(UnreadableScan) as caught:
        contents(sent)
    assert caught.value.values["file"] == 15


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda sent: (sent / "a.txt").write_text("text"), UnsupportedFormat),
        (lambda sent: write_dicom_series(tiny_ct((2, 12, 10)), sent / "short"), NotChestCt),
        (lambda sent: (sent / "broken.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n"), UnreadableScan),
        (lambda sent: (sent / "empty.dcm").touch(), UnreadableScan),
        (lambda sent: (sent / "broken.zip").write_bytes(b"PK\x03\x04 and no more"), UnreadableScan),
    ],
    ids=["text", "short", "broken", "empty", "damaged zip"],
)
def test_an_upload_without_any_scan_is_refused(sent: Path, write: object, error: type[Exception]) -> None:
    write(sent)  # type: ignore[operator]
    with pytest.raises(error):
        contents(sent)


def test_limits_hold_for_all_together(sent: Path) -> None:
    for seed in (1, 2):
        write_dicom_series(tiny_ct(seed=seed), sent / str(seed))
    with pytest.raises(UploadTooLarge):
        contents(sent, options(limits=ReadLimits(**{**vars(SMALL), "max_files": 15})))


def test_names_of_the_sender_do_not_become_paths(sent: Path, tmp_path: Path) -> None:
    volume = tiny_ct(seed=1)
    paths = write_dicom_series(volume, sent)
    files = [InputFile(path, f"../../Doe^John/{path.name}") for path in paths]
    found = find_scans(files, tmp_path, options())
    folder = tmp_path / "laid"
    folder.mkdir()
    laid = lay_out(found.scans[0].files, folder)
    assert sorted(file.path for file in laid) == sorted(folder.iterdir())
    assert laid[0].name == paths[0].name
