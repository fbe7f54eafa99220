"""Warnings about a scan that was accepted: what a reader of the result should know."""

from __future__ import annotations

import numpy as np

from app.imaging.acceptance import Notice
from app.imaging.kernels import is_sharp_kernel
from app.imaging.series import Series, is_other_body_part, thickness_mm
from app.imaging.volume import CtVolume, Grid

THICK_SLICE_MM = 2.5
_GAP_FACTOR = 1.1
_TILT_STATED_DEG = 0.5
_ALIGNED_MM = 1e-3
_SAMPLE_STEP = (4, 8, 8)
_AIR_BELOW_HU = -500
"""Every chest CT holds air; a volume without it is not in HU, or not of a chest."""


def quality_warnings(series: Series, grid: Grid) -> tuple[Notice, ...]:
    """What a reader should know about a series that was accepted."""
    first = series.first
    spacing_z_mm = float(grid.spacing_zyx_mm[0])
    warnings = []
    thickness = thickness_mm(series)
    if thickness > THICK_SLICE_MM + 0.01:
        message = f"Slices are {thickness:.2f} mm thick or apart; small nodules are missed above {THICK_SLICE_MM} mm."
        warnings.append(Notice("thick_slices", message, {"thickness_mm": round(thickness, 3)}))
    if first.slice_thickness_mm and spacing_z_mm > first.slice_thickness_mm * _GAP_FACTOR:
        values = {"slice_thickness_mm": first.slice_thickness_mm, "spacing_mm": round(spacing_z_mm, 3)}
        warnings.append(Notice("slice_gaps", "Tissue between the slices was not imaged.", values))
    tilt_deg = first.gantry_tilt_deg or 0.0
    if abs(tilt_deg) > _TILT_STATED_DEG and np.count_nonzero(np.abs(grid.affine[:3, :3]) > _ALIGNED_MM) == 3:
        message = "GantryDetectorTilt is not zero, but position and orientation show no tilt; these were used."
        warnings.append(Notice("gantry_tilt_unconfirmed", message, {"gantry_tilt_deg": tilt_deg}))
    if first.has_contrast:
        warnings.append(Notice("contrast", "Contrast agent was given; vessels and nodules differ less."))
    if first.is_lossy:
        warnings.append(Notice("lossy_compression", "The images were compressed with loss."))
    if is_sharp_kernel(first.kernel):
        message = "A sharp kernel raises noise and edges; sizes may be off."
        warnings.append(Notice("sharp_kernel", message, {"kernel": first.kernel}))
    if is_other_body_part(series):
        warnings.append(Notice("body_part", "BodyPartExamined names another part.", {"body_part": first.body_part}))
    return tuple(warnings)


def volume_warnings(volume: CtVolume) -> tuple[Notice, ...]:
    """What the voxels themselves say; a sample of them is enough."""
    sample = volume.hu[tuple(slice(None, None, step) for step in _SAMPLE_STEP)]
    low, high = int(sample.min()), int(sample.max())
    if low == high:
        return (Notice("constant_volume", f"Every voxel sampled is {low} HU; nothing can be found.", {"hu": low}),)
    if low > _AIR_BELOW_HU:
        message = f"No voxel sampled is below {low} HU: the values may not be Hounsfield units, or this is no chest."
        return (Notice("no_air", message, {"lowest_hu": low, "highest_hu": high}),)
    return ()
