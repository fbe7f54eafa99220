"""Where in the lung a nodule lies, from the lung mask alone: distances, and a cautious guess at the lobe.

What the mask cannot show is not made up. It has voxels of about 2.8 mm and no fissures, so a lobe is an estimate from
where fissures usually run, and None where that does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import ndtr

from app.imaging.lungs import LEFT, RIGHT, LungMask, Side
from app.imaging.volume import Grid
from app.inference.findings import Location, NoduleMask, Point

JUXTAPLEURAL_MM = 2.0
"""An outline that comes this near to the edge of the lung mask touches it, as far as its voxels can tell."""
LEAST_LOBE_CONFIDENCE = 0.75
"""A lobe that is less sure is not named."""

_OBLIQUE_BACK, _OBLIQUE_FRONT, _HORIZONTAL = 0.72, 0.08, 0.46
"""Heights of the fissures as shares of the lung's, feet to head. Surface anatomy: the oblique fissure runs from the
level of T3/T4 at the back to the sixth costochondral junction, the horizontal one along the fourth rib (Bickley, Bates'
Guide to Physical Examination, chapter on thorax and lungs). Shares: apex at T1, deepest recess behind at T12."""
_FISSURE_SPREAD = 0.09
"""Standard deviation of a fissure's height between patients, as a share of the lung's: assumed, not measured."""
_HILUM_HEIGHTS = (0.48, 0.62)
"""Band of the lung's height in which the hilum is looked for: T5 to T7."""


@dataclass(frozen=True)
class LungSurface:
    """Edges of the lungs that a nodule can lie at, made once for a scan."""

    pleura: KDTree | None
    """Centres, LPS mm, of the first voxels outside the lungs, those facing the mediastinum left out."""
    hila_lps_mm: dict[Side, Point]
    extents: dict[Side, _Extent]
    half_voxel_mm: float


@dataclass(frozen=True)
class _Extent:
    """Along the axes of the mask: feet to head, front to back."""

    grid: Grid
    low_zy: tuple[float, float]
    high_zy: tuple[float, float]

    def shares(self, lps_mm: Point) -> tuple[float, float]:
        """Height (0 feet, 1 head) and depth (0 front, 1 back) of a point within the lung's box."""
        z, y, _ = self.grid.to_index(lps_mm)
        (z0, y0), (z1, y1) = self.low_zy, self.high_zy
        return float((z - z0) / max(z1 - z0, 1.0)), float((y - y0) / max(y1 - y0, 1.0))


def lung_surface(lungs: LungMask) -> LungSurface:
    """Edges, hila and extents of both lungs."""
    labels = np.pad(lungs.labels, 1)
    outside = _first_outside(labels > 0)
    between = _between_the_lungs(labels)
    mediastinal = between & ~_below_lung(labels > 0)
    pleural = np.argwhere(outside & ~mediastinal) - 1
    facing = np.argwhere(outside & mediastinal) - 1
    points = lungs.grid.to_patient(pleural)
    extents, hila = {}, {}
    sides: tuple[tuple[Side, int], ...] = (("right", RIGHT), ("left", LEFT))
    for side, label in sides:
        extent = _extent(lungs.labels == label, lungs.grid)
        if extent is None:
            continue
        extents[side] = extent
        hilum = _hilum(facing, extent, lungs.labels == label)
        if hilum is not None:
            hila[side] = hilum
    half_voxel_mm = float(lungs.grid.spacing_zyx_mm.min()) / 2
    return LungSurface(KDTree(points) if len(points) else None, hila, extents, half_voxel_mm)


def locate(
    mask: NoduleMask | None,
    center_lps_mm: Point,
    side: Side | None,
    surface: LungSurface,
    *,
    whole_lungs: bool = True,
) -> Location | None:
    """Where a nodule lies in its lung; None where it lies in neither.

    Parameters
    ----------
    mask
        Outline of the nodule; without one no distance to the pleura is told.
    center_lps_mm
        Its centre.
    side
        `LungMask.side_at` of the centre.
    surface
        `lung_surface` of the scan.
    whole_lungs
        False where the scan cuts the lungs: heights then mean nothing, and no lobe is named.
    """
    if side is None or side not in surface.extents:
        return None
    to_pleura = None if mask is None else _distance_to_pleura_mm(mask, surface)
    hilum = surface.hila_lps_mm.get(side)
    lobe, confidence = (
        estimate_lobe(*surface.extents[side].shares(center_lps_mm), side) if whole_lungs else (None, None)
    )
    return Location(
        lobe=lobe,
        lobe_confidence=confidence,
        distance_to_pleura_mm=to_pleura,
        distance_to_hilum_mm=None if hilum is None else float(np.linalg.norm(np.subtract(center_lps_mm, hilum))),
        is_juxtapleural=None if to_pleura is None else to_pleura <= JUXTAPLEURAL_MM,
    )


def estimate_lobe(height: float, depth: float, side: Side) -> tuple[str | None, float | None]:
    """The likeliest lobe and its probability under the spread of fissures between patients.

    Parameters
    ----------
    height, depth
        Shares of the lung's box: 0 at the feet and in front, 1 at the head and in the back.
    side
        Only the right lung has a middle lobe.

    Returns
    -------
    lobe, confidence
        None and None below `LEAST_LOBE_CONFIDENCE`. Not validated: no data with lobes were at hand.
    """
    oblique = _OBLIQUE_FRONT + (_OBLIQUE_BACK - _OBLIQUE_FRONT) * depth
    above_oblique = float(ndtr((height - oblique) / _FISSURE_SPREAD))
    above_horizontal = float(ndtr((height - _HORIZONTAL) / _FISSURE_SPREAD)) if side == "right" else 1.0
    chances = {
        "upper": above_oblique * above_horizontal,
        "middle": above_oblique * (1.0 - above_horizontal),
        "lower": 1.0 - above_oblique,
    }
    lobe = max(chances, key=lambda name: chances[name])
    return (lobe, chances[lobe]) if chances[lobe] >= LEAST_LOBE_CONFIDENCE else (None, None)


def _distance_to_pleura_mm(mask: NoduleMask, surface: LungSurface) -> float | None:
    """Between the outline's and the edge's voxel faces; 0 where they meet or overlap."""
    if surface.pleura is None:
        return None
    occupied = np.argwhere(mask.voxels)
    # Every seventh voxel of a large outline is near enough for an edge made of 2.8 mm voxels.
    points = mask.grid.to_patient(occupied[:: max(1, len(occupied) // 400)])
    nearest = float(surface.pleura.query(points)[0].min())
    half_pixel_mm = float(mask.grid.spacing_zyx_mm.min()) / 2
    return max(0.0, nearest - surface.half_voxel_mm - half_pixel_mm)


def _first_outside(lung: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels outside that share a face with one inside; the array must be padded."""
    near = np.zeros_like(lung)
    for axis in range(3):
        for step in (-1, 1):
            near |= np.roll(lung, step, axis=axis)
    return np.asarray(near & ~lung)


def _between_the_lungs(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Voxels with the right lung somewhere on one side and the left on the other, in their own row."""
    right, left = labels == RIGHT, labels == LEFT
    after_right = np.logical_or.accumulate(right, axis=2)
    before_left = np.logical_or.accumulate(left[..., ::-1], axis=2)[..., ::-1]
    return np.asarray(after_right & before_left & (labels == 0))


def _below_lung(lung: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels with lung within two voxels above them: the domes of the diaphragm stand between the lungs too."""
    return np.asarray(np.roll(lung, -1, axis=0) | np.roll(lung, -2, axis=0))


def _extent(lung: NDArray[np.bool_], grid: Grid) -> _Extent | None:
    if not lung.any():
        return None
    z = np.flatnonzero(lung.any(axis=(1, 2)))
    y = np.flatnonzero(lung.any(axis=(0, 2)))
    return _Extent(grid, (float(z[0]), float(y[0])), (float(z[-1]), float(y[-1])))


def _hilum(facing: NDArray[np.intp], extent: _Extent, lung: NDArray[np.bool_]) -> Point | None:
    """Middle of the mediastinal edge of one lung at the height of the hila, its front and back quarter left out.

    Of that edge the half nearer to the lung: the other runs deep between heart and spine.
    """
    neighbours = np.zeros(len(facing), bool)
    shape = np.asarray(lung.shape)
    for axis in range(3):
        for step in (-1, 1):
            at = facing + step * np.eye(3, dtype=np.intp)[axis]
            valid = ((at >= 0) & (at < shape)).all(axis=1)
            neighbours[valid] |= lung[tuple(at[valid].T)]
    edge = facing[neighbours].astype(np.float64)
    (z0, y0), (z1, y1) = extent.low_zy, extent.high_zy
    height = (edge[:, 0] - z0) / max(z1 - z0, 1.0)
    depth = (edge[:, 1] - y0) / max(y1 - y0, 1.0)
    low, high = _HILUM_HEIGHTS
    chosen = edge[(height >= low) & (height <= high) & (depth >= 0.25) & (depth <= 0.75)]
    if not len(chosen):
        return None
    towards_lung = np.abs(chosen[:, 2] - np.argwhere(lung)[:, 2].mean())
    chosen = chosen[towards_lung <= np.median(towards_lung)]
    x, y, z = (float(v) for v in extent.grid.to_patient(chosen.mean(axis=0)))
    return x, y, z
