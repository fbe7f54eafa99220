"""Nodules, vessels and consolidation are part of the lung: what thresholding left out of it is filled in again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.imaging.lung_morphology import closed, without_holes
from app.imaging.lung_separation import LEFT, RIGHT, Box, box_around

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_SECTORS = 120
"""Of a full turn, in which one voxel hides another."""


def fill_sides(labels: NDArray[np.uint8], forbidden: Mask, spacing_mm: Floats) -> NDArray[np.uint8]:
    """Close vessels, hilar notches and nodules into each lung, and what bites into its costal surface.

    The large closing counts only where the lung hides the voxel from the middle of the chest: the costal surface is
    convex, so a dent there is disease, while heart and hilum dent the other surface by nature.
    """
    view = _seen_from_the_middle(labels > 0)
    # What both lungs would take is the first one's.
    sides = [side for side in (RIGHT, LEFT) if (labels == side).any()]
    with ThreadPoolExecutor(len(sides) or 1) as pool:
        wholes = list(pool.map(lambda side: _whole(labels == side, view, spacing_mm), sides))
    filled = labels.copy()
    for side, (box, whole) in zip(sides, wholes, strict=True):
        filled[box][whole & (filled[box] == 0) & ~forbidden[box]] = side
    return filled


def _whole(lung: Mask, view: _View, spacing_mm: Floats) -> tuple[Box, Mask]:
    """Box around one lung, and the lung in it with what is to be filled."""
    box = box_around(lung, margin=0)
    dents = _costal_dents(lung[box], spacing_mm) & _hidden(lung, view)[box]
    return box, without_holes(closed(lung[box] | dents, 9.0, spacing_mm))


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


@dataclass(frozen=True)
class _View:
    """An axial slice in polar coordinates about the middle of the chest."""

    radius: Floats
    """(y, x) in voxels."""
    sector: NDArray[np.intp]
    """(y, x) from 0 to ``_SECTORS - 1``."""


def _seen_from_the_middle(both: Mask) -> _View:
    rows, columns = (np.flatnonzero(both.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if not rows.size:
        rows = columns = np.zeros(1, np.intp)
    y, x = np.ogrid[: both.shape[1], : both.shape[2]]
    dy, dx = y - (rows[0] + rows[-1]) / 2, x - (columns[0] + columns[-1]) / 2
    sector = np.floor((np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * _SECTORS).astype(np.intp) % _SECTORS
    return _View(np.hypot(dy, dx), sector)


def _hidden(lung: Mask, view: _View) -> Mask:
    """Voxels that lie behind this lung when seen, in their axial slice, from the middle of the chest."""
    nearest = np.full((lung.shape[0], _SECTORS), np.inf)
    for z in np.flatnonzero(lung.any(axis=(1, 2))):
        np.minimum.at(nearest[z], view.sector[lung[z]], view.radius[lung[z]])
    return np.asarray(view.radius > nearest[:, view.sector])
