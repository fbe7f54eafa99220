"""The affine nearest to a mapping between two scans: what two pictures can be scrolled together by."""

from __future__ import annotations

import numpy as np

from app.imaging.alignment import Mapping
from app.imaging.volume import FloatArray

_POINTS_ALONG = 12
_QUANTILE = 0.9


def nearest_affine(mapping: Mapping, points_lps_mm: FloatArray | None = None) -> tuple[FloatArray, float]:
    """Least-squares affine, and how far it is off.

    Parameters
    ----------
    mapping
        From the current scan to the prior.
    points_lps_mm
        (n, 3) where it matters, in the current scan; without any, all over the mapping's grid.

    Returns
    -------
    affine
        4x4, patient LPS mm of the current scan to those of the prior.
    residual_mm
        The distance from the mapping that 90 % of the points stay within.
    """
    points = _lattice(mapping) if points_lps_mm is None or len(points_lps_mm) < 4 else points_lps_mm
    there = mapping.to_prior(points)
    middle = points.mean(axis=0)
    # About the middle, so that the system is well conditioned; a flat cloud gives the smallest of many answers.
    design = np.column_stack([points - middle, np.ones(len(points))])
    solved, *_ = np.linalg.lstsq(design, there, rcond=None)
    affine = np.eye(4)
    affine[:3, :3] = solved[:3].T
    affine[:3, 3] = solved[3] - affine[:3, :3] @ middle
    off_mm = np.linalg.norm(points @ affine[:3, :3].T + affine[:3, 3] - there, axis=1)
    return affine, float(np.quantile(off_mm, _QUANTILE))


def _lattice(mapping: Mapping) -> FloatArray:
    axes = [np.linspace(0, n - 1, min(n, _POINTS_ALONG)) for n in mapping.grid.shape_zyx]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return mapping.grid.to_patient(index)
