"""What an outline encloses, in HU: means, mass, the solid component, calcium and fat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.volume import CtVolume, FloatArray
from app.inference.findings import NoduleMask

SOLID_HU = -300.0
"""Finds the solid component of subsolid nodules with 90 % sensitivity and 88 % specificity against two readers
(Scholten et al., Eur Radiol 2015;25:488)."""
CALCIUM_HU = 200.0
"""Above soft tissue with contrast medium."""
FAT_HU = (-120.0, -40.0)
"""The usual range for fat in a hamartoma (Siegelman et al., Radiology 1986;160:313)."""
_FAT_MM3 = 12.0
"""Less is noise: 8 pixels of a thin slice are the smallest region that readers measure fat in."""
_FAT_DEPTH_MM = 2.0
_FAT_NEIGHBOUR_HU = -160.0
"""The edge of any dense nodule passes through the HU of fat. Fat is looked for this far inside the outline, and where
no neighbour, in the next slices either, is as light as lung or haze."""


@dataclass(frozen=True)
class Section:
    """A nodule's own HU: the scan's nearest voxels on the mask's grid, with a rim of two voxels."""

    hu: NDArray[np.float32]
    inside: NDArray[np.bool_]
    mask: NoduleMask
    """The mask cut to the same voxels."""


@dataclass(frozen=True)
class Densities:
    """HU within an outline, and the mass."""

    mean_hu: float
    min_hu: float
    max_hu: float
    mass_mg: float
    """Sum of (HU + 1000) / 1000 times the voxel's volume in mm3: tissue as heavy as water where it has its HU."""


def section(mask: NoduleMask, volume: CtVolume) -> Section:
    """The HU around an outline; beyond the scan its edge is repeated."""
    occupied = np.argwhere(mask.voxels)
    low = np.maximum(occupied.min(axis=0) - 2, 0)
    high = np.minimum(occupied.max(axis=0) + 3, mask.voxels.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = mask.voxels[box]
    grid = mask.grid.cropped(low, (inside.shape[0], inside.shape[1], inside.shape[2]))
    index = np.moveaxis(np.indices(inside.shape), 0, -1).reshape(-1, 3)
    nearest = np.rint(volume.grid.to_index(grid.to_patient(index))).astype(np.intp)
    nearest = np.clip(nearest, 0, np.asarray(volume.hu.shape) - 1)
    hu = volume.hu[tuple(nearest.T)].reshape(inside.shape).astype(np.float32)
    return Section(hu, inside, NoduleMask(inside, grid))


def densities(within: Section) -> Densities:
    """Mean, extremes and mass of what the outline encloses."""
    hu = within.hu[within.inside]
    weight = np.maximum(hu + 1000.0, 0.0).sum(dtype=np.float64) / 1000.0
    return Densities(
        mean_hu=float(hu.mean(dtype=np.float64)),
        min_hu=float(hu.min()),
        max_hu=float(hu.max()),
        mass_mg=float(weight * within.mask.grid.voxel_volume_mm3),
    )


def solid_component(within: Section) -> NoduleMask | None:
    """Largest connected part above `SOLID_HU` after averaging over 3 x 3 pixels; None where there is none."""
    solid = (_smooth(within) > SOLID_HU) & within.inside
    parts, count = ndimage.label(solid)
    if not count:
        return None
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return NoduleMask(np.asarray(parts == largest), within.mask.grid)


def calcium_mm3(within: Section) -> float:
    """Volume above `CALCIUM_HU` within the outline, averaged over 3 x 3 pixels, in mm3."""
    return float(np.count_nonzero(within.inside & (_smooth(within) > CALCIUM_HU)) * within.mask.grid.voxel_volume_mm3)


def has_fat(within: Section) -> bool:
    """Whether more fat than noise and partial volume explain lies deep within the outline."""
    return fat_mm3(within) >= _FAT_MM3


def fat_mm3(within: Section) -> float:
    """Volume in the HU of fat deep within the outline, in mm3; flanks towards lighter tissue do not count."""
    spacing, smooth = within.mask.grid.spacing_zyx_mm, _smooth(within)
    fat = within.inside & (smooth > FAT_HU[0]) & (smooth < FAT_HU[1])
    if not fat.any():
        return 0.0
    depth = ndimage.distance_transform_edt(np.pad(within.inside, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    fat &= (depth > _FAT_DEPTH_MM) & (ndimage.minimum_filter(smooth, size=3) > _FAT_NEIGHBOUR_HU)
    return float(np.count_nonzero(fat) * within.mask.grid.voxel_volume_mm3)


def _smooth(within: Section) -> FloatArray:
    """Mean of 3 x 3 pixels, about 2 mm: a small region and not a point, as Fleischner 2017 asks."""
    return np.asarray(ndimage.uniform_filter(within.hu, (1, 3, 3), mode="nearest"))
