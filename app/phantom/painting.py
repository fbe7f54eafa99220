"""Turn tubes and nodules into the share of each voxel that they fill, as a scanner's point spread would show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chndtr

from app.imaging.volume import Grid
from app.phantom.vessels import Tubes

PSF_SIGMA_MM = 0.45
"""Gaussian point spread, about 1.1 mm full width at half maximum."""

_CHUNK_VALUES = 100_000
"""Small enough for temporary arrays to stay in the cache; ten times as many take twice as long."""
_RADIUS_STEP, _RADII = 0.05, 80
_DISTANCE_STEP, _DISTANCES = 0.1, 80
"""Steps of the table of blurred discs in standard deviations of the blur; a larger disc is that of radius 4, moved."""


def blur_variance_mm2(grid: Grid) -> NDArray[np.float64]:
    """(3, 3) covariance in patient mm of point spread and voxel together."""
    edges = grid.affine[:3, :3]
    return np.asarray(edges @ edges.T / 12.0 + PSF_SIGMA_MM**2 * np.eye(3))


def paint_tubes(tubes: Tubes, grid: Grid, filled: NDArray[np.uint8]) -> None:
    """Raise ``filled`` (z, y, x; 255 = whole voxel) to what the tubes fill of each voxel.

    A tube is a disc blurred by a Gaussian, taken across its direction; exact for a straight tube and a Gaussian
    voxel. ``tubes`` are in the frame of ``grid``.
    """
    sigma = _sigma_across_mm(tubes, grid)
    index = grid.to_index(tubes.points_mm)
    reach = np.ceil((tubes.radii_mm + 2.2 * sigma)[:, None] / grid.spacing_zyx_mm).astype(int)
    near = ((index > -reach) & (index < np.asarray(grid.shape_zyx) - 1 + reach)).all(axis=1)
    # Thinner tubes leave a trace of less than one grey level in a hundred.
    near &= tubes.radii_mm > 0.12 * sigma
    near[np.arange(len(near)) % _stride(grid) != 0] = False
    cost = np.prod(2 * reach + 1, axis=1)
    order = np.flatnonzero(near)[np.argsort(cost[near], kind="stable")]
    ends = np.flatnonzero(np.diff(np.cumsum(cost[order]) // _CHUNK_VALUES)) + 1
    table = _blurred_disc_table()
    for some in np.split(order, ends):
        if len(some):
            chunk = _Chunk(tubes.tangents[some], tubes.radii_mm[some], sigma[some], index[some])
            _paint_chunk(chunk, reach[some].max(axis=0), grid, filled, table)


@dataclass(frozen=True)
class _Chunk:
    """Samples of tubes that are painted together."""

    tangents: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    sigma_mm: NDArray[np.float64]
    index_zyx: NDArray[np.float64]


def _sigma_across_mm(tubes: Tubes, grid: Grid) -> NDArray[np.float64]:
    """(n,) standard deviation of the blur across each sample's direction, the mean of the two."""
    covariance = blur_variance_mm2(grid)
    along = np.einsum("ni,ij,nj->n", tubes.tangents, covariance, tubes.tangents)
    return np.asarray(np.sqrt((np.trace(covariance) - along) / 2.0))


def _stride(grid: Grid) -> int:
    """Of samples 1 mm apart, the one in so many that is still enough for large voxels."""
    return max(1, int(0.6 * float(grid.spacing_zyx_mm.min())))


def _paint_chunk(
    chunk: _Chunk, reach: NDArray[np.int_], grid: Grid, filled: NDArray[np.uint8], table: NDArray[np.uint8]
) -> None:
    """Paint the voxels within ``reach`` of each sample."""
    steps = [np.arange(-n, n + 1) for n in reach]
    offsets = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest = np.rint(chunk.index_zyx).astype(np.intp)
    edges = grid.affine[:3, :3]
    shift = ((nearest - chunk.index_zyx) @ edges.T).astype(np.float32)
    offset_mm = (offsets @ edges.T).astype(np.float32)
    tangents = chunk.tangents.astype(np.float32)
    away = [shift[:, axis, None] + offset_mm[:, axis] for axis in range(3)]
    lengthwise = sum((away[a] * tangents[:, a, None] for a in (1, 2)), away[0] * tangents[:, 0, None])
    squared = away[0] ** 2 + away[1] ** 2 + away[2] ** 2
    scale = (1.0 / chunk.sigma_mm).astype(np.float32)[:, None]
    radius = chunk.radii_mm.astype(np.float32)[:, None] * scale
    excess = np.maximum(radius - (_RADII - 1) * _RADIUS_STEP, 0.0)
    row = np.rint((radius - excess) / _RADIUS_STEP).astype(np.intp)
    across = np.sqrt(np.maximum(squared - lengthwise * lengthwise, 0.0)) * scale - excess
    column = np.clip(across * np.float32(1 / _DISTANCE_STEP) + np.float32(0.5), 0, _DISTANCES - 1).astype(np.int32)
    values = table[row, column]
    # Beyond its neighbours along the line a sample says nothing: they speak for that place.
    values[np.abs(lengthwise) > 0.75 + 0.6 * float(grid.spacing_zyx_mm.max())] = 0
    values *= _inside_grid(nearest, steps, grid.shape_zyx).reshape(values.shape)
    strides = np.array([grid.shape_zyx[1] * grid.shape_zyx[2], grid.shape_zyx[2], 1])
    sample, offset = np.nonzero(values)
    np.maximum.at(filled.reshape(-1), (nearest @ strides)[sample] + (offsets @ strides)[offset], values[sample, offset])


def _inside_grid(
    nearest: NDArray[np.intp], steps: list[NDArray[np.int_]], shape_zyx: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """(n, z, y, x) whether each voxel around each sample is one of the grid's."""
    z, y, x = (
        (nearest[:, a, None] + steps[a] >= 0) & (nearest[:, a, None] + steps[a] < shape_zyx[a]) for a in range(3)
    )
    return np.asarray(z[:, :, None, None] & y[:, None, :, None] & x[:, None, None, :])


def _blurred_disc_table() -> NDArray[np.uint8]:
    """Share (0..255) of a unit Gaussian at distance d (columns) that falls in a disc of radius r (rows).

    That is the distribution function of a noncentral chi-square with two degrees of freedom.
    """
    radii = np.arange(_RADII)[:, None] * _RADIUS_STEP
    distances = np.arange(_DISTANCES)[None, :] * _DISTANCE_STEP
    return np.asarray(np.rint(255.0 * chndtr(radii**2, 2.0, distances**2)), dtype=np.uint8)
