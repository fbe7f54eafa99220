"""Trilinear resampling along the axes of an array, windowed in the same pass; for `app.imaging.preprocessing` alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Axis:
    """One output axis of a resampling: for each output index its two source indices and the second's weight."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float32]
    inside: NDArray[np.bool_]
    """Whether the position lies in the scan, its outermost half voxel included."""

    def touched(self) -> slice:
        """The source indices that are used."""
        return slice(int(self.lower.min()), int(self.upper.max()) + 1)

    def from_first_touched(self) -> Axis:
        """The same axis, its source indices counted from the first that is used."""
        first = self.lower.min()
        return replace(self, lower=self.lower - first, upper=self.upper - first)


class InPlane:
    """Bilinear sampling of planes at the product of two axes, with buffers for one thread.

    Every voxel goes through the same operations in the same order wherever it is computed, so the result is the same
    to the last bit. `numpy.take` into a buffer is several times faster than indexing with arrays.
    """

    def __init__(self, rows: Axis, columns: Axis) -> None:
        self.touched = (rows.touched(), columns.touched())
        """Rows and columns of the plane that are to be passed, and no others."""
        self._rows, self._columns = rows.from_first_touched(), columns.from_first_touched()
        width = self.touched[1].stop - self.touched[1].start
        self._two_rows = [np.empty((len(rows.lower), width), np.float32) for _ in range(2)]
        self._second_columns = np.empty((len(rows.lower), len(columns.lower)), np.float32)
        self._rows_outside, self._columns_outside = np.flatnonzero(~rows.inside), np.flatnonzero(~columns.inside)

    def sample(self, plane: NDArray[np.float32], window_hu: tuple[float, float], out: NDArray[np.float32]) -> None:
        """Sample and window one plane; what lies outside the scan is 0."""
        rows, columns = self._rows, self._columns
        (top, bottom), right = self._two_rows, self._second_columns
        # "clip" only keeps numpy from copying the buffer; no index is out of bounds.
        np.take(plane, rows.lower, axis=0, out=top, mode="clip")
        np.take(plane, rows.upper, axis=0, out=bottom, mode="clip")
        interpolate(top, bottom, rows.weight[:, None], out=bottom)
        np.take(bottom, columns.lower, axis=1, out=out, mode="clip")
        np.take(bottom, columns.upper, axis=1, out=right, mode="clip")
        interpolate(out, right, columns.weight, out=right)
        low, high = window_hu
        np.subtract(right, np.float32(low), out=right)
        np.multiply(right, np.float32(1.0 / (high - low)), out=right)
        np.clip(right, np.float32(0.0), np.float32(1.0), out=out)
        out[self._rows_outside] = 0.0
        out[:, self._columns_outside] = 0.0


def linear_axis(positions: NDArray[np.float64], size: int) -> Axis:
    """Source indices and weights; positions beyond half a voxel outside are marked."""
    inside = (positions >= -0.5) & (positions <= size - 0.5)
    clipped = np.clip(positions, 0, size - 1)
    lower = np.floor(clipped).astype(np.intp)
    upper = np.minimum(lower + 1, size - 1)
    return Axis(lower, upper, (clipped - lower).astype(np.float32), inside)


def interpolate(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    weight: NDArray[np.float32] | np.float32,
    out: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return ``first + weight * (second - first)`` in ``out``, which may be ``second``."""
    np.subtract(second, first, out=out)
    np.multiply(out, weight, out=out)
    return np.add(first, out, out=out)


def resample_windowed(
    hu: NDArray[np.int16], axes: list[Axis], window_hu: tuple[float, float], threads: int
) -> NDArray[np.float32]:
    """Trilinear resampling and windowing; each thread makes a run of planes of its own."""
    values = np.empty([len(axis.lower) for axis in axes], np.float32)
    runs = np.array_split(np.arange(len(values)), max(1, threads))
    with ThreadPoolExecutor(max_workers=len(runs)) as pool:
        list(pool.map(lambda run: _resample_run(hu, axes, window_hu, run, values), runs))
    return values


def _resample_run(
    hu: NDArray[np.int16],
    axes: list[Axis],
    window_hu: tuple[float, float],
    run: NDArray[np.intp],
    values: NDArray[np.float32],
) -> None:
    """Fill the planes ``run`` of ``values``."""
    along_z, rows, columns = axes
    in_plane = InPlane(rows, columns)
    cropped = hu[:, *in_plane.touched]
    between = np.empty(cropped.shape[1:], np.float32)
    # Neighbouring output planes share their source planes; an even and an odd one are all that is ever needed at once.
    sources = (np.empty_like(between), np.empty_like(between))
    held = [-1, -1]

    def source(index: int) -> NDArray[np.float32]:
        if held[index % 2] != index:
            np.copyto(sources[index % 2], cropped[index])
            held[index % 2] = index
        return sources[index % 2]

    for z in run:
        if not along_z.inside[z]:
            values[z] = 0.0
            continue
        plane = source(int(along_z.lower[z]))
        if along_z.weight[z] > 0:
            plane = interpolate(plane, source(int(along_z.upper[z])), along_z.weight[z], out=between)
        in_plane.sample(plane, window_hu, out=values[z])
