"""Where a point of one scan lies in another scan of the same patient, and how well that is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from app.imaging.lungs import WORKING_SPACING_MM, LungMask, coarse
from app.imaging.volume import CtVolume, FloatArray, Grid

_INVERSION_STEPS = 12
_NEIGHBOURS = 6
"""Landmarks that a local error is taken from."""
_LEAST_ERROR_MM = 1.0
"""Half of what a landmark's own place is known to; no estimate goes below it."""


@dataclass(frozen=True)
class Chest:
    """What is registered: the scan on voxels of about 2.8 mm, and its lungs."""

    hu: NDArray[np.int16]
    """(z, y, x)."""
    grid: Grid
    lungs: LungMask


def coarse_chest(volume: CtVolume, lungs: LungMask) -> Chest:
    """The chest of a scan whose lungs are known."""
    hu, grid = coarse(volume, WORKING_SPACING_MM)
    return Chest(hu, grid, lungs)


@dataclass(frozen=True)
class Mapping:
    """Takes points of the current scan into the prior one and back.

    Parameters
    ----------
    affine
        4x4, patient LPS mm of the current scan to those of the prior.
    displacement_lps_mm
        float32 (z, y, x, 3) on ``grid``, (x, y, z) in mm: added to a point before ``affine`` is applied. Outside the
        grid that of its edge holds.
    grid
        Of the current scan's lungs.
    """

    affine: FloatArray
    displacement_lps_mm: NDArray[np.float32]
    grid: Grid

    def to_prior(self, lps_mm: ArrayLike) -> FloatArray:
        """(n, 3) points of the current scan, patient LPS mm -> the same in the prior scan."""
        points = np.atleast_2d(np.asarray(lps_mm, dtype=np.float64))
        moved = points + self._displacement_at(points)
        return np.asarray(moved @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_current(self, lps_mm: ArrayLike) -> FloatArray:
        """(n, 3) points of the prior scan -> the current one; the inverse of `to_prior` to a tenth of a millimetre."""
        points = np.atleast_2d(np.asarray(lps_mm, dtype=np.float64))
        moved = np.linalg.solve(self.affine[:3, :3], (points - self.affine[:3, 3]).T).T
        found = np.asarray(moved, dtype=np.float64)
        for _ in range(_INVERSION_STEPS):
            found = moved - self._displacement_at(found)
        return np.asarray(found)

    def _displacement_at(self, points: FloatArray) -> FloatArray:
        index = self.grid.to_index(points).T
        parts = [
            map_coordinates(self.displacement_lps_mm[..., axis], index, order=1, mode="nearest", output=np.float64)
            for axis in range(3)
        ]
        return np.stack(parts, axis=-1)


@dataclass(frozen=True)
class AlignmentQuality:
    """How well two scans fit, measured on what the registration did not look at singly: small landmarks."""

    lung_overlap: float
    """Dice coefficient of the two lung masks where both scans cover them, 0 to 1."""
    covered_share: float
    """Share of the current lungs that the prior scan covers."""
    landmarks: int
    """Places in the lung with structure in all directions that were looked for in the prior scan."""
    agreement: float
    """Share of the landmarks that were found again, near to where they were expected."""
    median_error_mm: float
    """Of the landmarks found again: distance from where they were expected."""
    error_mm: float
    """The distance that 90 % of them stay within."""


@dataclass(frozen=True)
class Alignment:
    """A mapping between two scans with what is known of its error."""

    mapping: Mapping
    quality: AlignmentQuality
    landmarks_lps_mm: FloatArray
    """(n, 3) landmarks that were found again, in the current scan."""
    landmark_errors_mm: FloatArray
    """(n,) their distances from where they were expected."""

    def error_near_mm(self, lps_mm: ArrayLike) -> float:
        """Error to be expected about a point of the current scan: what 90 % of the landmarks around it stay within."""
        if not len(self.landmark_errors_mm):
            return max(_LEAST_ERROR_MM, self.quality.error_mm)
        distance = np.linalg.norm(self.landmarks_lps_mm - np.asarray(lps_mm, dtype=np.float64), axis=1)
        near = self.landmark_errors_mm[np.argsort(distance, kind="stable")[:_NEIGHBOURS]]
        return max(_LEAST_ERROR_MM, float(np.quantile(near, 0.9)))
