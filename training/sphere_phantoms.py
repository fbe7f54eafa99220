"""Spheres of known size in plain lung, at any spacing and direction: what measurements are checked against.

Blur and noise are those of `app.phantom`; vessels and chest wall are left out, so what is measured is measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import CtVolume, Grid
from app.phantom.nodules import NoduleShape, paint_nodule
from app.phantom.noise import correlated_slices
from app.phantom.vessels import Tubes

LUNG_HU = -860.0
SOLID_HU, GROUND_GLASS_HU = 40.0, -550.0
DIAMETERS_MM = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0)
SPACINGS_MM = ((0.6, 0.6), (1.0, 0.7), (1.25, 0.7), (2.0, 0.7), (2.5, 0.8), (3.0, 0.8), (5.0, 0.9))
"""(slices, pixels)."""
NOISE_HU = (15.0, 45.0)
_WIDTH_MM, _ROOM_MM = 52.0, 14.0

SphereKind = Literal["solid", "ground_glass"]


@dataclass(frozen=True)
class Sphere:
    """A phantom and the truth about it."""

    volume: CtVolume
    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    kind: SphereKind
    slice_spacing_mm: float
    is_oblique: bool

    @property
    def volume_mm3(self) -> float:
        """Of the sphere itself."""
        return float(np.pi / 6 * self.diameter_mm**3)


def spheres(seed: int = 0, *, diameters_mm: tuple[float, ...] = DIAMETERS_MM) -> Iterator[Sphere]:
    """Every size, spacing, direction (aligned, oblique), kind and noise once, its centre anywhere between voxels."""
    kinds: tuple[SphereKind, ...] = ("solid", "ground_glass")
    every = product(diameters_mm, SPACINGS_MM, (False, True), kinds, NOISE_HU)
    for number, (diameter_mm, (slice_mm, pixel_mm), oblique, kind, noise_hu) in enumerate(every):
        rng = np.random.default_rng([seed, number])
        yield sphere(rng, diameter_mm, (slice_mm, pixel_mm, pixel_mm), kind, noise_hu, oblique=oblique)


def sphere(
    rng: np.random.Generator,
    diameter_mm: float,
    spacing_zyx_mm: tuple[float, float, float],
    kind: SphereKind = "solid",
    noise_hu: float = 15.0,
    *,
    oblique: bool = False,
) -> Sphere:
    """One sphere."""
    depth = int(np.ceil((diameter_mm + 2 * _ROOM_MM) / spacing_zyx_mm[0])) | 1
    width = int(np.ceil(_WIDTH_MM / spacing_zyx_mm[1])) | 1
    shape = (depth, width, width)
    direction = _turned(rng) if oblique else None
    grid = Grid.from_spacing(shape, spacing_zyx_mm, rng.uniform(-50, 50, 3), direction)
    center = grid.to_patient((np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 3))
    hu = np.full(shape, LUNG_HU)
    painted = hu.astype(np.int16)
    paint_nodule(_shape(center, diameter_mm, kind), grid, painted)
    noise = correlated_slices(rng, shape, (spacing_zyx_mm[1], spacing_zyx_mm[2]))
    noisy = np.stack([plane + noise_hu * unit for plane, unit in zip(painted, noise, strict=True)])
    x, y, z = (float(v) for v in center)
    volume = CtVolume(np.rint(noisy).astype(np.int16), grid)
    return Sphere(volume, (x, y, z), diameter_mm, kind, spacing_zyx_mm[0], oblique)


def _shape(center: NDArray[np.float64], diameter_mm: float, kind: SphereKind) -> NoduleShape:
    none = Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    hu = SOLID_HU if kind == "solid" else GROUND_GLASS_HU
    return NoduleShape(center, np.ones(3), np.zeros((0, 3)), 0.0, diameter_mm / 2, hu, None, none)


def _turned(rng: np.random.Generator) -> NDArray[np.float64]:
    """Directions of the array's axes, turned by up to 25 degrees about each axis."""
    turned = np.eye(3)[:, ::-1]
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-25, 25, 3))):
        first, second = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        turned = turn @ turned
    return np.asarray(turned)
