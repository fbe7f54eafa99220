"""Binary morphology with balls in millimetres: shifted ORs of whole arrays, far faster here than distance maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def dilated(mask: Mask, radius_mm: float, spacing_mm: Floats) -> Mask:
    """Every voxel whose centre lies within ``radius_mm`` of the centre of a voxel of ``mask``.

    The result has the shape of ``mask``; what would grow beyond the array is lost.
    """
    reach = _reach(radius_mm, spacing_mm)
    padded = np.pad(mask, [(n, n) for n in reach])
    grown = _dilated_in_place(padded, radius_mm, spacing_mm)
    return np.ascontiguousarray(grown[_interior(reach)])


def closed(mask: Mask, radius_mm: float, spacing_mm: Floats) -> Mask:
    """Morphological closing with a ball; the space around the array counts as empty, so nothing sticks to its edges."""
    reach = _reach(radius_mm, spacing_mm)
    padded = np.pad(mask, [(2 * n, 2 * n) for n in reach])
    grown = _dilated_in_place(padded, radius_mm, spacing_mm)
    hollow = _dilated_in_place(~grown, radius_mm, spacing_mm)
    return np.ascontiguousarray(~hollow[_interior([2 * n for n in reach])])


def eroded(mask: Mask, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
    """One step of erosion by the nearest neighbours along ``axes``; the space around the array counts as full."""
    result = mask.copy()
    for axis in axes:
        ahead = (slice(None),) * axis + (slice(1, None),)
        behind = (slice(None),) * axis + (slice(None, -1),)
        result[behind] &= mask[ahead]
        result[ahead] &= mask[behind]
    return result


def without_holes(mask: Mask) -> Mask:
    """The mask with what it encloses: `scipy.ndimage.binary_fill_holes` in a third of the time."""
    parts, count = ndimage.label(~mask)
    is_open = np.zeros(count + 1, bool)
    for axis in range(3):
        for face in (0, -1):
            is_open[parts.take(face, axis=axis)] = True
    is_open[0] = False
    return np.asarray(~is_open[parts])


def grown_together(seeds: NDArray[np.uint8], inside: Mask) -> NDArray[np.uint8]:
    """Grow labelled seeds through ``inside``, neighbour by neighbour, until they meet or can go no further.

    Where two labels arrive at once the higher one takes the voxel.
    """
    labels = np.pad(np.where(inside, seeds, 0).astype(np.uint8), 1)
    flat, free = labels.ravel(), np.pad(inside, 1).ravel() & (labels.ravel() == 0)
    steps = (1, labels.shape[2], labels.shape[1] * labels.shape[2])
    while True:
        arriving = np.zeros_like(flat)
        for step in steps:
            np.maximum(arriving[step:], flat[:-step], out=arriving[step:])
            np.maximum(arriving[:-step], flat[step:], out=arriving[:-step])
        arriving *= free
        if not arriving.any():
            return labels[1:-1, 1:-1, 1:-1]
        flat |= arriving
        free &= arriving == 0


def _reach(radius_mm: float, spacing_mm: Floats) -> list[int]:
    return [int(radius_mm / s) for s in spacing_mm]


def _interior(margin: list[int]) -> tuple[slice, ...]:
    return tuple(slice(n, -n or None) for n in margin)


def _dilated_in_place(padded: Mask, radius_mm: float, spacing_mm: Floats) -> Mask:
    """Dilate without changing the shape: runs along x once for each length, then shifted in z and y, eight to a byte.

    Shifts wrap at the edges, so the outermost ``_reach`` voxels of the result are not to be trusted unless ``padded``
    is constant there.
    """
    dz, dy, dx = spacing_mm
    depth, height, width = _reach(radius_mm, spacing_mm)
    runs = _runs_along_x(padded, width)
    row_bytes = -(-padded.shape[2] // 8)
    grown = np.zeros_like(runs[0])
    for z in range(-depth, depth + 1):
        for y in range(-height, height + 1):
            rest = radius_mm**2 - (z * dz) ** 2 - (y * dy) ** 2
            if rest >= 0:
                _or_shifted(grown, runs[int(rest**0.5 / dx)], (z * padded.shape[1] + y) * row_bytes)
    packed = grown.reshape(*padded.shape[:2], row_bytes)
    return np.unpackbits(packed, axis=2, count=padded.shape[2]).view(np.bool_)


def _runs_along_x(padded: Mask, width: int) -> list[NDArray[np.uint8]]:
    """For k = 0..width the mask dilated by k voxels along x, as packed bits, flattened."""
    runs = [np.packbits(padded, axis=2).ravel()]
    grown = padded.copy()
    for k in range(1, width + 1):
        grown[..., k:] |= padded[..., :-k]
        grown[..., :-k] |= padded[..., k:]
        runs.append(np.packbits(grown, axis=2).ravel())
    return runs


def _or_shifted(target: NDArray[np.uint8], source: NDArray[np.uint8], shift: int) -> None:
    if shift >= 0:
        target[shift:] |= source[: len(source) - shift]
    else:
        target[:shift] |= source[-shift:]
