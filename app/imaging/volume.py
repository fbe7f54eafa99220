"""Geometry as an object with one affine, and the two volumes that flow through the house.

Axis order of arrays is (z, y, x); patient coordinates are LPS millimetres in the order (x, y, z), DICOM's own
(PS3.3 C.7.6.2.1.1). Index coordinates are continuous and count voxel centres: voxel i spans i - 0.5 .. i + 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.imaging.patient_attributes import PatientAttributes
from app.imaging.visit import Visit

FloatArray = NDArray[np.float64]

Directions = Literal["SPL", "SAR"]
"""Where the z, y and x axes of an array run: superior; posterior or anterior; left or right."""

_PREFERRED_AXIS_LPS = (2, 1, 0)
"""The patient axis (x, y, z = 0, 1, 2) that the canonical z, y and x array axes run along."""


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid in patient space.

    Parameters
    ----------
    shape_zyx
        Number of voxels along the array axes.
    affine
        4x4 matrix from homogeneous index (z, y, x, 1) to patient LPS mm (x, y, z, 1).

    Raises
    ------
    ValueError
        If the shape is not positive or the affine is not finite and invertible.
    """

    shape_zyx: tuple[int, int, int]
    affine: FloatArray
    _inverse: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"affine must be a finite 4x4 matrix, got shape {affine.shape}")
        if not np.array_equal(affine[3], (0.0, 0.0, 0.0, 1.0)):
            raise ValueError(f"the last row of affine must be (0, 0, 0, 1), got {affine[3]}")
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
            raise ValueError(f"shape_zyx must be three positive integers, got {self.shape_zyx}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError("affine is singular: two axes are parallel or a spacing is zero")
        affine.setflags(write=False)
        object.__setattr__(self, "shape_zyx", tuple(int(n) for n in self.shape_zyx))
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "_inverse", np.linalg.inv(affine))

    @classmethod
    def from_spacing(
        cls,
        shape_zyx: tuple[int, int, int],
        spacing_zyx_mm: ArrayLike = (1.0, 1.0, 1.0),
        origin_lps_mm: ArrayLike = (0.0, 0.0, 0.0),
        direction_lps_zyx: ArrayLike | None = None,
    ) -> Grid:
        """Build a grid from spacing, the position of voxel (0, 0, 0) and unit direction columns.

        ``direction_lps_zyx`` is 3x3; its columns are the LPS directions of the z, y and x array axes. Without
        one the grid is axis-aligned: x to the left, y to posterior, z to superior.
        """
        direction = np.eye(3)[:, ::-1] if direction_lps_zyx is None else np.asarray(direction_lps_zyx, dtype=np.float64)
        affine = np.eye(4)
        affine[:3, :3] = direction * np.asarray(spacing_zyx_mm, dtype=np.float64)
        affine[:3, 3] = np.asarray(origin_lps_mm, dtype=np.float64)
        return cls(shape_zyx, affine)

    @property
    def spacing_zyx_mm(self) -> FloatArray:
        """(3,) distance between neighbouring voxel centres along z, y, x in mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def direction_lps_zyx(self) -> FloatArray:
        """(3, 3) unit columns: LPS direction of the z, y and x array axes."""
        return np.asarray(self.affine[:3, :3] / self.spacing_zyx_mm)

    @property
    def origin_lps_mm(self) -> FloatArray:
        """(3,) patient position of the centre of voxel (0, 0, 0)."""
        return np.asarray(self.affine[:3, 3])

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel; right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_patient(self, index_zyx: ArrayLike) -> FloatArray:
        """(n, 3) or (3,) continuous indices (z, y, x) -> patient LPS mm (x, y, z)."""
        return np.asarray(np.asarray(index_zyx, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, lps_mm: ArrayLike) -> FloatArray:
        """(n, 3) or (3,) patient LPS mm (x, y, z) -> continuous indices (z, y, x)."""
        return np.asarray(np.asarray(lps_mm, dtype=np.float64) @ self._inverse[:3, :3].T + self._inverse[:3, 3])

    def contains_index(self, index_zyx: ArrayLike) -> NDArray[np.bool_]:
        """Whether continuous indices lie inside the voxels of the grid; (n, 3) -> (n,)."""
        index = np.asarray(index_zyx, dtype=np.float64)
        return np.asarray(((index >= -0.5) & (index <= np.asarray(self.shape_zyx) - 0.5)).all(axis=-1))

    def cropped(self, start_zyx: ArrayLike, shape_zyx: tuple[int, int, int]) -> Grid:
        """The grid of ``array[start:start + shape]``."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_patient(start_zyx)
        return Grid(shape_zyx, affine)


@dataclass(frozen=True)
class SliceIdentity:
    """Which DICOM image a slice of the volume came from; what a PACS counts by."""

    sop_instance_uid: str
    instance_number: int | None = None
    frame_number: int | None = None
    """1-based frame of an Enhanced multi-frame object; None for classic single-frame images."""
    sop_class_uid: str = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class DicomIdentity:
    """UIDs that results must refer to. Holds no patient attribute."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str | None
    slices: tuple[SliceIdentity, ...] = ()
    """One for each z index, in array order; empty for formats without them."""


@dataclass(frozen=True)
class CtVolume:
    """A CT in Hounsfield units.

    Parameters
    ----------
    hu
        int16 array (z, y, x) in HU.
    grid
        Where the voxels lie; ``grid.shape_zyx == hu.shape``.
    identity
        DICOM UIDs, or None for formats without them.
    patient
        Age and sex, for risk formulas that are asked to use them; None for formats without them.
    visit
        Whose it is and of which day, for comparisons; empty for formats that do not say.
    """

    hu: NDArray[np.int16]
    grid: Grid
    identity: DicomIdentity | None = None
    patient: PatientAttributes | None = None
    visit: Visit = field(default_factory=Visit)

    def __post_init__(self) -> None:
        if self.hu.dtype != np.int16:
            raise ValueError(f"hu must be int16, got {self.hu.dtype}")
        if self.hu.shape != self.grid.shape_zyx:
            raise ValueError(f"hu has shape {self.hu.shape}, its grid {self.grid.shape_zyx}")


@dataclass(frozen=True)
class PreparedVolume:
    """Float array in network units with its own grid: raw HU cannot reach a network by mistake."""

    values: NDArray[np.float32]
    grid: Grid
    spec_digest: str
    """`PreprocessingSpec.digest` of the spec that made it."""
    in_lungs: NDArray[np.bool_] | None = None
    """(z, y, x) on the same grid: within the lung mask widened by the spec's margin; None when not asked for."""

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32:
            raise ValueError(f"values must be float32, got {self.values.dtype}")
        if self.values.shape != self.grid.shape_zyx:
            raise ValueError(f"values has shape {self.values.shape}, its grid {self.grid.shape_zyx}")


def nearest_axes(grid: Grid) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which axes of a grid run nearest to S, P and L, each axis once, and whether each runs the other way."""
    direction = grid.direction_lps_zyx
    first, second, third = max(
        permutations(range(3)),
        key=lambda p: sum(abs(direction[_PREFERRED_AXIS_LPS[i], p[i]]) for i in range(3)),
    )
    order = (first, second, third)
    against = [bool(direction[_PREFERRED_AXIS_LPS[i], order[i]] < 0) for i in range(3)]
    return order, (against[0], against[1], against[2])


def canonical(volume: CtVolume, directions_zyx: Directions = "SPL") -> tuple[NDArray[np.int16], Grid]:
    """View of the voxels with array axes nearest to (S, P, L) or (S, A, R), and its grid.

    Nothing is copied or interpolated.

    Returns
    -------
    hu, grid
        int16 view (z, y, x) and the grid that places it where the original lies.
    """
    order, against = nearest_axes(volume.grid)
    runs_back = [letter not in "SPL" for letter in directions_zyx]
    flipped = [against[i] != runs_back[i] for i in range(3)]
    hu = volume.hu.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flipped)]
    columns = volume.grid.affine[:3, list(order)]
    start = np.zeros(3)
    for axis, source in enumerate(order):
        if flipped[axis]:
            start[source] = volume.grid.shape_zyx[source] - 1
    affine = np.eye(4)
    affine[:3, :3] = columns * np.where(flipped, -1.0, 1.0)
    affine[:3, 3] = volume.grid.to_patient(start)
    return hu, Grid(hu.shape, affine)
