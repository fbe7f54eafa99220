"""Surfaces of masks as triangles in patient millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.volume import Grid

_TAUBIN_ROUNDS = 10
_SMOOTHING_VOXELS = 0.7
_LEAST_PEAK = 0.75
_LEVELS = (0.35, 0.5)


@dataclass(frozen=True)
class Surface:
    """A closed surface.

    Parameters
    ----------
    vertices_lps_mm, normals
        float64 (n, 3) in patient LPS; normals of length 1, outwards.
    triangles
        (m, 3) indices of vertices, counter-clockwise from outside.
    """

    vertices_lps_mm: NDArray[np.float64]
    normals: NDArray[np.float64]
    triangles: NDArray[np.int64]


def surface(mask: NDArray[np.bool_], grid: Grid, cell_mm: float) -> Surface | None:
    """The surface of a mask: smoothed, marching cubes, Taubin. None for an empty mask.

    Drawn where it holds about the volume of the mask; measure on voxels all the same.

    Parameters
    ----------
    mask
        bool (z, y, x).
    grid
        Of the mask.
    cell_mm
        Edge of the cubes, about; never finer than the voxels.
    """
    from skimage.measure import marching_cubes  # noqa: PLC0415 - heavy, and only the 3-D view wants them
    from trimesh import Trimesh  # noqa: PLC0415
    from trimesh.smoothing import filter_taubin  # noqa: PLC0415

    if not mask.any():
        return None
    field, level, start, steps = _field(mask, grid, cell_mm)
    index, triangles, _, _ = marching_cubes(field, level)  # type: ignore[no-untyped-call]
    vertices = grid.to_patient(index * steps + start)
    made = Trimesh(vertices, triangles, process=False)
    filter_taubin(made, iterations=_TAUBIN_ROUNDS)  # type: ignore[no-untyped-call]
    if made.volume < 0:
        made.invert()
    normals = np.array(made.vertex_normals, np.float64)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(lengths > 0, normals / np.maximum(lengths, 1e-12), (0.0, 0.0, 1.0))
    return Surface(np.array(made.vertices, np.float64), normals, np.array(made.faces, np.int64))


def _field(
    mask: NDArray[np.bool_], grid: Grid, cell_mm: float
) -> tuple[NDArray[np.float32], float, NDArray[np.float64], NDArray[np.float64]]:
    """How full each cell is, 0 to 1; where the surface lies; the index (z, y, x) of the first cell; voxels between."""
    occupied = np.argwhere(mask)
    low, high = occupied.min(axis=0), occupied.max(axis=0) + 1
    steps = np.maximum(1, np.rint(cell_mm / grid.spacing_zyx_mm)).astype(int)
    pad = 3 * steps
    part = np.pad(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], [(p, p) for p in pad])
    field = ndimage.gaussian_filter(part.astype(np.float32), _SMOOTHING_VOXELS * np.maximum(1.0, steps / 1.5))
    if field.max() < _LEAST_PEAK:  # as small as a voxel or two: smoothed away
        field = part.astype(np.float32)
    # Smoothing draws a small ball in: as many voxels as there were stay within. Between two values, never on one.
    inside = np.count_nonzero(part)
    between = np.partition(field.ravel(), (-inside - 1, -inside))[[-inside - 1, -inside]].mean()
    level = float(np.clip(between, *_LEVELS))
    return field[:: steps[0], :: steps[1], :: steps[2]], level, (low - pad).astype(np.float64), steps.astype(np.float64)
