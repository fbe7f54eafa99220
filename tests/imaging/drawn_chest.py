"""A chest drawn in patient mm on any grid: ellipsoid lungs, an airway, a spine, and whatever a test adds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import CtVolume, Grid

Mask = NDArray[np.bool_]
Points = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
Shape = Callable[[Points], Mask]

STRAIGHT = Grid.from_spacing((88, 88, 120), (3, 3, 3), (-178.5, -130.5, -130.5))
TISSUE, LUNG, AIR, BONE = 40, -850, -1000, 600


def points_of(grid: Grid) -> Points:
    index = np.ogrid[tuple(slice(0, n) for n in grid.shape_zyx)]
    x, y, z = (sum(a * i for a, i in zip(row[:3], index, strict=True)) + row[3] for row in grid.affine[:3])
    return tuple(np.broadcast_to(p, grid.shape_zyx).astype(np.float32) for p in (x, y, z))


def ellipsoid(center_lps_mm: tuple[float, ...], radii_mm: tuple[float, ...]) -> Shape:
    return lambda p: sum(((a - c) / r) ** 2 for a, c, r in zip(p, center_lps_mm, radii_mm, strict=True)) <= 1


def ball(center_lps_mm: tuple[float, ...], radius_mm: float) -> Shape:
    return ellipsoid(center_lps_mm, (radius_mm,) * 3)


def box(low_lps_mm: tuple[float, ...], high_lps_mm: tuple[float, ...]) -> Shape:
    bounds = list(zip(low_lps_mm, high_lps_mm, strict=True))
    return lambda p: np.logical_and.reduce([(a >= low) & (a <= high) for a, (low, high) in zip(p, bounds, strict=True)])


def tube(start_lps_mm: tuple[float, ...], end_lps_mm: tuple[float, ...], radius_mm: float) -> Shape:
    start, end = np.array(start_lps_mm, np.float32), np.array(end_lps_mm, np.float32)
    along = (end - start) / np.linalg.norm(end - start)

    def inside(p: Points) -> Mask:
        t = np.clip(sum((a - s) * u for a, s, u in zip(p, start, along, strict=True)), 0, np.linalg.norm(end - start))
        return sum((a - s - t * u) ** 2 for a, s, u in zip(p, start, along, strict=True)) <= radius_mm**2

    return inside


RIGHT_LUNG = ellipsoid((-68, 0, 0), (50, 70, 90))
LEFT_LUNG = ellipsoid((68, 0, 0), (50, 70, 90))
BODY = ellipsoid((0, 0, 0), (160, 105, 1e6))
CARINA = (0.0, 0.0, 15.0)
AIRWAY = [((0, -10, 300), CARINA, 9.0), (CARINA, (-45, 0, -15), 6.5), (CARINA, (45, 0, -15), 6.5)]
LUNG_ML = 4 / 3 * np.pi * 50 * 70 * 90 / 1000


def chest(
    *drawn: tuple[Shape, int],
    grid: Grid = STRAIGHT,
    lungs: tuple[Shape, ...] = (RIGHT_LUNG, LEFT_LUNG),
    lung_hu: int = LUNG,
    airway: bool = True,
) -> CtVolume:
    """CT of a chest; ``drawn`` is painted last, in order."""
    p = points_of(grid)
    hu = np.full(grid.shape_zyx, AIR, np.int16)
    hu[BODY(p)] = TISSUE
    hu[ellipsoid((0, 75, 0), (16, 16, 1e6))(p)] = BONE
    for lung in lungs:
        hu[lung(p)] = lung_hu
    if airway:
        for start, end, radius in AIRWAY:
            hu[tube(start, end, radius + 3)(p)] = TISSUE
        for start, end, radius in AIRWAY:
            hu[tube(start, np.multiply(end, (1.4, 1, 1)), radius)(p)] = AIR
    for shape, value in drawn:
        hu[shape(p)] = value
    hu += np.random.default_rng(7).normal(0, 15, hu.shape).astype(np.int16)
    return CtVolume(hu, grid)
