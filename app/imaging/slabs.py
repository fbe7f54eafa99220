"""Slices of a volume as grey values: windowed, thinned out, as maximum over a thickness; no more is read than asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.imaging.planes import Plane

_PART_VOXELS = 1 << 19
"""Looked up at a time: the indices of a look-up take eight bytes each."""

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Window:
    """Which HU become black and white: ``center_hu`` minus and plus half of ``width_hu``."""

    center_hu: float
    width_hu: float

    def table(self) -> Grey:
        """(65536,) grey value of each int16 by its bits; linear, rounded (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT)."""
        hu = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.float64)
        black = self.center_hu - self.width_hu / 2
        return np.rint(np.clip((hu - black) / self.width_hu, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Slab:
    """Slices ``first`` to ``first + count - 1`` of a plane.

    Parameters
    ----------
    step
        Every how manieth row and column is taken, from row and column 0.
    mip_mm
        Thickness, centred on each slice, over which the maximum is taken; at the ends of the scan what there is of it.
    """

    first: int
    count: int
    step: int = 1
    mip_mm: float = 0.0

    def reach(self, plane: Plane) -> int:
        """Slices on either side that belong to the thickness."""
        return int(self.mip_mm / 2 / plane.spacing_mm[0] + 1e-9)

    def shape(self, plane: Plane) -> tuple[int, int, int]:
        """Slices, rows, columns of the answer; it ends with the plane."""
        slices, rows, columns = plane.shape
        return min(self.count, slices - self.first), -(-rows // self.step), -(-columns // self.step)

    def voxels(self, plane: Plane) -> int:
        """How many have to be looked at."""
        count, rows, columns = self.shape(plane)
        return min(count + 2 * self.reach(plane), plane.shape[0]) * rows * columns


def cut(hu: NDArray[np.int16], plane: Plane, slab: Slab, window: Window) -> Grey:
    """Grey values of a slab.

    Parameters
    ----------
    hu
        int16 (z, y, x), in memory or mapped from a file; only what the slab needs is read.
    plane
        Of the volume's grid.
    slab
        Within the plane.
    window
        For the grey values.

    Returns
    -------
    uint8 (slices, rows, columns), C order
    """
    reach, count = slab.reach(plane), slab.shape(plane)[0]
    low, high = max(0, slab.first - reach), min(plane.shape[0], slab.first + count + reach)
    chosen = [slice(low, high), *(slice(None, None, -slab.step if against else slab.step) for against in plane.flipped)]
    by_axis = sorted(zip(plane.axes, chosen, strict=True), key=lambda pair: pair[0])
    # In the order of the memory first: turning bytes is cheaper than jumping through the file.
    grey = _looked_up(hu[tuple(wanted for _, wanted in by_axis)], window.table()).transpose(plane.axes)
    if reach:
        missing = (low - (slab.first - reach), slab.first + count + reach - high)
        grey = _running_maximum(np.pad(grey, [missing, (0, 0), (0, 0)]), 2 * reach + 1)
    return np.ascontiguousarray(grey)


def _looked_up(block: NDArray[np.int16], table: Grey) -> Grey:
    grey = np.empty(block.shape, np.uint8)
    for part in _parts(block.shape):
        # Signed and unsigned have the same bits, and the table is by bits. "clip" spares a check: none is out of range.
        np.take(table, np.ascontiguousarray(block[part]).view(np.uint16), out=grey[part], mode="clip")
    return grey


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _PART_VOXELS // max(1, shape[1] * shape[2]))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


def _running_maximum(grey: Grey, width: int) -> Grey:
    """Maximum of ``width`` neighbours along the first axis, which gets ``width - 1`` shorter; log2(width) passes."""
    done = 1
    while done * 2 <= width:
        grey = np.maximum(grey[:-done], grey[done:])
        done *= 2
    rest = width - done
    return np.maximum(grey[:-rest], grey[rest:]) if rest else grey
