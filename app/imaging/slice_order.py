"""Whether slices, ordered along their normal, lie at equal distances on one straight line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import Notice
from app.imaging.errors import IrregularSeries
from app.imaging.read_options import DUPLICATE_SLICES, MISSING_SLICES
from app.imaging.slice_header import SliceHeader
from app.imaging.volume import FloatArray

SAME_POSITION_MM = 0.01
"""Two slices nearer than this lie at one position."""
SPACING_TOLERANCE = 0.05
"""Largest deviation of a slice from the regular grid, as a fraction of the spacing."""
DRIFT_TOLERANCE_MM = 0.2
"""Largest in-plane deviation of a slice's corner from the straight line through the stack."""
MAX_TILT_DEG = 30.0
NEGLIGIBLE_TILT_DEG = 0.1
SLICE_SPACING_RANGE_MM = (0.05, 20.0)
MAX_LISTED = 20
"""Of many like faults an error lists the first."""

SamePixels = Callable[[SliceHeader, SliceHeader], bool]


def invalid_geometry(attribute: str, found: tuple[float, ...] | None, expected: str) -> IrregularSeries:
    """The error for an attribute whose value means nothing."""
    said = "absent or not numeric" if found is None else f"{list(found)}"
    return IrregularSeries(
        f"{attribute} is {said}; {expected} are needed. Without it nothing can be measured.",
        code="invalid_geometry",
        values={"attribute": attribute, "found": None if found is None else list(found)},
    )


def without_duplicates(
    ordered: Sequence[SliceHeader], along_mm: FloatArray, same_pixels: SamePixels, allow_repairs: frozenset[str]
) -> tuple[NDArray[np.intp], list[Notice], list[Notice]]:
    """Indices of the slices to keep, notices about identical copies, notices about repairs."""
    groups = np.split(np.arange(len(ordered)), np.flatnonzero(np.diff(along_mm) > SAME_POSITION_MM) + 1)
    kept, ignored, repairs, clashes = [], [], [], []
    for group in groups:
        first = min(group, key=lambda i: (ordered[i].instance_number or 0, ordered[i].file.index))
        kept.append(first)
        for other in (i for i in group if i != first):
            values = {"file": ordered[other].file.index, "position_mm": round(float(along_mm[other]), 3)}
            if same_pixels(ordered[first], ordered[other]):
                ignored.append(Notice("duplicate_slice", "An identical copy of a slice was left out.", values))
            elif DUPLICATE_SLICES in allow_repairs:
                message = "One of several different slices at one position was left out, as the caller allowed."
                repairs.append(Notice(DUPLICATE_SLICES, message, values))
            else:
                clashes.append(values)
    if clashes:
        raise IrregularSeries(
            f"{len(clashes)} slices share their position with another, different one. The series holds several "
            "acquisitions or reconstructions; send one of them.",
            code="duplicate_slices",
            values={"count": len(clashes), "slices": clashes[:MAX_LISTED]},
        )
    return np.asarray(kept), ignored, repairs


def regular_slices(
    slices: list[SliceHeader], corners: FloatArray, normal: FloatArray, allow_repairs: frozenset[str]
) -> tuple[list[SliceHeader], tuple[int, ...], list[Notice]]:
    """Slices with allowed gaps filled, z indices of the filled ones, notices; raises unless the stack is regular."""
    along_mm = corners @ normal
    gaps_mm = np.diff(along_mm)
    spacing_mm = float(np.median(gaps_mm))
    low, high = SLICE_SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise invalid_geometry("ImagePositionPatient", (spacing_mm,), f"slices from {low} to {high} mm apart")
    steps = np.maximum(1, np.rint(gaps_mm / spacing_mm).astype(int))
    if steps.max() > 1 and not (MISSING_SLICES in allow_repairs and steps.max() == 2):
        raise _missing(along_mm, spacing_mm, steps)
    index = np.concatenate([[0], np.cumsum(steps)])
    step = (corners[-1] - corners[0]) / index[-1]
    deviation = corners - (corners[0] + index[:, None] * step)
    along, across = np.abs(deviation @ normal), np.linalg.norm(np.cross(deviation, normal), axis=1)
    if along.max() > SPACING_TOLERANCE * spacing_mm:
        raise _nonuniform(along_mm, gaps_mm, spacing_mm)
    if across.max() > DRIFT_TOLERANCE_MM:
        worst = int(across.argmax())
        raise IrregularSeries(
            f"ImagePositionPatient of file {slices[worst].file.index} lies {across[worst]:.2f} mm beside the line "
            "through the other slices. Send the images of one acquisition.",
            code="irregular_positions",
            values={"file": slices[worst].file.index, "deviation_mm": round(float(across[worst]), 3)},
        )
    filled, interpolated = [], []
    for position, count in enumerate(steps):
        filled.append(slices[position])
        if count == 2:
            interpolated.append(len(filled))
            filled.append(slices[position])
    filled.append(slices[-1])
    notices = [
        Notice(
            MISSING_SLICES,
            "An absent slice was interpolated from its neighbours, as the caller allowed.",
            {"index_z": z, "position_mm": round(float(along_mm[0] + z * spacing_mm), 3)},
        )
        for z in interpolated
    ]
    return filled, tuple(interpolated), notices


def _missing(along_mm: FloatArray, spacing_mm: float, steps: NDArray[np.int_]) -> IrregularSeries:
    gaps = [
        {"after_mm": round(float(along_mm[i]), 3), "before_mm": round(float(along_mm[i + 1]), 3), "missing": int(n - 1)}
        for i, n in enumerate(steps)
        if n > 1
    ]
    count = sum(int(n - 1) for n in steps)
    places = ", ".join(f"{gap['after_mm']} and {gap['before_mm']} mm" for gap in gaps[:5])
    return IrregularSeries(
        f"{count} slices are missing at a spacing of {spacing_mm:.3f} mm, between {places}. Send the whole series"
        + (", or allow the repair 'missing_slices'." if steps.max() == 2 else "."),
        code="nonuniform_spacing",
        values={"spacing_mm": round(spacing_mm, 4), "missing_slices": count, "gaps": gaps[:MAX_LISTED]},
    )


def _nonuniform(along_mm: FloatArray, gaps_mm: FloatArray, spacing_mm: float) -> IrregularSeries:
    odd = np.flatnonzero(np.abs(gaps_mm - spacing_mm) > SPACING_TOLERANCE * spacing_mm)
    return IrregularSeries(
        f"The distance between slices is {gaps_mm.min():.3f} to {gaps_mm.max():.3f} mm, most often "
        f"{spacing_mm:.3f} mm; it must be the same everywhere. Send one regular reconstruction.",
        code="nonuniform_spacing",
        values={
            "spacing_mm": round(spacing_mm, 4),
            "smallest_mm": round(float(gaps_mm.min()), 4),
            "largest_mm": round(float(gaps_mm.max()), 4),
            "odd_positions_mm": [round(float(along_mm[i]), 3) for i in odd[:MAX_LISTED]],
        },
    )


def tilt_warnings(step: FloatArray, normal: FloatArray) -> list[Notice]:
    """Angle between the stack and the slice normal: the gantry's tilt, which shears the volume."""
    cosine = float(np.clip(step @ normal / np.linalg.norm(step), -1.0, 1.0))
    tilt_deg = float(np.degrees(np.arccos(cosine)))
    if tilt_deg > MAX_TILT_DEG:
        raise IrregularSeries(
            f"The slices are sheared by {tilt_deg:.1f} degrees; at most {MAX_TILT_DEG} are accepted. "
            "Reconstruct without gantry tilt.",
            code="gantry_tilt",
            values={"tilt_deg": round(tilt_deg, 2), "max_tilt_deg": MAX_TILT_DEG},
        )
    if tilt_deg < NEGLIGIBLE_TILT_DEG:
        return []
    message = f"The gantry was tilted by {tilt_deg:.1f} degrees: coordinates account for the shear, shapes look skewed."
    return [Notice("gantry_tilt", message, {"tilt_deg": round(tilt_deg, 2)})]
