"""Turn tubes and nodules into the share of each voxel that they fill, as a scanner's point spread would show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chndtr

from app.imaging.volume import Grid
from app.phantom.vessels import Tubes

PSF_SIGMA_MM = 0.45
"""Gaussian point spread, about 1.1 mm full width at half maximum."""

_CHUNK_VALUES = 1_500_000
_TABLE_STEP = 0.1
_TABLE_RADII = 80
_TABLE_DISTANCES = 120


def blur_variance_mm2(grid: Grid) -> NDArray[np.float64]:
    """(3, 3) covariance in patient mm of point spread and voxel together."""
    edges = grid.affine[:3, :3]
    return np.asarray(edges @ edges.T / 12.0 + PSF_SIGMA_MM**2 * np.eye(3))


def paint_tubes(tubes: Tubes, grid: Grid, filled: NDArray[np.uint8]) -> None:
    """Raise ``filled`` (z, y, x; 255 = whole voxel) to what the tubes fill of each voxel.

    A tube is a disc blurred by a Gaussian, taken across its direction; exact for a straight tube and a Gaussian
    voxel. ``tubes`` are in the frame of ``grid``.
    """
    covariance = blur_variance_mm2(grid)
    along = np.einsum("ni,ij,nj->n", tubes.tangents, covariance, tubes.tangents)
    sigma = np.sqrt((np.trace(covariance) - along) / 2.0)
    table = _blurred_disc_table()
    index = grid.to_index(tubes.points_mm)
    reach_mm = tubes.radii_mm + 2.4 * sigma
    reach = np.ceil(reach_mm[:, None] / grid.spacing_zyx_mm)
    near = ((index > -reach) & (index < np.asarray(grid.shape_zyx) - 1 + reach)).all(axis=1)
    # Too thin to leave a trace of more than about one grey level in a thousand.
    near &= tubes.radii_mm > 0.12 * sigma
    near[np.arange(len(near)) % _stride(grid) != 0] = False
    cost = np.prod(2 * reach + 1, axis=1)
    order = np.flatnonzero(near)[np.argsort(cost[near], kind="stable")]
    ends = np.flatnonzero(np.diff(np.cumsum(cost[order]) // _CHUNK_VALUES)) + 1
    for some in np.split(order, ends):
        if len(some):
            box = reach[some].max(axis=0).astype(int)
            _paint_points(tubes, some, index[some], sigma[some], box, grid, filled, table)


def _stride(grid: Grid) -> int:
    """Of samples 1 mm apart, the one in so many that is still enough for large voxels."""
    return max(1, int(0.4 * float(grid.spacing_zyx_mm.min())))


def _paint_points(
    tubes: Tubes,
    some: NDArray[np.intp],
    index: NDArray[np.float64],
    sigma: NDArray[np.float64],
    reach: NDArray[np.int_],
    grid: Grid,
    filled: NDArray[np.uint8],
    table: NDArray[np.uint8],
) -> None:
    offsets = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    nearest = np.rint(index).astype(np.int32)
    voxels = nearest[:, None, :] + offsets[None].astype(np.int32)
    edges = grid.affine[:3, :3].astype(np.float32)
    shift = ((nearest - index) @ grid.affine[:3, :3].T).astype(np.float32)
    away = shift[:, None, :] + (offsets.astype(np.float32) @ edges.T)[None]
    tangents = tubes.tangents[some].astype(np.float32)
    lengthwise = np.einsum("nki,ni->nk", away, tangents)
    across = np.sqrt(np.maximum(np.einsum("nki,nki->nk", away, away) - lengthwise**2, 0.0))
    scale = (1.0 / sigma).astype(np.float32)[:, None]
    radius = tubes.radii_mm[some].astype(np.float32)[:, None] * scale
    excess = np.maximum(radius - (_TABLE_RADII - 1) * _TABLE_STEP, 0.0)
    row = np.rint((radius - excess) / _TABLE_STEP).astype(np.intp)
    column = np.rint((across * scale - excess) / _TABLE_STEP).clip(0, _TABLE_DISTANCES - 1).astype(np.intp)
    values = table[row, column]
    # Beyond its neighbours along the line a sample says nothing: they speak for that place.
    slab = np.abs(lengthwise) <= 0.75 + 0.6 * float(grid.spacing_zyx_mm.max())
    inside = slab & (values > 0) & ((voxels >= 0) & (voxels < np.asarray(grid.shape_zyx))).all(axis=-1)
    chosen = voxels[inside]
    flat = np.ravel_multi_index((chosen[:, 0], chosen[:, 1], chosen[:, 2]), grid.shape_zyx)
    np.maximum.at(filled.reshape(-1), flat, values[inside])


def _blurred_disc_table() -> NDArray[np.uint8]:
    """Share (0..255) of a unit Gaussian at distance d (columns) that falls in a disc of radius r (rows).

    That is the distribution function of a noncentral chi-square with two degrees of freedom.
    """
    radii = np.arange(_TABLE_RADII)[:, None] * _TABLE_STEP
    distances = np.arange(_TABLE_DISTANCES)[None, :] * _TABLE_STEP
    return np.asarray(np.rint(255.0 * chndtr(radii**2, 2.0, distances**2)), dtype=np.uint8)
