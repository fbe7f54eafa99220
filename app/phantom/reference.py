"""The third lock on preprocessing: a digest of a reference phantom after preprocessing.

Training writes the digest into the manifest and loading a model recomputes it, so a service whose preprocessing
differs from training's, for whatever reason, refuses the model.

Nothing is rounded before hashing. Of thousands of values some always lie within one unit in the last place of a
rounding step, so rounding would make a spurious difference rare, not impossible, and hide small true ones. Instead the
phantom makes every operation exact or correctly rounded on any IEEE machine: its HU are computed in integers, its
spacings are powers of two, its axes lie along the patient's and every position is a multiple of 1/8 mm. Matrix
products and inverses, the only steps whose order of operations depends on the library, are then exact; what is left is
elementwise arithmetic, which numpy rounds the same way everywhere.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from app.imaging.lungs import LEFT, RIGHT, LungMask
from app.imaging.preprocessing import CropSpec, PreprocessingSpec, preprocess, sample_crops
from app.imaging.volume import CtVolume, Grid

_SHAPE_ZYX = (20, 96, 44)
_SPACING_ZYX_MM = (2.0, 0.5, 1.0)
_ORIGIN_LPS_MM = (21.5, 7.25, -300.75)
_X_TO_THE_RIGHT = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
_MASK_SPACING_MM = 4.0
_CROP_CENTERS_LPS_MM = ((12.25, 30.5, -283.125), (-11.5, 30.125, -281.0), (20.75, 8.0, -300.5))
"""In the left lung on its nodule, in the right lung, and at the corner of the scan."""


def reference_phantom() -> tuple[CtVolume, LungMask]:
    """A tiny anisotropic CT whose x axis runs to the patient's right, and its lung mask, made by hand.

    Bit-identical on every platform: all in integers and powers of two.
    """
    grid = Grid.from_spacing(_SHAPE_ZYX, _SPACING_ZYX_MM, _ORIGIN_LPS_MM, _X_TO_THE_RIGHT)
    z, y, x = np.indices(_SHAPE_ZYX, dtype=np.int64)
    grain = (7 * x + 13 * y + 29 * z + x * y) % 97
    hu = np.where(_ellipse(x - 22, y - 48, 21, 46), 20 + grain, -1000 - grain)
    left = _ellipsoid(z - 9, y - 47, x - 10, (8, 34, 8))
    right = _ellipsoid(z - 9, y - 47, x - 33, (8, 36, 9))
    hu = np.where(left | right, -940 + grain, hu)
    hu = np.where(_ellipsoid(z - 9, y - 46, x - 9, (3, 8, 4)), 10 + grain // 2, hu)
    # Values beyond any window, and padding as some scanners write it.
    hu = np.where((np.abs(x - 22) < 3) & (y > 70), 900 + 11 * grain, hu)
    hu = np.where((x < 2) & (y < 4), -2048, hu)
    return CtVolume(hu.astype(np.int16), grid), LungMask(*_lung_labels(grid))


def reference_digest(spec: PreprocessingSpec, crop: CropSpec | None) -> str:
    """sha256 over what `preprocess` and `sample_crops` make of the reference phantom.

    Parameters
    ----------
    spec, crop
        A model's own; no crop where it has a detector only.

    Returns
    -------
    str
        64 hexadecimal digits; covers values, shapes, positions and the widened lung mask.
    """
    volume, lungs = reference_phantom()
    prepared = preprocess(volume, lungs, spec)
    digest = hashlib.sha256()
    arrays: list[NDArray[np.generic]] = [prepared.values, prepared.grid.affine]
    if crop is not None:
        arrays.append(sample_crops(volume, _CROP_CENTERS_LPS_MM, crop))
    if prepared.in_lungs is not None:
        arrays.append(prepared.in_lungs.astype(np.uint8))
    for array in arrays:
        little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        # Adding zero turns -0.0, whose sign a matrix product need not keep, into 0.0.
        digest.update(f"{array.shape}{little_endian.dtype.str}".encode())
        digest.update((little_endian + little_endian.dtype.type(0)).tobytes())
    return digest.hexdigest()


def _ellipse(u: NDArray[np.int64], v: NDArray[np.int64], half_u: int, half_v: int) -> NDArray[np.bool_]:
    return np.asarray((u * half_v) ** 2 + (v * half_u) ** 2 <= (half_u * half_v) ** 2)


def _ellipsoid(
    w: NDArray[np.int64], v: NDArray[np.int64], u: NDArray[np.int64], half: tuple[int, int, int]
) -> NDArray[np.bool_]:
    c, b, a = half
    return np.asarray((u * b * c) ** 2 + (v * a * c) ** 2 + (w * a * b) ** 2 <= (a * b * c) ** 2)


def _lung_labels(grid: Grid) -> tuple[NDArray[np.uint8], Grid]:
    """Labels on 4 mm voxels in canonical order (feet to head, front to back, right to left)."""
    right_most = grid.to_patient((0, 0, grid.shape_zyx[2] - 1))
    shape = (10, 12, 11)
    z, y, x = np.indices(shape, dtype=np.int64)
    labels = np.zeros(shape, np.uint8)
    labels[_ellipsoid(z - 4, y - 6, x - 2, (4, 5, 3))] = RIGHT
    labels[_ellipsoid(z - 4, y - 6, x - 8, (4, 4, 2))] = LEFT
    return labels, Grid.from_spacing(shape, (_MASK_SPACING_MM,) * 3, right_most)
