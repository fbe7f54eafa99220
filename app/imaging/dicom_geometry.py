"""Slices of one series as one regular grid, or the reason why they are not.

Order and spacing come from ImagePositionPatient projected on the slice normal (PS3.3 C.7.6.2.1.1), never from
file names, InstanceNumber, SliceLocation, SliceThickness or SpacingBetweenSlices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from app.imaging.acceptance import Notice
from app.imaging.errors import IrregularSeries
from app.imaging.slice_header import SliceHeader
from app.imaging.slice_order import (
    MAX_LISTED,
    SamePixels,
    invalid_geometry,
    regular_slices,
    tilt_warnings,
    without_duplicates,
)
from app.imaging.volume import FloatArray, Grid

DIRECTION_TOLERANCE = 1e-3
"""Largest error of a direction cosine; headers carry as few as four decimals."""
MAX_COORDINATE_MM = 1e5
PIXEL_SPACING_RANGE_MM = (0.05, 5.0)


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
    kept, ignored, repairs = without_duplicates(ordered, positions[order] @ normal, same_pixels, allow_repairs)
    if len(kept) < 2:
        raise IrregularSeries("The series has one slice position; a volume needs several.", code="single_slice")
    slices = [ordered[i] for i in kept]
    slices, interpolated, filled = regular_slices(slices, positions[order][kept], normal, allow_repairs)
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
        warnings=tuple(tilt_warnings(step, normal)),
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
                values={"attribute": attribute, "value_count": len(counts), "odd_files": odd[:MAX_LISTED]},
            )


def _size(header: SliceHeader) -> tuple[int, int]:
    if header.pixel_format is None or min(header.pixel_format.rows, header.pixel_format.columns) < 2:
        raise invalid_geometry("Rows, Columns", None, "two or more of each")
    return header.pixel_format.rows, header.pixel_format.columns


def _pixel_spacing_mm(header: SliceHeader) -> tuple[float, float]:
    """Distance between rows (y) and between columns (x)."""
    low, high = PIXEL_SPACING_RANGE_MM
    spacing = header.pixel_spacing_mm
    if spacing is None or len(spacing) != 2 or not all(low <= value <= high for value in spacing):
        raise invalid_geometry("PixelSpacing", spacing, f"two numbers from {low} to {high} mm")
    return spacing[0], spacing[1]


def _directions(headers: Sequence[SliceHeader]) -> tuple[FloatArray, FloatArray]:
    """Unit LPS directions of increasing column and row index, the same for all slices."""
    cosines = np.empty((len(headers), 6))
    for i, header in enumerate(headers):
        if header.orientation_lps is None or len(header.orientation_lps) != 6:
            raise invalid_geometry("ImageOrientationPatient", header.orientation_lps, "six numbers")
        cosines[i] = header.orientation_lps
    row, column = cosines[0, :3], cosines[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1.0) for length in lengths) > DIRECTION_TOLERANCE or abs(row @ column) > DIRECTION_TOLERANCE:
        raise invalid_geometry("ImageOrientationPatient", tuple(cosines[0]), "two perpendicular unit vectors")
    odd = np.flatnonzero(np.abs(cosines - cosines[0]).max(axis=1) > DIRECTION_TOLERANCE)
    if len(odd):
        raise IrregularSeries(
            f"The slices do not agree in ImageOrientationPatient: {len(odd)} differ from the first. "
            "Send the images of one reconstruction.",
            code="mixed_geometry",
            values={
                "attribute": "ImageOrientationPatient",
                "odd_files": [headers[i].file.index for i in odd[:MAX_LISTED]],
            },
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def _position_mm(header: SliceHeader) -> tuple[float, float, float]:
    position = valid_position(header)
    if position is None:
        raise invalid_geometry("ImagePositionPatient", header.position_lps_mm, "three numbers in mm")
    return position
