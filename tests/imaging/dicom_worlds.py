"""Small scans to read, written and spoiled in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from app.imaging.inputs import ScanFile
from app.imaging.read_options import ReadLimits, ReadOptions
from app.imaging.slice_header import PixelFormat, PixelLocation, SliceHeader
from app.imaging.transfer_syntax import EXPLICIT_LITTLE, TRANSFER_SYNTAXES
from app.imaging.volume import CtVolume, Grid
from app.phantom.dicom_series import write_dicom_series

SMALL = ReadLimits(min_slices=4, min_coverage_mm=5.0, decode_workers=1)
"""Limits under which the scans made here are long enough."""


def options(**changes: Any) -> ReadOptions:
    """Read options with limits that fit small scans."""
    return ReadOptions(**{"limits": SMALL, **changes})


def tiny_ct(
    shape_zyx: tuple[int, int, int] = (8, 12, 10),
    spacing_zyx_mm: Sequence[float] = (2.0, 0.75, 0.5),
    direction_lps_zyx: Any = None,
    seed: int = 0,
) -> CtVolume:
    """Noise in HU on any grid: every voxel is its own, so a transposed or flipped volume cannot pass."""
    hu = np.random.default_rng(seed).integers(-1024, 1500, shape_zyx).astype(np.int16)
    return CtVolume(hu, Grid.from_spacing(shape_zyx, spacing_zyx_mm, (-120.5, -80.25, 30.0), direction_lps_zyx))


def write_tiny(folder: Path, edit: Callable[[Dataset, int], None] | None = None, **series: Any) -> list[Path]:
    """Write `tiny_ct` as classic DICOM files; ``edit`` spoils each dataset before it is written."""
    return write_dicom_series(tiny_ct(), folder, edit=edit, **series)


def rotation(axis: Sequence[float], degrees: float) -> np.ndarray:
    """3x3 rotation about an axis (Rodrigues)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def slice_headers(grid: Grid) -> list[SliceHeader]:
    """Headers of the slices of a grid, as an ordinary CT series describes them."""
    _, row_spacing, column_spacing = (float(mm) for mm in grid.spacing_zyx_mm)
    direction = grid.direction_lps_zyx
    _, rows, columns = grid.shape_zyx
    return [
        SliceHeader(
            file=ScanFile(z, f"IM{z}", Path("nowhere"), 0, 500 + 2 * rows * columns),
            transfer_syntax=TRANSFER_SYNTAXES[EXPLICIT_LITTLE],
            sop_class_uid=CTImageStorage,
            sop_instance_uid=f"1.2.3.{z}",
            study_instance_uid="1.2.1",
            series_instance_uid="1.2.2",
            frame_of_reference_uid="1.2.9",
            modality="CT",
            image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
            instance_number=z + 1,
            body_part="CHEST",
            kernel="STANDARD",
            has_contrast=False,
            is_lossy=False,
            slice_thickness_mm=float(grid.spacing_zyx_mm[0]),
            gantry_tilt_deg=0.0,
            position_lps_mm=tuple(float(mm) for mm in grid.to_patient((z, 0, 0))),
            orientation_lps=tuple(float(v) for v in (*direction[:, 2], *direction[:, 1])),
            pixel_spacing_mm=(row_spacing, column_spacing),
            rescale_slope=1.0,
            rescale_intercept=-1024.0,
            rescale_type="HU",
            samples_per_pixel=1,
            photometric="MONOCHROME2",
            frame_count=1,
            pixel_format=PixelFormat(rows, columns, 16, 16, 15, is_signed=False, little_endian=True),
            pixels=PixelLocation(500, 2 * rows * columns),
        )
        for z in range(grid.shape_zyx[0])
    ]
