"""LIDC nodules, every axial slice of each, as crops with the readers' masks and ratings.

Grey values of the source were stretched slice by slice; `training.hu_calibration` recovers HU exactly where a LUNA16
patch shows the same slice, `training.hu_estimation` estimates the rest without looking at the ratings, which the
network is to learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocessing import CropSpec
from training.crops import CACHE_SIZE_PX, all_slices
from training.hu_calibration import calibrate
from training.hu_estimation import estimate_open_slices
from training.nodule_bank import slice_spacings_mm

READERS = 4


@dataclass(frozen=True)
class NoduleStacks:
    """LIDC nodules, every axial slice of each, with the readers' masks and mean ratings.

    Parameters
    ----------
    crops, reader_fraction
        uint8 (m, CACHE_SIZE_PX, CACHE_SIZE_PX): network units and covering readers over four, both times 255.
    first_slice, slice_count
        (n,) rows of the slices of each nodule.
    ratings
        float32 (n, r) mean ratings; columns in ``rating_names``.
    """

    crops: NDArray[np.uint8]
    reader_fraction: NDArray[np.uint8]
    first_slice: NDArray[np.int64]
    slice_count: NDArray[np.int64]
    slice_spacing_mm: NDArray[np.float32]
    pixel_spacing_mm: NDArray[np.float32]
    patient_id: NDArray[np.str_]
    series_uid: NDArray[np.str_]
    ratings: NDArray[np.float32]
    rating_names: tuple[str, ...]

    def rating(self, name: str) -> NDArray[np.float32]:
        """(n,) mean rating of one characteristic."""
        return self.ratings[:, self.rating_names.index(name)]


def load_nodule_stacks(data: Path, spec: CropSpec) -> NoduleStacks:
    """Read `lidc_nodule_slices.npz` below ``data``, calibrate it and resample it as the service does."""
    calibration = estimate_open_slices(calibrate(data), data, use_ratings=False)
    with np.load(data / "lidc_nodule_slices.npz") as stored:
        images, readers, owner = stored["images"], stored["reader_count"], stored["nodule"]
        ratings, names = stored["ratings"], tuple(str(n) for n in stored["rating_names"])
        patient, series = stored["patient_id"], stored["series_uid"]
        pixel_mm, thickness_mm = stored["pixel_spacing_mm"], stored["slice_thickness_mm"]
    known_mm = slice_spacings_mm()
    spacing = np.array([known_mm.get(str(u), float(t)) for u, t in zip(series, thickness_mm, strict=True)], np.float32)
    crops = np.empty((len(images), CACHE_SIZE_PX, CACHE_SIZE_PX), np.uint8)
    fraction = np.empty_like(crops)
    first = np.searchsorted(owner, np.arange(len(patient)))
    count = np.bincount(owner, minlength=len(patient))
    mask_spec = spec.model_copy(update={"window_hu": (0.0, 100.0)})
    for n in range(len(patient)):
        rows = slice(int(first[n]), int(first[n] + count[n]))
        hu = calibration.to_hu(images, rows)
        crops[rows] = all_slices(hu, float(pixel_mm[n]), float(spacing[n]), spec)
        covered = readers[rows].astype(np.float32) * (100.0 / READERS)
        fraction[rows] = all_slices(covered, float(pixel_mm[n]), float(spacing[n]), mask_spec)
    return NoduleStacks(crops, fraction, first, count, spacing, pixel_mm, patient, series, ratings, names)
