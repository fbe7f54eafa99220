"""Nodules, vessels and consolidation are part of the lung: what thresholding left out of it is filled in again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.lung_morphology import closed
from app.imaging.lung_separation import LEFT, RIGHT

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def fill_sides(labels: NDArray[np.uint8], forbidden: Mask, spacing_mm: Floats) -> NDArray[np.uint8]:
    """Close vessels, hilar notches and nodules into each lung, and what bites into its costal surface.

    The large closing counts only where the lung hides the voxel from the middle of the chest: the costal surface is
    convex, so a dent there is disease, while heart and hilum dent the other surface by nature.
    """
    filled = labels.copy()
    for side in (RIGHT, LEFT):
        lung = labels == side
        if not lung.any():
            continue
        box = ndimage.find_objects(lung.view(np.uint8))[0]
        dents = _costal_dents(lung[box], spacing_mm) & _hidden(lung, labels > 0)[box]
        whole = ndimage.binary_fill_holes(closed(lung[box] | dents, 9.0, spacing_mm))
        filled[box][whole & (filled[box] == 0) & ~forbidden[box]] = side
    return filled


def _costal_dents(lung: Mask, spacing_mm: Floats) -> Mask:
    """What a tall ellipsoid (30 mm in-plane, 70 mm along z) cannot reach from outside, on blocks of 2 x 2 x 2 voxels.

    Its flat sides span a dent of the chest wall almost as the ribs do; its sharp tip fits under the domes of the
    diaphragm, so that liver and stomach are not taken for lung.
    """
    blocks = np.pad(lung, [(0, n % 2) for n in lung.shape])
    for axis in range(3):
        blocks = np.logical_or(*(blocks.take(range(k, blocks.shape[axis], 2), axis=axis) for k in (0, 1)))
    dents = closed(blocks, 30.0, spacing_mm * 2 * (30.0 / 70.0, 1.0, 1.0)) & ~blocks
    for axis in range(3):
        dents = dents.repeat(2, axis=axis)
    return np.asarray(dents[tuple(slice(n) for n in lung.shape)])


def _hidden(lung: Mask, both: Mask) -> Mask:
    """Voxels that lie behind this lung when seen, in their axial slice, from the middle of the chest."""
    rows, columns = (np.flatnonzero(both.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    y, x = np.ogrid[: lung.shape[1], : lung.shape[2]]
    dy, dx = y - (rows[0] + rows[-1]) / 2, x - (columns[0] + columns[-1]) / 2
    radius = np.hypot(dy, dx)
    sectors = 120
    sector = np.floor((np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * sectors).astype(np.intp) % sectors
    nearest = np.full((lung.shape[0], sectors), np.inf)
    for z in np.flatnonzero(lung.any(axis=(1, 2))):
        np.minimum.at(nearest[z], sector[lung[z]], radius[lung[z]])
    return np.asarray(radius > nearest[:, sector])
