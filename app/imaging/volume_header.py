"""What the header of a volume file says, whatever its format; geometry already in patient LPS."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from app.imaging.errors import UnreadableScan, UnsupportedFormat
from app.imaging.inputs import ScanFile
from app.imaging.volume import FloatArray, Grid

SPACING_RANGE_MM = (0.05, 20.0)
PERPENDICULAR = 1e-3
"""Largest cosine between two axes of a volume file."""
MAX_COORDINATE_MM = 1e5


@dataclass(frozen=True)
class VolumeHeader:
    """Layout and place of the samples of one volume file."""

    source_format: str
    """`metaimage`, `nifti` or `nrrd`."""
    size_xyz: tuple[int, int, int]
    sample_type: str
    """numpy name of a sample with its byte order, such as ``<i2``."""
    affine_lps: FloatArray
    """4x4 from index (x, y, z, 1) to patient LPS mm."""
    compressed: bool
    """zlib or gzip."""
    data_offset: int
    """Where samples begin, in the file that holds them, before it is compressed or after: see ``offset_inside``."""
    offset_inside: bool = False
    """The offset counts inflated bytes, because the header is compressed too (.nii.gz)."""
    data_name: str | None = None
    """Plain name of the file that holds the samples of an `.mhd`; None: the same file."""
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def data_bytes(self) -> int:
        """Uncompressed samples."""
        return math.prod(self.size_xyz) * np.dtype(self.sample_type).itemsize

    @property
    def grid(self) -> Grid:
        """Grid of the (z, y, x) array."""
        x, y, z = self.size_xyz
        return Grid((z, y, x), self.affine_lps[:, [2, 1, 0, 3]])


def refused(file: ScanFile, why: str, code: str = "damaged_header") -> UnreadableScan:
    """The error for one volume file, named by its index."""
    return UnreadableScan(f"File {file.index} cannot be read: {why}.", code=code, values={"file": file.index})


def unsupported(file: ScanFile, why: str) -> UnsupportedFormat:
    """The error for a variant of a format that is not read."""
    return UnsupportedFormat(
        f"File {file.index} is of a kind that is not read: {why}. Send one grey-scale volume in one file.",
        values={"file": file.index},
    )


def checked_size(file: ScanFile, values: list[str] | tuple[int, ...], dimensions: int) -> tuple[int, int, int]:
    """Size in voxels along x, y and z."""
    if dimensions != 3 or len(values) != 3:
        raise unsupported(file, "not three-dimensional")
    x, y, z = (int(value) for value in values)
    if min(x, y, z) < 1:
        raise refused(file, "a dimension is not positive")
    return x, y, z


def checked_affine(file: ScanFile, columns_lps_mm: ArrayLike, origin_lps_mm: ArrayLike) -> FloatArray:
    """4x4 affine of perpendicular axes with plausible spacing.

    Parameters
    ----------
    file
        For the error.
    columns_lps_mm
        3x3; each column is one step along x, y or z of the array, in LPS mm.
    origin_lps_mm
        Centre of the first voxel.

    Raises
    ------
    UnreadableScan
        ``invalid_geometry``.
    """
    affine = np.eye(4)
    affine[:3, :3] = columns_lps_mm
    affine[:3, 3] = origin_lps_mm
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_RANGE_MM
    if not np.isfinite(affine).all() or not ((spacing >= low) & (spacing <= high)).all():
        raise refused(file, f"voxel spacing must be from {low} to {high} mm", "invalid_geometry")
    if np.abs(affine[:3, 3]).max() > MAX_COORDINATE_MM:
        raise refused(file, "its origin lies out of any scanner's reach", "invalid_geometry")
    directions = affine[:3, :3] / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > PERPENDICULAR:
        raise refused(file, "its axes are not perpendicular", "invalid_geometry")
    return affine
