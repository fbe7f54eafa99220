"""Nodules from LIDC's 3-D outlines alone, textured by their ratings: shapes of every reader-agreed nodule of LIDC.

They widen a bank of real nodules where that is thin (ground glass, part-solid, spiculated). Each keeps its patient, so
that a split by patient holds for them too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.consensus import group_outlines, reader_masks
from training.lidc import LidcError, LidcNodule, read_scans
from training.nodule_bank import EVALUATION_PATIENTS, MAX_DIAMETER_MM
from training.nodule_blocks import (
    MARGIN_MM,
    Kind,
    Nodule,
    distance_from_outline,
    soft_volume_mm3,
    sphere_diameter_mm,
)
from training.nodule_texture import Appearance, paint_texture

LUNG_HU = (-910.0, -780.0)
MIN_DIAMETER_MM = 2.5


def outlined_nodules(
    *,
    kinds: Collection[Kind] = ("ground-glass", "part-solid", "calcified", "solid"),
    min_outlines: int = 2,
    exclude: Collection[str] = EVALUATION_PATIENTS,
    database: Path | None = None,
    series_uids: Collection[str] | None = None,
    seed: int = 0,
) -> Iterator[Nodule]:
    """Synthetic nodules of LIDC's shapes, in the database's order.

    Parameters
    ----------
    kinds
        By the readers' ratings; others are skipped.
    min_outlines
        Readers who must have outlined a nodule; its shape is what the majority of them agrees on.
    exclude
        Patients left out besides `EVALUATION_PATIENTS`, which always are.
    database, series_uids
        As `training.lidc.read_scans`.
    """
    left_out = set(exclude) | EVALUATION_PATIENTS
    for scan in read_scans(database, series_uids):
        if scan.patient_id in left_out:
            continue
        for number, found in enumerate(group_outlines(scan)):
            look = _appearance(found)
            if found.n_outlines >= min_outlines and look.kind in kinds:
                rng = np.random.default_rng([seed, number, *scan.series_uid.encode()[-8:]])
                nodule = _made(found, look, rng)
                if nodule is not None:
                    yield nodule


def _appearance(found: LidcNodule) -> Appearance:
    names = ("texture", "calcification", "spiculation", "margin")
    return Appearance(**{name: found.mean_rating(name) for name in names})


def _made(found: LidcNodule, look: Appearance, rng: np.random.Generator) -> Nodule | None:
    try:
        outline = reader_masks(found).consensus()
    except LidcError:
        return None  # a contour between slices: the shape is not to be trusted
    spacing_mm = (found.scan.slice_spacing_mm, found.scan.pixel_spacing_mm)
    distance = distance_from_outline(_with_room(outline, spacing_mm), spacing_mm)
    if distance is None:
        return None
    diameter_mm = sphere_diameter_mm(soft_volume_mm3(distance))
    if not MIN_DIAMETER_MM <= diameter_mm <= MAX_DIAMETER_MM:
        return None
    lung_hu = float(rng.uniform(*LUNG_HU))
    return Nodule(
        hu=np.round(paint_texture(distance, look, lung_hu, rng)).astype(np.int16),
        distance_mm=distance.astype(np.float16),
        diameter_mm=diameter_mm,
        kind=look.kind,
        lung_hu=lung_hu,
        slice_spacing_mm=1.0,
        patient_id=found.scan.patient_id,
        series_uid=found.scan.series_uid,
        malignancy=found.mean_rating("malignancy"),
        spiculation=look.spiculation,
    )


def _with_room(outline: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> NDArray[np.bool_]:
    """Pixels around the outline, so that the block around it is real distance throughout."""
    rows = int(np.ceil(MARGIN_MM / spacing_mm[1])) + 3
    return np.pad(outline, ((0, 0), (rows, rows), (rows, rows)))
