"""Slices of one series as one regular grid, or the reason why they are not.

Order and spacing come from ImagePositionPatient projected on the slice normal (PS3.3 C.7.6.2.1.1), never from
file names, InstanceNumber, SliceLocation, SliceThickness or SpacingBetweenSlices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import Notice
from app.imaging.errors import IrregularSeries
from app.imaging.read_options import DUPLICATE_SLICES, MISSING_SLICES
from app.imaging.slice_header import SliceHeader
from app.imaging.volume import FloatArray, Grid

SAME_POSITION_MM = 0.01
"""Two slices nearer than this lie at one position."""
SPACING_TOLERANCE = 0.05
"""Largest deviation of a slice from the regular grid, as a fraction of the spacing."""
DRIFT_TOLERANCE_MM = 0.2
"""Largest in-plane deviation of a slice's corner from the straight line through the stack."""
DIRECTION_TOLERANCE = 1e-3
"""Largest error of a direction cosine; headers carry as few as four decimals."""
MAX_TILT_DEG = 30.0
NEGLIGIBLE_TILT_DEG = 0.1
MAX_COORDINATE_MM = 1e5
PIXEL_SPACING_RANGE_MM = (0.05, 5.0)
SLICE_SPACING_RANGE_MM = (0.05, 20.0)
_MAX_LISTED = 20


@dataclass(frozen=True)
class Stack:
    """Slices in array order on one grid.

    Parameters
    ----------
    headers
        One for each z index, ascending along the slice normal.
    grid
        Sheared when the gantry was tilted.
    interpolated
        z indices whose slice is absent; ``headers`` repeats the one before.
    ignored, repairs, warnings
        For the acceptance report.
    """

    headers: tuple[SliceHeader, ...]
    grid: Grid
    interpolated: tuple[int, ...] = ()
    ignored: tuple[Notice, ...] = ()
    repairs: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Spacing of the grid, rounded for the report."""
        z, y, x = (round(float(value), 6) for value in self.grid.spacing_zyx_mm)
        return z, y, x


SamePixels = Callable[[SliceHeader, SliceHeader], bool]


def stack_slices(
    headers: Sequence[SliceHeader], same_pixels: SamePixels, allow_repairs: frozenset[str] = frozenset()
) -> Stack:
    """Order slices and lay them on one grid.

    Parameters
    ----------
    headers
        Slices of one series, at least two, in any order.
    same_pixels
        Whether two slices hold the same image; asked only about slices at one position.
    allow_repairs
        Any of `app.imaging.read_options.REPAIRS`.

    Returns
    -------
    Stack
        Grid with the stack's exact shear and in-plane rotation.

    Raises
    ------
    IrregularSeries
        ``invalid_geometry``, ``mixed_geometry``, ``duplicate_slices``, ``nonuniform_spacing``,
        ``irregular_positions`` or ``gantry_tilt``, with positions in mm along the slice normal.
    """
    _require_one_value(headers)
    rows, columns = _size(headers[0])
    spacing_yx_mm = _pixel_spacing_mm(headers[0])
    row_direction, column_direction = _directions(headers)
    normal = np.cross(row_direction, column_direction)
    positions = np.array([_position_mm(header) for header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    ordered = [headers[i] for i in order]
    kept, ignored, repairs = _without_duplicates(ordered, positions[order] @ normal, same_pixels, allow_repairs)
    if len(kept) < 2:
        raise IrregularSeries("The series has one slice position; a volume needs several.", code="single_slice")
    slices = [ordered[i] for i in kept]
    slices, interpolated, filled = _regular(slices, positions[order][kept], normal, allow_repairs)
    corners = positions[order][kept]
    step = (corners[-1] - corners[0]) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = column_direction * spacing_yx_mm[0]
    affine[:3, 2] = row_direction * spacing_yx_mm[1]
    affine[:3, 3] = corners[0]
    return Stack(
        headers=tuple(slices),
        grid=Grid((len(slices), rows, columns), affine),
        interpolated=interpolated,
        ignored=tuple(ignored),
        repairs=(*repairs, *filled),
        warnings=tuple(_tilt_warning(step, normal)),
    )


def normal_of(header: SliceHeader) -> FloatArray | None:
    """Unit slice normal in LPS, or None when the orientation is absent or not valid."""
    if header.orientation_lps is None or len(header.orientation_lps) != 6:
        return None
    row, column = np.asarray(header.orientation_lps).reshape(2, 3)
    normal = np.cross(row, column)
    length = float(np.linalg.norm(normal))
    return np.asarray(normal / length) if length > 0.5 else None


def valid_position(header: SliceHeader) -> tuple[float, float, float] | None:
    """LPS mm of the centre of the first voxel, or None when it is absent or out of any scanner's reach."""
    position = header.position_lps_mm
    if position is None or len(position) != 3 or max(abs(value) for value in position) > MAX_COORDINATE_MM:
        return None
    return position[0], position[1], position[2]


def _require_one_value(headers: Sequence[SliceHeader]) -> None:
    """Refuse slices that differ in what a volume has once; orientation is compared with a tolerance elsewhere."""
    shared: dict[str, Callable[[SliceHeader], Hashable]] = {
        "Rows": lambda h: h.pixel_format and h.pixel_format.rows,
        "Columns": lambda h: h.pixel_format and h.pixel_format.columns,
        "PixelSpacing": lambda h: h.pixel_spacing_mm and tuple(round(value, 4) for value in h.pixel_spacing_mm),
        "FrameOfReferenceUID": lambda h: h.frame_of_reference_uid,
        "StudyInstanceUID": lambda h: h.study_instance_uid,
    }
    for attribute, value_of in shared.items():
        counts: dict[Hashable, list[int]] = {}
        for header in headers:
            counts.setdefault(value_of(header), []).append(header.file.index)
        if len(counts) > 1:
            odd = min(counts.values(), key=len)
            raise IrregularSeries(
                f"The slices do not agree in {attribute}: {len(counts)} different values. "
                "Send the images of one reconstruction.",
                code="mixed_geometry",
                values={"attribute": attribute, "value_count": len(counts), "odd_files": odd[:_MAX_LISTED]},
            )


def _size(header: SliceHeader) -> tuple[int, int]:
    if header.pixel_format is None or min(header.pixel_format.rows, header.pixel_format.columns) < 2:
        raise _invalid("Rows, Columns", None, "two or more of each")
    return header.pixel_format.rows, header.pixel_format.columns


def _pixel_spacing_mm(header: SliceHeader) -> tuple[float, float]:
    """Distance between rows (y) and between columns (x)."""
    low, high = PIXEL_SPACING_RANGE_MM
    spacing = header.pixel_spacing_mm
    if spacing is None or len(spacing) != 2 or not all(low <= value <= high for value in spacing):
        raise _invalid("PixelSpacing", spacing, f"two numbers from {low} to {high} mm")
    return spacing[0], spacing[1]


def _directions(headers: Sequence[SliceHeader]) -> tuple[FloatArray, FloatArray]:
    """Unit LPS directions of increasing column and row index, the same for all slices."""
    cosines = np.empty((len(headers), 6))
    for i, header in enumerate(headers):
        if header.orientation_lps is None or len(header.orientation_lps) != 6:
            raise _invalid("ImageOrientationPatient", header.orientation_lps, "six numbers")
        cosines[i] = header.orientation_lps
    row, column = cosines[0, :3], cosines[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1.0) for length in lengths) > DIRECTION_TOLERANCE or abs(row @ column) > DIRECTION_TOLERANCE:
        raise _invalid("ImageOrientationPatient", tuple(cosines[0]), "two perpendicular unit vectors")
    odd = np.flatnonzero(np.abs(cosines - cosines[0]).max(axis=1) > DIRECTION_TOLERANCE)
    if len(odd):
        raise IrregularSeries(
            f"The slices do not agree in ImageOrientationPatient: {len(odd)} differ from the first. "
            "Send the images of one reconstruction.",
            code="mixed_geometry",
            values={
                "attribute": "ImageOrientationPatient",
                "odd_files": [headers[i].file.index for i in odd[:_MAX_LISTED]],
            },
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _position_mm(header: SliceHeader) -> tuple[float, float, float]:
    position = valid_position(header)
    if position is None:
        raise _invalid("ImagePositionPatient", header.position_lps_mm, "three numbers in mm")
    return position


def _invalid(attribute: str, found: tuple[float, ...] | None, expected: str) -> IrregularSeries:
    said = "absent or not numeric" if found is None else f"{list(found)}"
    return IrregularSeries(
        f"{attribute} is {said}; {expected} are needed. Without it nothing can be measured.",
        code="invalid_geometry",
        values={"attribute": attribute, "found": None if found is None else list(found)},
    )


def _without_duplicates(
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
            values={"count": len(clashes), "slices": clashes[:_MAX_LISTED]},
        )
    return np.asarray(kept), ignored, repairs


def _regular(
    slices: list[SliceHeader], corners: FloatArray, normal: FloatArray, allow_repairs: frozenset[str]
) -> tuple[list[SliceHeader], tuple[int, ...], list[Notice]]:
    """Slices with allowed gaps filled, z indices of the filled ones, notices; raises unless the stack is regular."""
    along_mm = corners @ normal
    gaps_mm = np.diff(along_mm)
    spacing_mm = float(np.median(gaps_mm))
    low, high = SLICE_SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise _invalid("ImagePositionPatient", (spacing_mm,), f"slices from {low} to {high} mm apart")
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
        values={"spacing_mm": round(spacing_mm, 4), "missing_slices": count, "gaps": gaps[:_MAX_LISTED]},
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
            "odd_positions_mm": [round(float(along_mm[i]), 3) for i in odd[:_MAX_LISTED]],
        },
    )


def _tilt_warning(step: FloatArray, normal: FloatArray) -> list[Notice]:
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
