"""Where a nodule ends: the whole of it read slice by slice, and the part of the mask that belongs to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.acceptance import Notice
from app.imaging.preprocessing import CropSpec, sample_stack
from app.imaging.volume import CtVolume, Grid
from app.inference.findings import Candidate, NoduleMask, Point

MASK_THRESHOLD = 0.5

_SPHERE_SPACING_MM = (0.2, 1.0)
_DIAMETERS, _MARGIN_MM = 0.75, 3.0
"""A section reaches this many detector diameters and the margin to both sides of the centre."""


def outline(
    volume: CtVolume,
    candidate: Candidate,
    crop: CropSpec,
    mask_probability: Callable[[NDArray[np.float32]], NDArray[np.floating]],
) -> tuple[NoduleMask, tuple[Notice, ...]]:
    """Outline one nodule on the scan's own slices.

    The section is as deep as the detector's diameter suggests, and deeper where the outline reaches its last slice.

    Parameters
    ----------
    volume
        The scan in HU.
    candidate
        Centre and the detector's diameter.
    crop
        In-plane size and spacing of the section, and its window.
    mask_probability
        (slices, rows, columns) in network units -> the same shape.

    Returns
    -------
    mask, notices
        Never empty: where the network sees nothing at the centre, the detector's sphere stands in and
        ``outline_from_detector`` says so. ``outline_cut_off`` says that the nodule may be larger than its section.
    """
    depth_mm, slices = candidate.diameter_mm * _DIAMETERS + _MARGIN_MM, 0
    while True:
        stack, grid = sample_stack(volume, candidate.center_lps_mm, depth_mm, crop)
        probability = mask_probability(stack)
        voxels = _part_at_center(probability >= MASK_THRESHOLD, grid, candidate)
        too_shallow = bool(voxels[[0, -1]].any())
        if not too_shallow or len(stack) == slices or depth_mm > crop.size_px * crop.spacing_mm:
            break
        depth_mm, slices = 2 * depth_mm, len(stack)
    if not voxels.any():
        notice = _notice("outline_from_detector", "has no outline; the detector's sphere is measured", candidate)
        return NoduleMask(_sphere(grid, candidate), grid), (notice,)
    in_plane = np.asarray(voxels.any(axis=0))
    if too_shallow or in_plane[[0, -1]].any() or in_plane[:, [0, -1]].any():
        notice = _notice("outline_cut_off", "reaches the edge of the section that was outlined", candidate)
        return NoduleMask(voxels, grid, probability), (notice,)
    return NoduleMask(voxels, grid, probability), ()


def sphere(volume: CtVolume, candidate: Candidate) -> tuple[NoduleMask, tuple[Notice, ...]]:
    """The detector's sphere, where the model draws no outlines; ``outline_from_detector`` says so.

    Its section is made to its size, with voxels of a tenth of the diameter in-plane, 0.2 to 1 mm.
    """
    spacing_mm = float(np.clip(candidate.diameter_mm / 10, _SPHERE_SPACING_MM[0], _SPHERE_SPACING_MM[1]))
    size_px = max(8, 2 * int(np.ceil((candidate.diameter_mm / 2 + 1) / spacing_mm)) + 2)
    crop = CropSpec(spacing_mm=spacing_mm, size_px=size_px, slice_offsets_mm=(0.0,))
    _, grid = sample_stack(volume, candidate.center_lps_mm, candidate.diameter_mm / 2 + 1, crop)
    notice = _notice("outline_from_detector", "has no outline; the detector's sphere is measured", candidate)
    return NoduleMask(_sphere(grid, candidate), grid), (notice,)


def _part_at_center(inside: NDArray[np.bool_], grid: Grid, candidate: Candidate) -> NDArray[np.bool_]:
    """The connected part that holds the centre, or comes nearest to it within the detector's sphere."""
    distance = np.where(inside, _distance_mm(grid, candidate.center_lps_mm), np.inf)
    nearest = int(np.argmin(distance))
    if distance.flat[nearest] > max(candidate.diameter_mm / 2, float(grid.spacing_zyx_mm.max())):
        return np.zeros_like(inside)
    parts = np.asarray(ndimage.label(inside)[0])
    return np.asarray(parts == parts.flat[nearest])


def _sphere(grid: Grid, candidate: Candidate) -> NDArray[np.bool_]:
    """The detector's sphere; at least the voxel at its centre."""
    distance = _distance_mm(grid, candidate.center_lps_mm)
    return np.asarray(distance <= max(candidate.diameter_mm / 2, float(distance.min())))


def _distance_mm(grid: Grid, center_lps_mm: Point) -> NDArray[np.float64]:
    """(z, y, x) distance of every voxel centre from a point, by the metric of the grid, which may be oblique."""
    metric = grid.affine[:3, :3].T @ grid.affine[:3, :3]
    offset = [np.arange(n) - at for n, at in zip(grid.shape_zyx, grid.to_index(center_lps_mm), strict=True)]
    steps = (offset[0][:, None, None], offset[1][:, None], offset[2])
    squared = sum(metric[i, j] * steps[i] * steps[j] for i in range(3) for j in range(3))
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _notice(code: str, what: str, candidate: Candidate) -> Notice:
    at = [round(v, 1) for v in candidate.center_lps_mm]
    return Notice(code, f"The nodule at LPS {at} mm {what}.", {"center_lps_mm": at})
