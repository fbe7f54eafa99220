"""Bright blobs by the Laplacian of Gaussian at several scales, inside the lungs: the candidates of the baseline.

A ball of diameter d answers most strongly at sigma = d / (2 sqrt 3). There the scale-normalised response at its centre
is 0.925 times its contrast, against 0.74 for the axis of a long cylinder (a vessel) and 0.24 beside a flat wall, so a
threshold in HU holds for every scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.lungs import LungMask
from app.imaging.preprocessing import PreprocessingSpec
from app.imaging.volume import PreparedVolume

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class BlobSpec:
    """What counts as a blob; set before any scan was looked at, not tuned.

    Parameters
    ----------
    diameters_mm
        The scales, rising: a geometric series over LUNA16's sizes.
    least_response_hu
        Weakest response kept: a ground-glass nodule of 160 HU above lung, and 16 times the noise of a usual scan.
    mask_margin_mm
        How far outside the lung mask a centre may lie: about one of the mask's own voxels.
    """

    diameters_mm: tuple[float, ...] = (4.0, 6.6, 11.0, 18.0, 30.0)
    least_response_hu: float = 150.0
    mask_margin_mm: float = 3.0


@dataclass(frozen=True)
class Blobs:
    """Candidates of one scan, in array order."""

    center_lps_mm: FloatArray
    """(n, 3)."""
    diameter_mm: FloatArray
    """(n,) of the scale with the strongest response."""
    response_hu: FloatArray
    """(n,)."""


def find_blobs(
    prepared: PreparedVolume, lungs: LungMask, spec: PreprocessingSpec, blobs: BlobSpec = BlobSpec()
) -> Blobs:
    """Local maxima of the strongest response over all scales.

    Parameters
    ----------
    prepared
        Output of `app.imaging.preprocessing.preprocess`, 1 mm for the scales to hold.
    lungs
        Lung mask of the same scan.
    spec
        What ``prepared`` was made with.
    """
    low, high = spec.window_hu
    response, scale = _strongest(prepared.values, blobs.diameters_mm, spec.spacing_mm)
    response *= high - low
    peaks = response == ndimage.maximum_filter(response, size=3, mode="nearest")
    peaks &= response >= blobs.least_response_hu
    peaks &= lungs.widened_on(prepared.grid, blobs.mask_margin_mm)
    index = np.argwhere(peaks)
    return Blobs(
        prepared.grid.to_patient(index),
        np.asarray(blobs.diameters_mm)[scale[peaks]],
        response[peaks].astype(np.float64),
    )


def _strongest(
    values: NDArray[np.float32], diameters_mm: tuple[float, ...], spacing_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """-sigma² times the Laplacian, its maximum over the scales, and which scale that is; both (z, y, x)."""
    smooth, reached = values, 0.0
    best = np.full(values.shape, -np.inf, np.float32)
    scale = np.zeros(values.shape, np.uint8)
    for number, diameter_mm in enumerate(diameters_mm):
        sigma = diameter_mm / (2 * math.sqrt(3)) / spacing_mm
        # Each scale from the one before: the variances of Gaussians add up.
        smooth = ndimage.gaussian_filter(smooth, math.sqrt(sigma**2 - reached**2), mode="nearest")
        reached = sigma
        response = ndimage.laplace(smooth, mode="nearest")
        response *= np.float32(-(sigma**2))
        stronger = response > best
        np.copyto(best, response, where=stronger)
        scale[stronger] = number
    return best, scale
