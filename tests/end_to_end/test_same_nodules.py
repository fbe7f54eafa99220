"""The same series gives the same nodules in whatever form it arrives."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume, Grid
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import analyse
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.files import write_metaimage, write_nifti, write_nrrd
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


def one_file(name: str, write: Callable[[CtVolume, Path], Path]) -> Form:
    return lambda volume, folder: write(volume, folder / name)


FORMS: dict[str, Form] = {
    "zip": zipped,
    "shuffled files": shuffled,
    **{uid.name: transfer_syntax(uid) for uid in TRANSFER_SYNTAXES},
    "Enhanced CT": enhanced,
    ".mha": one_file("scan.mha", write_metaimage),
    ".nii.gz": one_file("scan.nii.gz", write_nifti),
    ".nrrd": one_file("scan.nrrd", write_nrrd),
}


def centers(source: Path | list[Path], model: LoadedModel) -> np.ndarray:
    """(n, 3) LPS mm."""
    return np.array([nodule.center_lps_mm for nodule in analyse(source, model).nodules]).reshape(-1, 3)


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
    """As many nodules, and each of them within the tolerance of one that was expected, in either direction."""
    assert len(expected) > 0
    assert found.shape == expected.shape
    distances_mm = np.linalg.norm(found[:, None] - expected[None], axis=2)
    assert distances_mm.min(axis=0).max() < TOLERANCE_MM
    assert distances_mm.min(axis=1).max() < TOLERANCE_MM


@dataclass(frozen=True)
class Case:
    """A scan, what to read it with, and where its nodules are when it is sent as a folder or zip."""

    volume: CtVolume
    model: LoadedModel
    expected: np.ndarray


@pytest.fixture(scope="module", params=["phantom", "LIDC-IDRI-0001"])
def case(request, tmp_path_factory) -> Case:
    """A small phantom with the tiny model, always; the real CT with the repository's model where both are there."""
    if request.param == "phantom":
        store = request.getfixturevalue("tiny_model_store")
        model = load_model(store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))
        nodules = [NoduleSpec(diameter_mm=mm) for mm in (14.0, 18.0)]
        volume = phantom_ct(
            shape_zyx=(80, 96, 96), spacing_zyx_mm=(4.0, 4.0, 4.0), nodules=nodules, noise_hu=5.0
        ).volume
        source = tmp_path_factory.mktemp("series")
        write_dicom_series(volume, source)
    else:
        source = request.getfixturevalue("shared_data") / "ct/LIDC-IDRI-0001.zip"
        model = request.getfixturevalue("shipped_model")
        volume = read_ct(source)[0]
    return Case(volume, model, centers(source, model))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_same_nodules_in_every_form(case, form, tmp_path):
    assert_same(centers(form(case.volume, tmp_path), case.model), case.expected)


def test_same_nodules_in_a_rotated_patient(case, tmp_path):
    turned, rotation = rotated(case.volume, 15.0)
    write_dicom_series(turned, tmp_path / "series")
    found = centers(tmp_path / "series", case.model) @ rotation
    assert_same(found, case.expected)
