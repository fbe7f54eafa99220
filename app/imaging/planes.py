"""Axial, coronal and sagittal pictures of a volume, as a radiologist expects them, whatever way the scan lies.

A plane is an order and a flip of the volume's own axes: nothing is interpolated. In an oblique scan the pictures are as
oblique as the scan, and carry the names of the planes they are nearest to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.imaging.volume import FloatArray, Grid, nearest_axes

PlaneName = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")

_S, _P, _L = 0, 1, 2
"""Places in what `nearest_axes` gives."""


@dataclass(frozen=True)
class Edges:
    """What lies beyond each edge of a picture: R, L, A, P, H (head) or F (feet)."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class Plane:
    """One way to cut a volume into pictures.

    Parameters
    ----------
    name
        The plane of the patient that it is, or is nearest to.
    axes
        The volume's axis (z, y, x = 0, 1, 2) along which slices, rows and columns run.
    flipped
        Whether rows and columns count against the volume's index; slices never do.
    shape
        Slices, rows, columns.
    grid
        Of the volume.
    edges
        For the labels of the picture.
    """

    name: PlaneName
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool]
    shape: tuple[int, int, int]
    grid: Grid
    edges: Edges

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between slices, rows and columns."""
        slices, rows, columns = (float(self.grid.spacing_zyx_mm[axis]) for axis in self.axes)
        return slices, rows, columns

    @property
    def to_index_zyx(self) -> FloatArray:
        """4x4 matrix from (slice, row, column, 1) to the volume's index (z, y, x, 1)."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for place, axis in enumerate(self.axes):
            against = place > 0 and self.flipped[place - 1]
            matrix[axis, place] = -1.0 if against else 1.0
            matrix[axis, 3] = self.grid.shape_zyx[axis] - 1 if against else 0.0
        return matrix

    @property
    def to_lps_mm(self) -> FloatArray:
        """4x4 matrix from (slice, row, column, 1) to patient LPS mm (x, y, z, 1); pixel centres at whole numbers."""
        return np.asarray(self.grid.affine @ self.to_index_zyx)

    def from_index(self, index_zyx: ArrayLike) -> FloatArray:
        """(n, 3) or (3,) indices (z, y, x) of the volume -> (slice, row, column)."""
        # The matrix only reorders and flips, so its inverse is exact.
        inverse = np.linalg.inv(self.to_index_zyx)
        return np.asarray(np.asarray(index_zyx, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3])

    def arranged(self, block_zyx: NDArray[np.generic]) -> NDArray[np.generic]:
        """View of an array in the volume's axis order as (slices, rows, columns) of this plane."""
        rows, columns = (slice(None, None, -1 if against else 1) for against in self.flipped)
        return block_zyx.transpose(self.axes)[:, rows, columns]


def planes_of(grid: Grid) -> dict[PlaneName, Plane]:
    """The three planes of a grid.

    Axial: the patient's right on the left of the picture, front on top. Coronal: right on the left, head on top.
    Sagittal: front on the left, head on top.
    """
    order, against = nearest_axes(grid)
    to_back, to_left, to_feet = against[_P], against[_L], not against[_S]
    return {
        "axial": _plane(
            grid, "axial", (order[_S], order[_P], order[_L]), (to_back, to_left), Edges("R", "L", "A", "P")
        ),
        "coronal": _plane(
            grid, "coronal", (order[_P], order[_S], order[_L]), (to_feet, to_left), Edges("R", "L", "H", "F")
        ),
        "sagittal": _plane(
            grid, "sagittal", (order[_L], order[_S], order[_P]), (to_feet, to_back), Edges("A", "P", "H", "F")
        ),
    }


def _plane(grid: Grid, name: PlaneName, axes: tuple[int, int, int], flipped: tuple[bool, bool], edges: Edges) -> Plane:
    slices, rows, columns = (grid.shape_zyx[axis] for axis in axes)
    return Plane(name, axes, flipped, (slices, rows, columns), grid, edges)
