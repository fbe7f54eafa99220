"""What is written is valid DICOM that independent readers place and decode to the same voxels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from app.imaging.volume import CtVolume, DicomIdentity, Grid, SliceIdentity
from app.phantom.dicom_headers import PhantomPatient, SeriesAttributes, decimal_string, phantom_uid
from app.phantom.dicom_series import write_dicom_series
from app.phantom.pixel_encoding import TRANSFER_SYNTAXES

OBLIQUE = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
SHAPE_ZYX = (3, 34, 40)


def ct(lowest: int = -1024, direction: np.ndarray = OBLIQUE, identity: DicomIdentity | None = None) -> CtVolume:
    """Random HU on an oblique, anisotropic grid."""
    hu = np.random.default_rng(0).integers(lowest, 1500, SHAPE_ZYX).astype(np.int16)
    hu[0, 0, 0] = lowest
    return CtVolume(hu, Grid.from_spacing(SHAPE_ZYX, (2.5, 0.7, 0.8), (-100.125, 20.5, -300.25), direction), identity)


def hu_of(paths: list[Path]) -> np.ndarray:
    """Decoded by pydicom, rescaled as the headers say."""
    datasets = [pydicom.dcmread(path) for path in paths]
    frames = [d.pixel_array.reshape(-1, d.Rows, d.Columns) for d in datasets]
    transform = datasets[0].get("SharedFunctionalGroupsSequence", [None])[0]
    source = datasets[0] if transform is None else transform.PixelValueTransformationSequence[0]
    return np.concatenate(frames) * float(source.RescaleSlope) + float(source.RescaleIntercept)


@pytest.mark.parametrize("lowest", [-1024, -2000], ids=["unsigned", "signed"])
@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("uid", TRANSFER_SYNTAXES, ids=lambda uid: uid.name)
def test_voxels_come_back_in_every_transfer_syntax(uid: str, enhanced: bool, lowest: int, tmp_path: Path) -> None:
    volume = ct(lowest)

    paths = write_dicom_series(volume, tmp_path, transfer_syntax_uid=uid, enhanced=enhanced)

    assert np.array_equal(hu_of(paths), volume.hu)
    assert len(paths) == (1 if enhanced else len(volume.hu))
    first = pydicom.dcmread(paths[0])
    assert first.file_meta.TransferSyntaxUID == uid
    assert first.PixelRepresentation == (1 if lowest < -1024 else 0)


def test_simpleitk_places_the_voxels_where_the_grid_does(tmp_path: Path) -> None:
    volume = ct()
    names = [str(path) for path in write_dicom_series(volume, tmp_path)]

    image = SimpleITK.ReadImage(names)

    assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.hu)
    for z, y, x in [(0, 0, 0), (2, 33, 39), (1, 10, 20)]:
        there = image.TransformContinuousIndexToPhysicalPoint((float(x), float(y), float(z)))
        assert np.allclose(there, volume.grid.to_patient((z, y, x)), atol=1e-4)


@pytest.mark.parametrize("direction", [OBLIQUE, -OBLIQUE, np.eye(3), np.eye(3)[:, ::-1]])
def test_enhanced_frames_lie_where_the_slices_do(direction: np.ndarray, tmp_path: Path) -> None:
    volume = ct(direction=direction)

    (path,) = write_dicom_series(volume, tmp_path, enhanced=True)

    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    down, across = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    for z, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        found = position + 5 * down * column + 7 * across * row
        assert np.allclose(found, volume.grid.to_patient((z, 5, 7)), atol=1e-6)
        assert frame.FrameContentSequence[0].InStackPositionNumber == z + 1


def test_a_series_keeps_its_uids_when_it_is_encoded_again(tmp_path: Path) -> None:
    volume = ct()
    plain, packed = (
        [pydicom.dcmread(p) for p in write_dicom_series(volume, tmp_path / uid, transfer_syntax_uid=uid)]
        for uid in (ExplicitVRLittleEndian, JPEGLSLossless)
    )

    assert [d.SOPInstanceUID for d in plain] == [d.SOPInstanceUID for d in packed]
    assert len({d.SOPInstanceUID for d in plain}) == len(plain)
    assert plain[0].SeriesInstanceUID == packed[0].SeriesInstanceUID
    assert all(d.SOPInstanceUID.startswith("2.25.") and d.SOPInstanceUID.is_valid for d in plain)
    assert all(d.SOPInstanceUID == d.file_meta.MediaStorageSOPInstanceUID for d in plain + packed)


def test_other_voxels_are_another_series_of_the_same_study(tmp_path: Path) -> None:
    one = pydicom.dcmread(write_dicom_series(ct(), tmp_path / "1")[0])
    two = pydicom.dcmread(write_dicom_series(ct(-1000), tmp_path / "2")[0])
    stranger = pydicom.dcmread(write_dicom_series(ct(), tmp_path / "3", patient=PhantomPatient("OTHER^ONE"))[0])

    assert one.StudyInstanceUID == two.StudyInstanceUID != stranger.StudyInstanceUID
    assert one.FrameOfReferenceUID == two.FrameOfReferenceUID
    assert len({one.SeriesInstanceUID, two.SeriesInstanceUID, stranger.SeriesInstanceUID}) == 3


def test_the_identity_of_a_volume_is_kept(tmp_path: Path) -> None:
    slices = tuple(SliceIdentity(f"2.25.{10 + z}", instance_number=100 + z) for z in range(3))
    identity = DicomIdentity("2.25.1", "2.25.2", "2.25.3", slices)

    datasets = [pydicom.dcmread(p) for p in write_dicom_series(ct(identity=identity), tmp_path)]

    assert [d.SOPInstanceUID for d in datasets] == ["2.25.10", "2.25.11", "2.25.12"]
    assert [d.InstanceNumber for d in datasets] == [100, 101, 102]
    assert {(d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID) for d in datasets} == {
        ("2.25.1", "2.25.2", "2.25.3")
    }


def test_instance_numbers_count_against_the_array(tmp_path: Path) -> None:
    numbers = [pydicom.dcmread(p).InstanceNumber for p in write_dicom_series(ct(), tmp_path)]

    assert numbers == [3, 2, 1]


def test_names_attributes_and_edits_are_the_callers(tmp_path: Path) -> None:
    def spoil(dataset: pydicom.Dataset, z: int) -> None:
        if z == 1:
            del dataset.PixelSpacing

    paths = write_dicom_series(
        ct(),
        tmp_path / "new folder",
        file_names=lambda z: f"{9 - z}",
        series=SeriesAttributes(convolution_kernel="LUNG", rescale_intercept=-1000, slice_thickness_mm=3.0),
        edit=spoil,
    )

    assert [p.name for p in paths] == ["9", "8", "7"]
    datasets = [pydicom.dcmread(p) for p in paths]
    assert ["PixelSpacing" in d for d in datasets] == [True, False, True]
    assert {(d.ConvolutionKernel, float(d.RescaleIntercept), float(d.SliceThickness)) for d in datasets} == {
        ("LUNG", -1000.0, 3.0)
    }
    assert np.array_equal(hu_of(paths), ct().hu)


def test_a_tilted_gantry_is_written_slice_by_slice(tmp_path: Path) -> None:
    grid = ct(direction=np.eye(3)[:, ::-1]).grid
    lean = np.eye(4)
    lean[1, 0] = 0.5
    volume = CtVolume(ct().hu, Grid(SHAPE_ZYX, grid.affine @ lean))

    datasets = [pydicom.dcmread(p) for p in write_dicom_series(volume, tmp_path)]

    for z, dataset in enumerate(datasets):
        assert np.allclose(np.array(dataset.ImagePositionPatient, float), volume.grid.to_patient((z, 0, 0)), atol=1e-6)
        assert float(dataset.SliceThickness) == pytest.approx(2.5)


def test_rows_askew_of_columns_are_refused(tmp_path: Path) -> None:
    skewed = ct().grid.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0.2, 1, 0], [0, 0, 0, 1.0]])

    with pytest.raises(ValueError, match="orthogonal"):
        write_dicom_series(CtVolume(ct().hu, Grid(SHAPE_ZYX, skewed)), tmp_path)


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    volume = ct()
    volume.hu[0, 0, :2] = (-32768, 32767)

    with pytest.raises(ValueError, match="do not fit 16 bits"):
        write_dicom_series(volume, tmp_path)


def test_lossy_syntaxes_and_stamps_are_refused(tmp_path: Path) -> None:
    small = CtVolume(np.zeros((2, 16, 16), np.int16), Grid.from_spacing((2, 16, 16)))

    with pytest.raises(ValueError, match="transfer syntax"):
        write_dicom_series(small, tmp_path, transfer_syntax_uid=JPEGBaseline8Bit)
    with pytest.raises(ValueError, match="32 rows"):
        write_dicom_series(small, tmp_path, transfer_syntax_uid=JPEG2000Lossless)


def test_uids_are_valid_and_told_apart_by_every_part() -> None:
    uids = {phantom_uid(*parts) for parts in [("a",), ("a", ""), ("", "a"), ("ab",), ("a", "b")]}

    assert len(uids) == 5
    assert all(uid.is_valid and len(uid) <= 64 for uid in uids)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)")
@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize(
    "uid", [uid for uid in TRANSFER_SYNTAXES if uid != DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_dciodvfy_finds_nothing(uid: str, enhanced: bool, tmp_path: Path) -> None:
    path = write_dicom_series(ct(), tmp_path, transfer_syntax_uid=uid, enhanced=enhanced)[0]

    said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False).stderr

    assert said.split() == ["EnhancedCTImage" if enhanced else "CTImage"]


@given(power=st.integers(-3, 4), below=st.integers(0, 5000), sign=st.sampled_from([-1, 1]))
def test_decimal_strings_fit_16_characters_and_keep_their_value(power, below, sign):
    """Just below a power of ten is where pydicom's own formatting runs over."""
    value = sign * 10.0**power * (1 - below * 2.3e-16)
    text = decimal_string(value)
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, abs=1e-9)
