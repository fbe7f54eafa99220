"""Hounsfield units for the LIDC nodule slices, whose grey values were stretched.

Every slice of `lidc_nodule_slices.npz` was stretched linearly by a minimum and maximum of its own, so
HU = low + grey / 255 * (high - low) with two unknowns for each slice. Where a LUNA16 axial patch (known HU) shows the
same slice, both are fitted exactly; the remaining slices of the same nodule follow from their neighbours.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

Array = NDArray[np.float64]
PATCH_HU_PER_GREY = 1400.0 / 255.0
PATCH_LOW_HU = -1000.0
TEMPLATE_RADIUS_PX = 20
MIN_CORRELATION = 0.8
"""Low, since a patch that shows calcium or bone is clipped; `MAX_RESIDUAL_HU` tells a match from a likeness."""
MAX_RESIDUAL_HU = 10.0
ALIKE_ROUNDS = 6


@dataclass(frozen=True)
class SliceCalibration:
    """For each slice the HU of grey 0 and of grey 255.

    Parameters
    ----------
    low_hu, high_hu
        float32 (slices,); NaN where unknown.
    exact
        bool (slices,): fitted on a patch of known HU, not carried over from a neighbouring slice.
    """

    low_hu: NDArray[np.float32]
    high_hu: NDArray[np.float32]
    exact: NDArray[np.bool_]

    def to_hu(self, images: NDArray[np.uint8], index: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """HU of ``images[index]``, float32."""
        low, high = self.low_hu[index, None, None], self.high_hu[index, None, None]
        return np.asarray(low + images[index].astype(np.float32) * ((high - low) / np.float32(255.0)))


def calibrate(data: Path) -> SliceCalibration:
    """Calibrate the slices of ``data/lidc_nodule_slices.npz`` against ``data/luna16_axial_patches.npz``.

    Slices of nodules that no patch shows stay NaN.
    """
    with np.load(data / "lidc_nodule_slices.npz") as slices:
        images, nodule, series = slices["images"], slices["nodule"], slices["series_uid"]
    low = np.full(len(images), np.nan, np.float32)
    high = np.full(len(images), np.nan, np.float32)
    for patch, candidates in _nodule_patches(data, nodule, series):
        found = _find(patch, images, candidates)
        if found is None:
            continue
        where, row, column = found
        window = images[where, row : row + 2 * TEMPLATE_RADIUS_PX, column : column + 2 * TEMPLATE_RADIUS_PX]
        fitted = _fit(window.astype(np.float64), patch)
        if fitted is not None:
            low[where], high[where] = fitted
    exact = np.isfinite(low)
    _carry_over(images, nodule, low, high)
    return SliceCalibration(low, high, exact)


def match_neighbour(grey: NDArray[np.uint8], neighbour_hu: NDArray[np.float32]) -> tuple[float, float]:
    """HU of grey 0 and 255 of a slice, from the pixels that look alike on its calibrated neighbour.

    A symmetric fit (neither slice is the truth) over the pixels within 2.5 robust standard deviations of the line:
    lung and muscle stay, vessels and edges that differ from slice to slice drop out.
    """
    ours, theirs = grey.ravel().astype(np.float64), neighbour_hu.ravel().astype(np.float64)
    alike = np.ones(ours.size, bool)
    slope, low = 1.0, 0.0
    for _ in range(ALIKE_ROUNDS):
        slope = float(theirs[alike].std() / max(ours[alike].std(), 1e-3))
        low = float(theirs[alike].mean() - slope * ours[alike].mean())
        residual = np.abs(theirs - slope * ours - low)
        alike = residual < 2.5 * 1.4826 * np.median(residual) + 1.0
    return low, low + 255.0 * slope


def _nodule_patches(
    data: Path, nodule: NDArray[np.int32], series: NDArray[np.str_]
) -> list[tuple[NDArray[np.float64], NDArray[np.intp]]]:
    """Central windows in HU of the patches on annotated nodules, and the slice indices of the same series."""
    annotated: dict[str, list[list[float]]] = defaultdict(list)
    with (data / "luna16" / "annotations.csv").open() as rows:
        for row in csv.DictReader(rows):
            annotated[row["seriesuid"]].append([float(row[k]) for k in ("coordX", "coordY", "coordZ", "diameter_mm")])
    slices_of: dict[str, NDArray[np.intp]] = {}
    for uid in np.unique(series):
        slices_of[str(uid)] = np.flatnonzero(np.isin(nodule, np.flatnonzero(series == uid)))
    with np.load(data / "luna16_axial_patches.npz") as patches:
        greys, owner, uids = patches["patches"], patches["series"], patches["series_uid"]
        centers = patches["center_xyz_mm"]
    middle = slice(greys.shape[1] // 2 - TEMPLATE_RADIUS_PX, greys.shape[1] // 2 + TEMPLATE_RADIUS_PX)
    found = []
    for i, uid in enumerate(uids[owner]):
        if uid not in annotated or uid not in slices_of:
            continue
        known = np.asarray(annotated[uid])
        if (np.linalg.norm(known[:, :3] - centers[i], axis=1) < known[:, 3] / 2).any():
            hu = greys[i, middle, middle].astype(np.float64) * PATCH_HU_PER_GREY + PATCH_LOW_HU
            found.append((hu, slices_of[str(uid)]))
    return found


def _find(patch: Array, images: NDArray[np.uint8], candidates: NDArray[np.intp]) -> tuple[int, int, int] | None:
    """Slice, row and column where the patch lies, by normalised cross-correlation; None where it is nowhere."""
    template = patch - patch.mean()
    norm = np.sqrt((template**2).sum())
    ones = np.ones_like(template)
    best, where = MIN_CORRELATION, None
    for index in candidates:
        image = images[index].astype(np.float64)
        total, squares = (fftconvolve(power, ones, mode="valid") for power in (image, image * image))
        spread = np.sqrt(np.maximum(squares - total**2 / ones.size, 1e-3))
        score = fftconvolve(image, template[::-1, ::-1], mode="valid") / (norm * spread + 1e-9)
        if score.max() > best:
            row, column = np.unravel_index(score.argmax(), score.shape)
            best, where = float(score.max()), (int(index), int(row), int(column))
    return where


def _fit(grey: Array, hu: Array) -> tuple[float, float] | None:
    """HU of grey 0 and 255 by least squares over the pixels that the patch did not clip; None for another place."""
    unclipped = (hu > PATCH_LOW_HU + 20) & (hu < PATCH_LOW_HU + 1380)
    if unclipped.sum() < 100 or np.ptp(grey[unclipped]) < 10:
        return None
    slope, low = np.polyfit(grey[unclipped], hu[unclipped], 1)
    if np.std(hu[unclipped] - slope * grey[unclipped] - low) > MAX_RESIDUAL_HU:
        return None
    return float(low), float(low + 255.0 * slope)


def _carry_over(
    images: NDArray[np.uint8], nodule: NDArray[np.int32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> None:
    """Fill the other slices of a nodule outwards from its calibrated ones, in place."""
    for number in np.unique(nodule[np.isfinite(low)]):
        members = np.flatnonzero(nodule == number)
        for _ in range(len(members)):
            open_slices = [i for i in members if not np.isfinite(low[i])]
            for i in open_slices:
                known = next((j for j in (i - 1, i + 1) if j in members and np.isfinite(low[j])), None)
                if known is not None:
                    hu = low[known] + images[known] * ((high[known] - low[known]) / np.float32(255.0))
                    low[i], high[i] = match_neighbour(images[i], hu)
            if not open_slices:
                break
