"""The chest evaluated once on a coarse grid, from which scans of any grid are interpolated."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from app.imaging.volume import Grid
from app.phantom.anatomy import rib_centrelines, tissues

AtlasImages = list[tuple[SimpleITK.Image, float]]
"""An image of each of `CHANNELS` in patient mm, and its value outside."""

CHANNELS = ("body", "lung", "lean", "bone", "lean_hu", "lung_hu", "texture")
"""Four signed distances in mm, then HU of lean tissue and two that are added to the lung's."""
_OUTSIDE = (-50.0, -50.0, -50.0, -50.0, 0.0, 0.0, 0.0)
_SPACING_MM = 3.5
_LIMITS_MM = np.array([[-235.0, -150.0, -600.0], [235.0, 215.0, 600.0]])
_RIB_HALF_MM = np.array([3.8, 3.8, 6.5])


def build_atlas(rng: np.random.Generator, grid: Grid) -> AtlasImages:
    """Evaluate the part of the chest that ``grid``, given in the patient's own frame, shows."""
    corners = grid.to_patient(
        [
            [z, y, x]
            for z in (0, grid.shape_zyx[0] - 1)
            for y in (0, grid.shape_zyx[1] - 1)
            for x in (0, grid.shape_zyx[2] - 1)
        ]
    )
    low = np.clip(corners.min(axis=0) - _SPACING_MM, *_LIMITS_MM)
    high = np.clip(corners.max(axis=0) + _SPACING_MM, *_LIMITS_MM)
    x, y, z = (
        np.arange(a, max(b, a + _SPACING_MM) + _SPACING_MM, _SPACING_MM, dtype=np.float32)
        for a, b in zip(low, high, strict=True)
    )
    there = tissues(x[None, None, :], y[None, :, None], z[:, None, None])
    bone = there.bone.copy()
    _add_ribs(bone, x, y, z)
    # Blood and tissue sink to the back of a patient lying down.
    sunk = np.broadcast_to(np.float32(0.42) * y[None, :, None], bone.shape)
    arrays = (there.body, there.lung, there.lean, bone, there.lean_hu, sunk, _texture(rng, bone.shape))
    images = []
    for array, outside in zip(arrays, _OUTSIDE, strict=True):
        image: Any = SimpleITK.GetImageFromArray(np.ascontiguousarray(array, dtype=np.float32))
        image.SetSpacing((_SPACING_MM,) * 3)
        image.SetOrigin((float(x[0]), float(y[0]), float(z[0])))
        images.append((image, outside))
    return images


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """HU of secondary lobules and of vessels too small to be drawn."""
    fine = rng.standard_normal(shape, dtype=np.float32) * np.float32(18.0)
    coarse = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 3.0)
    return np.asarray(fine + coarse * np.float32(18.0 / max(float(coarse.std()), 1e-6)), dtype=np.float32)


def _add_ribs(
    bone: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32]
) -> None:
    """Raise the signed distance to bone where ribs and clavicles run."""
    origin = np.array([x[0], y[0], z[0]], dtype=np.float64)
    points = np.concatenate(rib_centrelines())
    reach = int(np.ceil(1.6 * _RIB_HALF_MM.max() / _SPACING_MM))
    steps = np.arange(-reach, reach + 1)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    voxels = np.rint((points - origin) / _SPACING_MM).astype(int)[:, None, :] + offsets[None]
    away = (voxels * _SPACING_MM + origin - points[:, None, :]) / _RIB_HALF_MM
    distance = ((1.0 - np.linalg.norm(away, axis=-1)) * _RIB_HALF_MM.min()).astype(np.float32)
    size = np.array([len(x), len(y), len(z)])
    inside = ((voxels >= 0) & (voxels < size)).all(axis=-1)
    column, row, plane = voxels[inside].T
    np.maximum.at(bone.reshape(-1), np.ravel_multi_index((plane, row, column), bone.shape), distance[inside])
