"""Write volumes in the image formats that the service reads, and whole phantoms with their truth beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from app.imaging.volume import CtVolume
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import Kind, Margin, NoduleSpec, Site

PhantomFormat = Literal["dicom", "mha"]

DEMO_NODULES = (
    NoduleSpec(14.0, "solid", "lobulated", "free"),
    NoduleSpec(10.0, "solid", "smooth", "free"),
    NoduleSpec(18.0, "part-solid", "smooth", "free"),
)


class NoduleTruth(BaseModel):
    """One nodule of a phantom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    center_lps_mm: tuple[float, float, float] = Field(description="Centre in patient LPS mm (x, y, z).")
    diameter_mm: float = Field(description="Diameter in mm of the sphere of the same volume.")
    kind: Kind
    volume_mm3: float = Field(description="Volume in mm3 of the body, without spicules.")
    margin: Margin
    site: Site


class PhantomTruth(BaseModel):
    """Content of `truth.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    synthetic: Literal[True] = True
    seed: int
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    nodules: tuple[NoduleTruth, ...]


def write_metaimage(volume: CtVolume, path: Path, *, compressed: bool = False) -> Path:
    """Write `.mha`, or `.mhd` with its `.raw` (`.zraw` when compressed) beside it.

    Raises
    ------
    ValueError
        If the suffix is another or the axes of the grid are not orthogonal, which the format cannot express.
    """
    return _write_image(volume, path, (".mha", ".mhd"), compressed=compressed)


def write_nifti(volume: CtVolume, path: Path) -> Path:
    """Write `.nii`, or `.nii.gz`, which is compressed. Raises as `write_metaimage` does."""
    return _write_image(volume, path, (".nii", ".nii.gz"), compressed=path.name.endswith(".gz"))


def write_nrrd(volume: CtVolume, path: Path, *, compressed: bool = False) -> Path:
    """Write `.nrrd`. Raises as `write_metaimage` does."""
    return _write_image(volume, path, (".nrrd",), compressed=compressed)


def write_phantom(
    out_dir: Path,
    fmt: PhantomFormat,
    *,
    seed: int = 0,
    shape_zyx: tuple[int, int, int] = (200, 400, 400),
    spacing_zyx_mm: ArrayLike = (1.5, 0.9, 0.9),
    nodules: tuple[NoduleSpec, ...] = DEMO_NODULES,
) -> PhantomCt:
    """Write a chest CT phantom and `truth.json` into a folder.

    Parameters
    ----------
    out_dir
        Created when missing. Gets `truth.json` and either `series/IM0000.dcm` ... or `phantom.mha`.
    fmt
        ``"dicom"`` for a file for each slice, ``"mha"`` for one compressed MetaImage.
    seed, shape_zyx, spacing_zyx_mm, nodules
        See `app.phantom.chest.phantom_ct`.

    Returns
    -------
    PhantomCt
        What was written.
    """
    phantom = phantom_ct(shape_zyx=shape_zyx, spacing_zyx_mm=spacing_zyx_mm, nodules=nodules, seed=seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    if fmt == "dicom":
        write_dicom_series(phantom.volume, out_dir / "series")
    else:
        write_metaimage(phantom.volume, out_dir / "phantom.mha", compressed=True)
    truth = truth_of(phantom, seed)
    (out_dir / "truth.json").write_text(truth.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return phantom


def truth_of(phantom: PhantomCt, seed: int) -> PhantomTruth:
    """The truth about a phantom as it is written."""
    z, y, x = (float(v) for v in phantom.volume.grid.spacing_zyx_mm)
    nodules = tuple(NoduleTruth(**vars(nodule)) for nodule in phantom.nodules)
    return PhantomTruth(seed=seed, shape_zyx=phantom.volume.grid.shape_zyx, spacing_zyx_mm=(z, y, x), nodules=nodules)


def _write_image(volume: CtVolume, path: Path, suffixes: tuple[str, ...], *, compressed: bool) -> Path:
    if not path.name.endswith(suffixes):
        raise ValueError(f"the file's name must end in {' or '.join(suffixes)}")
    direction = volume.grid.direction_lps_zyx
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-6):
        raise ValueError("the axes of the grid are not orthogonal; only a DICOM series can express that")
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = SimpleITK.GetImageFromArray(volume.hu)
    image.SetSpacing([float(v) for v in volume.grid.spacing_zyx_mm[::-1]])
    image.SetOrigin([float(v) for v in volume.grid.origin_lps_mm])
    image.SetDirection([float(v) for v in direction[:, ::-1].ravel()])
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path
