"""Real candidates and nodules as axial crops, made once by the very function that serves: `sample_crops`.

Crops are cached wider than the network reads (`CACHE_SIZE_PX`), so that random shifts, rotations and zooms have
something to draw on; the network's own size is cut from the middle.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocessing import CropSpec, sample_crops
from app.imaging.volume import CtVolume, Grid

CACHE_SIZE_PX = 88
"""64 native pixels of the coarsest scan (0.98 mm) at 0.7 mm; wider would only hold blanks."""

PATCH_HU_PER_GREY = 1400.0 / 255.0
PATCH_HU_AT_ZERO = -1000.0


@dataclass(frozen=True)
class CandidatePatches:
    """LUNA16 candidate positions, one axial slice each.

    Parameters
    ----------
    crops
        uint8 (n, CACHE_SIZE_PX, CACHE_SIZE_PX): network units times 255; the candidate lies at the middle index.
    is_nodule
        bool (n,): within d/2 of an annotation, LUNA16's rule.
    nodule_key
        (n,) index of the annotation hit, -1 for none: several candidates may share one nodule.
    """

    crops: NDArray[np.uint8]
    is_nodule: NDArray[np.bool_]
    nodule_key: NDArray[np.int64]
    patient_id: NDArray[np.str_]
    series_uid: NDArray[np.str_]


def plane_volume(hu: NDArray[np.floating], pixel_spacing_mm: float, slice_spacing_mm: float) -> CtVolume:
    """A stack of bare slices (z, y, x) as a volume whose middle pixel of slice 0 lies at the LPS origin."""
    middle = np.array([hu.shape[2] // 2, hu.shape[1] // 2, 0]) * (pixel_spacing_mm, pixel_spacing_mm, slice_spacing_mm)
    grid = Grid.from_spacing(
        (hu.shape[0], hu.shape[1], hu.shape[2]), (slice_spacing_mm, pixel_spacing_mm, pixel_spacing_mm), -middle
    )
    return CtVolume(np.rint(np.clip(hu, -32000, 32000)).astype(np.int16), grid)


def all_slices(
    hu: NDArray[np.floating], pixel_spacing_mm: float, slice_spacing_mm: float, spec: CropSpec
) -> NDArray[np.uint8]:
    """Every slice of a stack as a cached crop, uint8 (slices, CACHE_SIZE_PX, CACHE_SIZE_PX)."""
    wide = spec.model_copy(update={"size_px": CACHE_SIZE_PX})
    offsets = tuple(float(z * slice_spacing_mm) for z in range(len(hu)))
    volume = plane_volume(hu, pixel_spacing_mm, slice_spacing_mm)
    crops = sample_crops(volume, np.zeros((1, 3)), wide, slice_offsets_mm=offsets)[0]
    return np.asarray(np.rint(crops * 255), dtype=np.uint8)


def join_annotations(
    series_uid: NDArray[np.str_], center_lps_mm: NDArray[np.float64], annotations_csv: Path
) -> NDArray[np.int64]:
    """Row of the annotation that each position hits (strictly within d/2), -1 for none."""
    rows: dict[str, list[tuple[int, float, float, float, float]]] = defaultdict(list)
    with annotations_csv.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            x, y, z, d = (float(row[name]) for name in ("coordX", "coordY", "coordZ", "diameter_mm"))
            rows[row["seriesuid"]].append((number, x, y, z, d))
    key = np.full(len(series_uid), -1, dtype=np.int64)
    for n, (uid, center) in enumerate(zip(series_uid, center_lps_mm, strict=True)):
        for number, x, y, z, d in rows.get(str(uid), []):
            if float(((center - (x, y, z)) ** 2).sum()) < (d / 2) ** 2:
                key[n] = number
    return key


def load_candidate_patches(patches_npz: Path, annotations_csv: Path, spec: CropSpec) -> CandidatePatches:
    """Read the axial patches, resample them as the service does and join the labels."""
    with np.load(patches_npz) as data:
        patches, series, center = data["patches"], data["series"], data["center_xyz_mm"]
        uid, patient, spacing = data["series_uid"], data["patient_id"], data["pixel_spacing_mm"]
    crops = np.empty((len(patches), CACHE_SIZE_PX, CACHE_SIZE_PX), np.uint8)
    for n, patch in enumerate(patches):
        hu = patch[None].astype(np.float32) * PATCH_HU_PER_GREY + PATCH_HU_AT_ZERO
        crops[n] = all_slices(hu, float(spacing[series[n]]), 1.0, spec)[0]
    key = join_annotations(uid[series], center, annotations_csv)
    return CandidatePatches(crops, key >= 0, key, patient[series], uid[series])
