"""The same series gives the same nodules in whatever form it arrives."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume, Grid
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import NoduleSpec
from app.phantom.pixel_encoding import TRANSFER_SYNTAXES

TOLERANCE_MM = 0.5

Form = Callable[[CtVolume, Path], Path | list[Path]]


def zipped(volume: CtVolume, folder: Path) -> Path:
    paths = write_dicom_series(volume, folder / "series")
    with zipfile.ZipFile(folder / "scan.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in paths:
            archive.write(path, f"study/{path.name}")
    return folder / "scan.zip"


def shuffled(volume: CtVolume, folder: Path) -> list[Path]:
    order = list(range(len(volume.hu)))
    random.Random(0).shuffle(order)
    return sorted(write_dicom_series(volume, folder, file_names=lambda z: f"{order[z]:x}"))


def transfer_syntax(uid: str) -> Form:
    def write(volume: CtVolume, folder: Path) -> Path:
        write_dicom_series(volume, folder / "series", transfer_syntax_uid=uid)
        return folder / "series"

    return write


def enhanced(volume: CtVolume, folder: Path) -> list[Path]:
    return write_dicom_series(volume, folder, enhanced=True)


def itk_file(suffix: str) -> Form:
    def write(volume: CtVolume, folder: Path) -> Path:
        image = SimpleITK.GetImageFromArray(volume.hu)
        image.SetSpacing([float(mm) for mm in volume.grid.spacing_zyx_mm[::-1]])
        image.SetOrigin([float(mm) for mm in volume.grid.origin_lps_mm])
        image.SetDirection([float(v) for v in volume.grid.direction_lps_zyx[:, ::-1].ravel()])
        SimpleITK.WriteImage(image, str(folder / f"scan{suffix}"), useCompression=suffix != ".mha")
        return folder / f"scan{suffix}"

    return write


FORMS: dict[str, Form] = {
    "zip": zipped,
    "shuffled files": shuffled,
    **{uid.name: transfer_syntax(uid) for uid in TRANSFER_SYNTAXES},
    "Enhanced CT": enhanced,
    ".mha": itk_file(".mha"),
    ".nrrd": itk_file(".nrrd"),
    ".nii.gz": itk_file(".nii.gz"),
}


def centers(source: Path | list[Path], model: LoadedModel) -> np.ndarray:
    """(n, 3) LPS mm, in a fixed order, so that equal probabilities do not matter."""
    found = analyse(source, model, AnalysisOptions()).nodules
    return np.array(sorted(nodule.center_lps_mm for nodule in found)).reshape(-1, 3)


def rotated(volume: CtVolume, degrees: float) -> tuple[CtVolume, np.ndarray]:
    """The same voxels of a patient turned about an oblique axis through the origin, and the 3x3 rotation."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.cross(np.eye(3), axis)
    angle = np.deg2rad(degrees)
    rotation = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    turned = np.eye(4)
    turned[:3, :3] = rotation
    return CtVolume(volume.hu, Grid(volume.grid.shape_zyx, turned @ volume.grid.affine)), rotation


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(expected) > 0
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected, axis=1).max() < TOLERANCE_MM


class TestPhantom:
    """On a small phantom with the tiny model: always."""

    @pytest.fixture(scope="class")
    def model(self, tiny_model_store):
        return load_model(tiny_model_store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))

    @pytest.fixture(scope="class")
    def volume(self):
        nodules = [NoduleSpec(diameter_mm=mm) for mm in (14.0, 18.0)]
        return phantom_ct(shape_zyx=(80, 96, 96), spacing_zyx_mm=(4.0, 4.0, 4.0), nodules=nodules, noise_hu=5.0).volume

    @pytest.fixture(scope="class")
    def expected(self, model, volume, tmp_path_factory):
        folder = tmp_path_factory.mktemp("series")
        write_dicom_series(volume, folder)
        return centers(folder, model)

    @pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
    def test_form(self, form, model, volume, expected, tmp_path):
        assert_same(centers(form(volume, tmp_path), model), expected)

    def test_patient_rotated(self, model, volume, expected, tmp_path):
        turned, rotation = rotated(volume, 15.0)
        write_dicom_series(turned, tmp_path / "series")
        assert_same(np.array(sorted((centers(tmp_path / "series", model) @ rotation).tolist())), expected)


class TestLidcIdri0001:
    """On the real CT with the repository's model, where both are there."""

    @pytest.fixture(scope="class")
    def volume(self, shared_data):
        return read_ct(shared_data / "ct/LIDC-IDRI-0001.zip")[0]

    @pytest.fixture(scope="class")
    def expected(self, shared_data, shipped_model):
        return centers(shared_data / "ct/LIDC-IDRI-0001.zip", shipped_model)

    @pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
    def test_form(self, form, shipped_model, volume, expected, tmp_path):
        assert_same(centers(form(volume, tmp_path), shipped_model), expected)

    def test_patient_rotated(self, shipped_model, volume, expected, tmp_path):
        turned, rotation = rotated(volume, 15.0)
        write_dicom_series(turned, tmp_path / "series")
        assert_same(np.array(sorted((centers(tmp_path / "series", shipped_model) @ rotation).tolist())), expected)
