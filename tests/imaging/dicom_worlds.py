"""Small scans to read, written and spoiled in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from app.imaging.read_options import ReadLimits, ReadOptions
from app.imaging.volume import CtVolume, Grid
from app.phantom.dicom_series import write_dicom_series

SMALL = ReadLimits(min_slices=4, min_coverage_mm=5.0)
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


def sheared(z_step_lps_mm: Sequence[float]) -> Callable[[Dataset, int], None]:
    """Edit that lays the slices of `tiny_ct` along another line, as a tilted gantry does."""
    origin = tiny_ct().grid.origin_lps_mm

    def edit(dataset: Dataset, z: int) -> None:
        dataset.ImagePositionPatient = [f"{value:.6g}" for value in origin + z * np.asarray(z_step_lps_mm)]

    return edit
