"""A nodule turned and scaled onto the voxels of a host: how much tissue it adds where, and where its outline runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from training.nodule_blocks import BLOCK_SPACING_MM, Nodule

TISSUE_HU = 40.0
COARSE_SLICES_MM = 1.5
"""Sources with wider slices are blurred along z: they are tilted little, or the blur would show in-plane."""
TILT_DEG = 15.0
HALO_FRACTION = 0.06
"""Tissue fraction outside the outline below which it is the source's noise, not a spicule or a vessel."""


@dataclass(frozen=True)
class RenderedNodule:
    """A nodule on the host's 1 mm voxels.

    Parameters
    ----------
    fraction
        float32 (z, y, x) 0..1: how much of a voxel the nodule fills with tissue.
    tissue_hu
        HU that a fraction of 1 stands for.
    inside
        float32 (z, y, x) 0..1: how much of a voxel lies inside the outline.
    start_zyx
        (3,) host voxel of the block's first voxel; may be negative.
    """

    fraction: NDArray[np.float32]
    tissue_hu: float
    inside: NDArray[np.float32]
    start_zyx: NDArray[np.int64]


def render(
    nodule: Nodule,
    center_zyx: ArrayLike,
    rng: np.random.Generator,
    *,
    scale: float = 1.0,
    wall_direction_zyx: ArrayLike | None = None,
    slice_spacing_mm: float = 1.0,
) -> RenderedNodule:
    """Place a nodule with its centroid at ``center_zyx``, turned and mirrored at random.

    Parameters
    ----------
    scale
        Size relative to its own.
    wall_direction_zyx
        The side that touched the chest wall is turned to this direction, as far as the source's slices allow.
    slice_spacing_mm
        Slice spacing of the host: the nodule is blurred along z to its resolution.
    """
    center = np.asarray(center_zyx, dtype=np.float64)
    turn = _orientation(nodule, wall_direction_zyx, rng)
    half = (np.asarray(nodule.hu.shape) - 1) / 2
    reach = np.abs(turn) @ (half * BLOCK_SPACING_MM) * scale
    start = np.floor(center - reach).astype(np.int64)
    shape = tuple(int(n) for n in np.ceil(center + reach).astype(np.int64) - start + 1)
    matrix = turn.T / (scale * BLOCK_SPACING_MM)
    offset = half - matrix @ (center - start)
    hu = ndimage.affine_transform(
        nodule.hu.astype(np.float32), matrix, offset, shape, order=1, mode="constant", cval=nodule.lung_hu
    )
    distance = ndimage.affine_transform(
        nodule.distance_mm.astype(np.float32), matrix, offset, shape, order=1, mode="nearest"
    )
    distance *= np.float32(scale)
    fraction, tissue_hu = _tissue_fraction(nodule, hu, distance, scale)
    fraction = _blurred_along_z(fraction, nodule.slice_spacing_mm * scale, slice_spacing_mm)
    return RenderedNodule(fraction, tissue_hu, np.clip(0.5 - distance, 0.0, 1.0), start)


def _orientation(nodule: Nodule, wall_direction_zyx: ArrayLike | None, rng: np.random.Generator) -> NDArray[np.float64]:
    """Orthogonal matrix (z, y, x): any for thin slices, about the z axis with a small tilt for thick ones."""
    free = nodule.slice_spacing_mm <= COARSE_SLICES_MM
    turn = _random_orthogonal(rng) if free else _random_about_z(rng)
    if wall_direction_zyx is None or nodule.wall_zyx is None:
        return turn
    source, target = turn @ np.asarray(nodule.wall_zyx), np.asarray(wall_direction_zyx, dtype=np.float64)
    return (_reflection if free else _turn_about_z)(source, target) @ turn


def _random_orthogonal(rng: np.random.Generator) -> NDArray[np.float64]:
    turn, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(turn * np.sign(np.diag(upper)))


def _random_about_z(rng: np.random.Generator) -> NDArray[np.float64]:
    mirror = np.diag(rng.choice([-1.0, 1.0], size=3))
    tilt = np.radians(np.clip(rng.normal(0.0, TILT_DEG, 2), -2 * TILT_DEG, 2 * TILT_DEG))
    spin = _about(0, rng.uniform(0.0, 2 * np.pi))
    return np.asarray(_about(1, tilt[0]) @ _about(2, tilt[1]) @ spin @ mirror)


def _about(axis: int, angle_rad: float) -> NDArray[np.float64]:
    """Rotation about one array axis."""
    first, second = (i for i in range(3) if i != axis)
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(angle_rad)
    turn[first, second], turn[second, first] = -np.sin(angle_rad), np.sin(angle_rad)
    return turn


def _reflection(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mirror that takes one unit vector to the other."""
    between = source - target
    length = float(np.linalg.norm(between))
    if length < 1e-6:
        return np.eye(3)
    axis = between / length
    return np.asarray(np.eye(3) - 2.0 * np.outer(axis, axis))


def _turn_about_z(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation about z that takes the one azimuth to the other."""
    return _about(0, float(np.arctan2(target[2], target[1]) - np.arctan2(source[2], source[1])))


def _tissue_fraction(
    nodule: Nodule, hu: NDArray[np.float32], distance_mm: NDArray[np.float32], scale: float
) -> tuple[NDArray[np.float32], float]:
    """Tissue fraction 0..1 of each voxel and the HU that 1 stands for.

    Around the outline the source's own edge, spicules and vessels are kept and fade out over a width that grows with
    the nodule.
    """
    core = nodule.hu[nodule.distance_mm < 0]
    tissue_hu = max(TISSUE_HU, float(np.percentile(core, 98)))
    fraction = (hu - np.float32(nodule.lung_hu)) / np.float32(tissue_hu - nodule.lung_hu)
    fraction -= np.float32(HALO_FRACTION) * np.clip(distance_mm, 0.0, 1.0)
    width = float(np.clip(2.0 + 0.125 * nodule.diameter_mm * scale, 2.5, 6.0))
    rim = np.clip((width - distance_mm) / (0.6 * width), 0.0, 1.0)
    return np.clip(fraction * rim, 0.0, 1.0).astype(np.float32), tissue_hu


def _blurred_along_z(fraction: NDArray[np.float32], source_mm: float, host_mm: float) -> NDArray[np.float32]:
    """Lower the resolution along z from the source's slice spacing to the host's."""
    missing = host_mm**2 - source_mm**2
    if missing <= 0.25:
        return fraction
    return np.asarray(ndimage.gaussian_filter1d(fraction, 0.35 * np.sqrt(missing), axis=0))
