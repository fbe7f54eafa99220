"""Image files say what the volume says, and a phantom comes with its truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydantic import ValidationError

from app.imaging.volume import CtVolume, Grid
from app.phantom import write_phantom
from app.phantom.files import PhantomTruth, write_metaimage, write_nifti, write_nrrd
from app.phantom.nodules import NoduleSpec

OBLIQUE = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
SMALL = {"shape_zyx": (40, 50, 60), "spacing_zyx_mm": (7.0, 7.0, 7.0), "nodules": (NoduleSpec(20.0),)}

Write = Callable[[CtVolume, Path], Path]


def ct() -> CtVolume:
    hu = np.random.default_rng(0).integers(-1024, 1500, (5, 6, 7)).astype(np.int16)
    return CtVolume(hu, Grid.from_spacing(hu.shape, (2.5, 0.7, 0.8), (-100.125, 20.5, -300.25), OBLIQUE))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_metaimage, "a.mha"),
        (write_metaimage, "a.mhd"),
        (write_nifti, "a.nii"),
        (write_nifti, "a.nii.gz"),
        (write_nrrd, "a.nrrd"),
    ],
)
def test_voxels_and_places_come_back(write: Write, name: str, tmp_path: Path) -> None:
    volume = ct()

    path = write(volume, tmp_path / "new" / name)

    image = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.hu)
    for z, y, x in [(0, 0, 0), (4, 5, 6), (1, 2, 3)]:
        there = image.TransformIndexToPhysicalPoint((x, y, z))
        assert np.allclose(there, volume.grid.to_patient((z, y, x)), atol=1e-3)


def test_compression_changes_the_file_alone(tmp_path: Path) -> None:
    flat = CtVolume(np.zeros((20, 30, 30), np.int16), Grid.from_spacing((20, 30, 30)))

    plain = write_metaimage(flat, tmp_path / "plain.mhd")
    packed = write_metaimage(flat, tmp_path / "packed.mhd", compressed=True)

    assert (tmp_path / "plain.raw").stat().st_size == 20 * 30 * 30 * 2
    assert (tmp_path / "packed.zraw").stat().st_size < 2000
    arrays = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(p))) for p in (plain, packed)]
    assert np.array_equal(*arrays)


@pytest.mark.parametrize("write", [write_metaimage, write_nifti, write_nrrd])
def test_other_suffixes_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in"):
        write(ct(), tmp_path / "a.png")


def test_leaning_slices_are_refused(tmp_path: Path) -> None:
    lean = np.eye(4)
    lean[1, 0] = 0.3

    with pytest.raises(ValueError, match="not orthogonal"):
        write_nifti(CtVolume(ct().hu, Grid((5, 6, 7), ct().grid.affine @ lean)), tmp_path / "a.nii")


def test_a_phantom_as_a_dicom_series_with_its_truth(tmp_path: Path) -> None:
    phantom = write_phantom(tmp_path / "out", "dicom", seed=1, **SMALL)

    files = sorted((tmp_path / "out").rglob("*.dcm"))
    truth = PhantomTruth.model_validate_json((tmp_path / "out" / "truth.json").read_text())
    assert len(files) == 40
    assert pydicom.dcmread(files[0]).PatientName == "PHANTOM^CHEST"
    assert truth.seed == 1
    assert truth.shape_zyx == (40, 50, 60)
    assert [n.center_lps_mm for n in truth.nodules] == [n.center_lps_mm for n in phantom.nodules]
    assert truth.nodules[0].volume_mm3 == pytest.approx(np.pi / 6 * 20.0**3)


def test_a_phantom_as_one_metaimage(tmp_path: Path) -> None:
    phantom = write_phantom(tmp_path, "mha", **SMALL)

    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "phantom.mha")))
    assert np.array_equal(array, phantom.volume.hu)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["phantom.mha", "truth.json"]


def test_a_truth_with_unknown_fields_is_refused(tmp_path: Path) -> None:
    write_phantom(tmp_path, "mha", **SMALL)
    content = json.loads((tmp_path / "truth.json").read_text())

    with pytest.raises(ValidationError, match="diameter"):
        PhantomTruth.model_validate(content | {"diameter": 3})
