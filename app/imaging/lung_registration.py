"""Registration of the lungs of two chest CTs of one patient: an affine map first, then a smooth displacement.

What is compared is not the scan but the lung: its shape, and its vessels against its own median density, so that a
deeper breath or another kernel changes little. Ribs and table do not take part. The affine map is found by Gauss-Newton
steps from several starts, since one scan may show only part of what the other shows; the displacement by Thirion's
demons with symmetric forces (SimpleITK). Nothing is random: the same scans give the same map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates
from SimpleITK import Image

from app.imaging.alignment import Chest, Mapping
from app.imaging.volume import FloatArray, Grid

_COARSE_MM = 8.0
_AFFINE_POINTS = 12_000
"""Of the smoothed lungs; twelve numbers are sought."""
_LEVELS = ((_COARSE_MM, 60), (4.0, 40))
"""Spacing of the grid, and iterations of the demons on it."""
_MARGIN_MM = 20.0
_CONTRAST_HU = 300.0
"""Above the lung's median: what is as bright as a vessel."""
_LEAST_OVERLAP = 0.2
"""Share of the first lung that a start must bring into the second scan to be considered."""
_FIELD_SMOOTHING_VOXELS = 1.5


@dataclass(frozen=True)
class LungImage:
    """Lung structure on a grid: 0 is the lung's median density, 1 a vessel or what is no lung."""

    values: NDArray[np.float32]
    is_lung: NDArray[np.float32]
    """Share of each voxel, 0 to 1."""
    is_covered: NDArray[np.bool_]
    """Whether the voxel lies in the scan."""


def register_lungs(current: Chest, prior: Chest, *, threads: int = 2) -> Mapping:
    """Find where the points of the current lungs lie in the prior scan.

    Parameters
    ----------
    current, prior
        Two scans of one patient, on any grids.
    threads
        For the displacement; the result does not depend on their number.

    Returns
    -------
    Mapping
        Always one: whether it can be used is for `app.imaging.alignment_check.check_alignment` to say.
    """
    medians = (median_lung_hu(current), median_lung_hu(prior))
    if current.lungs.volume_ml() <= prior.lungs.volume_ml():
        affine = _affine(current, prior, medians)
    else:
        # The whole laid over a part would be squeezed into it; the part finds its place in the whole.
        affine = np.asarray(np.linalg.inv(_affine(prior, current, medians[::-1])), dtype=np.float64)
    field: Image | None = None
    for spacing_mm, iterations in _LEVELS:
        grid = lung_grid(current, spacing_mm)
        fixed = lung_image(current, grid, medians[0])
        moving = lung_image(prior, grid, medians[1], affine)
        # What only one of the two shows must not pull.
        both = fixed.is_covered & moving.is_covered
        moved = np.where(both, moving.values, fixed.values)
        field = _displacement(fixed.values, moved, grid, field, iterations, threads)
    displacement = SimpleITK.GetArrayFromImage(cast("Image", field)).astype(np.float32)
    return Mapping(affine, displacement, grid)


def median_lung_hu(chest: Chest) -> float:
    """Median density of the lungs, vessels included."""
    inside = lung_share(chest, chest.grid) > 0.99
    return float(np.median(chest.hu[inside])) if inside.any() else -850.0


def lung_grid(chest: Chest, spacing_mm: float, margin_mm: float = _MARGIN_MM) -> Grid:
    """Isotropic grid along the patient axes around the lungs."""
    corners = chest.lungs.box_corners_lps_mm()
    low, high = corners.min(axis=0) - margin_mm, corners.max(axis=0) + margin_mm
    x, y, z = (int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
    return Grid.from_spacing((z, y, x), (spacing_mm,) * 3, low)


def lung_image(chest: Chest, grid: Grid, median_hu: float, affine: FloatArray | None = None) -> LungImage:
    """The chest as it is compared, at the points of a grid, or where ``affine`` takes them."""
    hu = resampled(chest.hu, chest.grid, grid, affine, outside=-1000.0)
    inside = lung_share(chest, grid, affine)
    structure = np.clip((hu - np.float32(median_hu)) / np.float32(_CONTRAST_HU), -0.3, 1.0)
    index = _index_map(chest.grid, grid, affine)
    covered = np.ones(grid.shape_zyx, bool)
    for axis in range(3):
        row = index[axis]
        steps = [row[a] * np.arange(grid.shape_zyx[a]) for a in range(3)]
        place = row[3] + steps[0][:, None, None] + steps[1][:, None] + steps[2]
        covered &= (place >= -0.5) & (place <= chest.grid.shape_zyx[axis] - 0.5)
    return LungImage(inside * structure + (1 - inside), inside, covered)


def lung_share(chest: Chest, grid: Grid, affine: FloatArray | None = None) -> NDArray[np.float32]:
    """Share of each voxel of a grid that is lung."""
    lungs = (chest.lungs.labels > 0).astype(np.float32)
    return resampled(lungs, chest.lungs.grid, grid, affine, outside=0.0)


def resampled(
    values: NDArray[np.generic], source: Grid, target: Grid, affine: FloatArray | None, outside: float
) -> NDArray[np.float32]:
    """Linear interpolation of values on ``source`` at the points of ``target``, or where ``affine`` takes them."""
    index = _index_map(source, target, affine)
    return np.asarray(
        affine_transform(
            values.astype(np.float32), index[:3, :3], index[:3, 3], output_shape=target.shape_zyx, order=1, cval=outside
        )
    )


def _index_map(source: Grid, target: Grid, affine: FloatArray | None) -> FloatArray:
    """4x4 from an index of ``target`` to one of ``source``."""
    moved = target.affine if affine is None else affine @ target.affine
    return np.asarray(np.linalg.solve(source.affine, moved))


@dataclass(frozen=True)
class _Matching:
    """Points of the first scan with their values, and the image of the second with its gradient."""

    points: FloatArray
    values: FloatArray
    center: FloatArray
    second: list[NDArray[np.float32]]
    """Values, then their derivatives by x, y, z per mm."""
    second_grid: Grid


def _affine(first: Chest, second: Chest, medians: tuple[float, float]) -> FloatArray:
    """4x4, LPS mm of the first scan to those of the second."""
    wide = _matching(first, second, medians, sigma_voxels=2.0)
    best, least = np.eye(4), np.inf
    for shift in _starts(first, second):
        start = np.eye(4)
        start[:3, 3] = shift
        found, cost = _gauss_newton(wide, start, steps=8, only_shift=True)
        if cost < least:
            best, least = found, cost
    best, _ = _gauss_newton(wide, best, steps=10)
    narrow = _matching(first, second, medians, sigma_voxels=1.0)
    best, _ = _gauss_newton(narrow, best, steps=12)
    return best


def _starts(first: Chest, second: Chest) -> list[FloatArray]:
    """Shifts that lay middle on middle, apex on apex, base on base, and none: scans may show different parts."""
    ours, theirs = (chest.lungs.grid.to_patient(np.argwhere(chest.lungs.labels > 0)[::7]) for chest in (first, second))
    middle = theirs.mean(axis=0) - ours.mean(axis=0)
    heights = [middle[2]] + [float(np.quantile(theirs[:, 2], q) - np.quantile(ours[:, 2], q)) for q in (0.99, 0.01)]
    return [*(np.array((middle[0], middle[1], height)) for height in heights), np.zeros(3)]


def _matching(first: Chest, second: Chest, medians: tuple[float, float], sigma_voxels: float) -> _Matching:
    grid, second_grid = lung_grid(first, _COARSE_MM), lung_grid(second, _COARSE_MM)
    fixed, moving = lung_image(first, grid, medians[0]), lung_image(second, second_grid, medians[1])
    chosen = np.argwhere(fixed.is_covered)
    chosen = chosen[:: max(1, len(chosen) // _AFFINE_POINTS)]
    smooth = gaussian_filter(moving.values, sigma_voxels, mode="nearest")
    # Outside the scan there is nothing to compare with; marked by what no value can be.
    marked = np.where(moving.is_covered, smooth, np.float32(np.nan))
    slopes = np.gradient(smooth, _COARSE_MM)
    points = grid.to_patient(chosen)
    values = gaussian_filter(fixed.values, sigma_voxels, mode="nearest")[tuple(chosen.T)].astype(np.float64)
    return _Matching(points, values, points.mean(axis=0), [marked, slopes[2], slopes[1], slopes[0]], second_grid)


def _gauss_newton(
    matching: _Matching, start: FloatArray, steps: int, *, only_shift: bool = False
) -> tuple[FloatArray, float]:
    """Least squares of the differences where both scans show something; gives the map and the mean square."""
    affine, cost = start, np.inf
    offset = matching.points - matching.center
    for _ in range(steps):
        place = matching.points @ affine[:3, :3].T + affine[:3, 3]
        index = matching.second_grid.to_index(place).T
        value, *slopes = (
            map_coordinates(image, index, order=1, mode="constant", cval=np.nan, output=np.float64)
            for image in matching.second
        )
        seen = np.isfinite(value) & np.isfinite(slopes[0]) & np.isfinite(slopes[1]) & np.isfinite(slopes[2])
        if np.count_nonzero(seen) < _LEAST_OVERLAP * len(seen):
            return affine, np.inf
        difference = (matching.values - value)[seen]
        cost = float(np.mean(difference**2))
        slope = np.stack(slopes, axis=1)[seen]
        columns = [slope] if only_shift else [slope, *(slope * offset[seen, a : a + 1] for a in range(3))]
        design = np.concatenate(columns, axis=1)
        normal = design.T @ design
        normal[np.diag_indices_from(normal)] *= 1.01
        step = np.linalg.solve(normal, design.T @ difference).reshape(-1, 3)
        change = np.zeros((3, 4))
        change[:, 3] = step[0]
        if not only_shift:
            change[:, :3] = step[1:].T
            change[:, 3] -= change[:, :3] @ matching.center
        affine = affine.copy()
        affine[:3] += change
    return affine, cost


def _displacement(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    grid: Grid,
    start: Image | None,
    iterations: int,
    threads: int,
) -> Image:
    """Displacement in mm along the patient axes, which are the grid's own."""
    images: list[Any] = []
    for values in (fixed, moving):
        image: Any = SimpleITK.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
        image.SetSpacing([float(mm) for mm in grid.spacing_zyx_mm[::-1]])
        image.SetOrigin([float(mm) for mm in grid.origin_lps_mm])
        images.append(image)
    toolkit: Any = SimpleITK  # not typed
    demons = toolkit.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(iterations)
    demons.SmoothDisplacementFieldOn()
    demons.SetStandardDeviations(_FIELD_SMOOTHING_VOXELS)
    demons.SetNumberOfThreads(threads)
    if start is None:
        return cast("Image", demons.Execute(*images))
    finer = toolkit.Resample(start, images[0], toolkit.Transform(), toolkit.sitkLinear, 0.0)
    return cast("Image", demons.Execute(*images, finer))
