"""Nodules with a known place, size and kind, and where in a lung they may lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from app.imaging.volume import Grid
from app.phantom.anatomy import HILUM_MM, lung_depth
from app.phantom.painting import PSF_SIGMA_MM
from app.phantom.vessels import Tubes, random_points_in_lung

Kind = Literal["solid", "part-solid", "ground-glass"]
Margin = Literal["smooth", "lobulated", "spiculated"]
Site = Literal["free", "juxtapleural", "vascular"]

_SUBVOXEL_MM = 0.45
_CANDIDATES = 600
_AWAY_FROM_HILUM_MM = 42.0
_HAZE_SIGMA_MM = 0.9
_CORE_SHARE = 0.5
"""Diameter of a part-solid nodule's core, as a share of the whole."""


@dataclass(frozen=True)
class NoduleSpec:
    """A nodule to be put into a phantom; what is None is drawn at random."""

    diameter_mm: float = 8.0
    kind: Kind = "solid"
    margin: Margin = "smooth"
    site: Site = "free"
    center_lps_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not 1.0 <= self.diameter_mm <= 60.0:
            raise ValueError(f"diameter_mm must lie in 1..60, got {self.diameter_mm}")


@dataclass(frozen=True)
class TrueNodule:
    """What is known of a nodule of a phantom.

    Parameters
    ----------
    center_lps_mm
        Centre of the body without spicules, patient LPS mm (x, y, z).
    diameter_mm
        Of the sphere of the same volume.
    volume_mm3
        Of the body without spicules; of a part-solid nodule the whole, core and halo.
    """

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    kind: Kind
    volume_mm3: float
    margin: Margin = "smooth"
    site: Site = "free"


@dataclass(frozen=True)
class NoduleShape:
    """Star-shaped body about a centre in patient mm: radius as a function of direction, plus spicules."""

    center_mm: NDArray[np.float64]
    stretch: NDArray[np.float64]
    lobes: NDArray[np.float64]
    lobe_height: float
    scale_mm: float
    hu: float
    core_hu: float | None
    spicules: Tubes

    @property
    def is_hazy(self) -> bool:
        """Ground glass, with or without a core."""
        return self.hu < -300.0

    @property
    def reach_mm(self) -> float:
        """No part of the body is farther from the centre."""
        return self.scale_mm * float(self.stretch.max()) * (1.0 + 1.5 * self.lobe_height)

    def level(self, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 3) points -> distance from the centre as a share of the radius in that direction."""
        away = (points_mm - self.center_mm.astype(np.float32)) / self.stretch.astype(np.float32)
        distance = np.sqrt(np.einsum("ni,ni->n", away, away)) + np.float32(1e-6)
        radius = self.scale_mm * _relative_radius(away / distance[:, None], self.lobes, self.lobe_height)
        return np.asarray(distance / radius, dtype=np.float32)


def draw_specs(rng: np.random.Generator, count: int) -> tuple[NoduleSpec, ...]:
    """A mixed set of nodules; the first is always solid and easy to see."""
    specs = [NoduleSpec(12.0, "solid", "lobulated", "free")][:count]
    while len(specs) < count:
        specs.append(
            NoduleSpec(
                diameter_mm=round(float(np.exp(rng.uniform(np.log(5.0), np.log(18.0)))), 1),
                kind=rng.choice(np.array(["solid", "part-solid", "ground-glass"]), p=[0.7, 0.15, 0.15]).item(),
                margin=rng.choice(np.array(["smooth", "lobulated", "spiculated"]), p=[0.4, 0.35, 0.25]).item(),
                site=rng.choice(np.array(["free", "juxtapleural", "vascular"]), p=[0.6, 0.2, 0.2]).item(),
            )
        )
    return tuple(specs)


def make_shape(rng: np.random.Generator, spec: NoduleSpec, center_mm: ArrayLike) -> NoduleShape:
    """The body of a nodule, scaled so that its volume is that of a sphere of ``spec.diameter_mm``."""
    center = np.asarray(center_mm, dtype=np.float64)
    stretch = np.exp(rng.uniform(-0.12, 0.12, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    height = {"smooth": 0.05, "lobulated": 0.28, "spiculated": 0.22}[spec.margin]
    lobes = _directions(rng, 5)
    unit_volume = float(np.mean(_relative_radius(_sphere_points(), lobes, height) ** 3))
    radius = spec.diameter_mm / 2.0
    hu = float(rng.uniform(20.0, 60.0)) if spec.kind == "solid" else float(rng.uniform(-650.0, -450.0))
    return NoduleShape(
        center_mm=center,
        stretch=stretch,
        lobes=lobes,
        lobe_height=height,
        scale_mm=radius / unit_volume ** (1 / 3),
        hu=hu,
        core_hu=float(rng.uniform(0.0, 40.0)) if spec.kind == "part-solid" else None,
        spicules=_spicules(rng, center, radius) if spec.margin == "spiculated" else _no_tubes(),
    )


def find_place(
    rng: np.random.Generator,
    spec: NoduleSpec,
    vessels: Tubes,
    taken_mm: NDArray[np.float64],
    grid: Grid,
) -> NDArray[np.float64]:
    """A centre in patient mm for the nodule, inside ``grid`` and clear of the hilum and of ``taken_mm`` (n, 4).

    The fourth column of ``taken_mm`` is the radius of the nodule that is there already.

    Raises
    ------
    ValueError
        If nothing of the lungs that lies in the grid has room for it.
    """
    radius = spec.diameter_mm / 2.0
    points = _candidates(rng, spec, vessels)
    index = grid.to_index(points)
    margin = (radius + 2.0) / grid.spacing_zyx_mm
    fits = ((index >= margin) & (index <= np.asarray(grid.shape_zyx) - 1 - margin)).all(axis=1)
    for hilum in HILUM_MM.values():
        fits &= np.linalg.norm(points - np.array(hilum), axis=1) > _AWAY_FROM_HILUM_MM + radius
    for x, y, z, other in taken_mm:
        fits &= np.linalg.norm(points - (x, y, z), axis=1) > radius + other + 15.0
    if spec.site != "vascular":
        wide = vessels.radii_mm > 1.2
        walls = vessels.points_mm[wide][::2]
        widths = vessels.radii_mm[wide][::2]
        for n in np.flatnonzero(fits):
            if (np.linalg.norm(walls - points[n], axis=1) - widths > radius + 1.0).all():
                return np.asarray(points[n])
    elif fits.any():
        return np.asarray(points[np.flatnonzero(fits)[0]])
    raise ValueError(
        f"no room for a {spec.site} nodule of {spec.diameter_mm} mm: the grid shows too little lung or too many "
        "nodules were asked for; enlarge the grid, ask for fewer, or give center_lps_mm"
    )


def paint_nodule(shape: NoduleShape, grid: Grid, hu: NDArray[np.int16]) -> None:
    """Blend a nodule into noise-free HU (z, y, x) in place, with partial volume and point spread.

    Ground glass lifts the lung to its own HU and leaves the vessels in it visible.
    """
    reach = (shape.reach_mm + 3.0 * _HAZE_SIGMA_MM) / grid.spacing_zyx_mm + 1.0
    centre = grid.to_index(shape.center_mm)
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, grid.shape_zyx).astype(int)
    if (high <= low).any():
        return
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    body, core = _filled(shape, grid, low, high - low)
    before = hu[box].astype(np.float32)
    if shape.is_hazy:
        after = before + body * np.maximum(shape.hu + _haze_hu(shape, grid, low, high) - before, 0.0)
    else:
        after = before + body * (shape.hu - before)
    if shape.core_hu is not None:
        after += core * np.maximum(shape.core_hu - after, 0.0)
    hu[box] = np.rint(after).astype(np.int16)


def _filled(
    shape: NoduleShape, grid: Grid, start: NDArray[np.int_], size: NDArray[np.int_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Share of each voxel of a box that the body and its core fill, after the point spread."""
    subvoxel = max(_SUBVOXEL_MM, shape.scale_mm / 10.0)
    fine = np.maximum(2, np.ceil(grid.spacing_zyx_mm / subvoxel)).astype(int)
    places = [start[a] + (np.arange(size[a] * fine[a]) + 0.5) / fine[a] - 0.5 for a in range(3)]
    z, y, x = (place[:, None] * grid.affine[:3, axis] for axis, place in enumerate(places))
    points = z[:, None, None] + y[:, None] + x + grid.origin_lps_mm
    level = shape.level(points.reshape(-1, 3).astype(np.float32)).reshape(points.shape[:3])
    blocks = [n for pair in zip(size, fine, strict=True) for n in pair]

    def seen(inside: NDArray[np.bool_], sigma_mm: float) -> NDArray[np.float32]:
        sigma = sigma_mm * fine / grid.spacing_zyx_mm
        blurred = gaussian_filter(inside.astype(np.float32), sigma, mode="constant", truncate=3.0)
        return np.asarray(blurred.reshape(blocks).mean(axis=(1, 3, 5)), dtype=np.float32)

    # Haze has no sharp border.
    body = seen(level < 1.0, _HAZE_SIGMA_MM if shape.is_hazy else PSF_SIGMA_MM)
    return body, seen(level < _CORE_SHARE, PSF_SIGMA_MM) if shape.core_hu is not None else body


def _haze_hu(shape: NoduleShape, grid: Grid, low: NDArray[np.int_], high: NDArray[np.int_]) -> NDArray[np.float32]:
    """HU by which ground glass varies from place to place, over some millimetres."""
    z, y, x = (
        np.arange(a, b)[:, None] * grid.affine[:3, axis] for axis, (a, b) in enumerate(zip(low, high, strict=True))
    )
    points = z[:, None, None] + y[:, None] + x + grid.origin_lps_mm - shape.center_mm
    waves = [np.sin((points * lobe).sum(axis=-1) * (0.7 + 0.25 * n)) for n, lobe in enumerate(shape.lobes)]
    return np.asarray(25.0 * sum(waves, np.zeros(points.shape[:3])), dtype=np.float32)


def _candidates(rng: np.random.Generator, spec: NoduleSpec, vessels: Tubes) -> NDArray[np.float64]:
    radius = spec.diameter_mm / 2.0
    if spec.site == "vascular":
        carrier = np.flatnonzero((vessels.radii_mm > 0.9) & (vessels.radii_mm < 2.2))
        chosen = rng.choice(carrier, size=_CANDIDATES)
        sideways = np.cross(vessels.tangents[chosen], _directions(rng, _CANDIDATES))
        sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
        points = vessels.points_mm[chosen] + sideways * 0.85 * radius
        return np.asarray(points[lung_depth(points) > radius + 2.0])
    depth = radius + 4.0 if spec.site == "free" else 0.7 * radius
    both = [
        random_points_in_lung(rng, _CANDIDATES * (8 if spec.site != "free" else 1), side, depth) for side in (-1, 1)
    ]
    points = rng.permutation(np.concatenate(both))
    if spec.site == "juxtapleural":
        # On the rib cage, not on the diaphragm or the mediastinum.
        outside = (np.hypot(points[:, 0] / 140.0, points[:, 1] / 96.0) > 0.6) & (np.abs(points[:, 0]) > 55.0)
        points = points[(lung_depth(points) < 0.95 * radius) & outside & (points[:, 2] > -60.0)]
    return np.asarray(points)


def _relative_radius(
    directions: NDArray[np.floating], lobes: NDArray[np.float64], height: float
) -> NDArray[np.floating]:
    x, y, z = directions.T
    # One lobe at a time: a matrix product would wake every thread of the library for a few columns.
    bumps = [np.exp(5.0 * (x * a + y * b + z * c - 1.0)) for a, b, c in lobes.tolist()]
    return np.asarray(1.0 + height * (sum(bumps, np.zeros_like(x)) - 0.5))


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    vectors = rng.standard_normal((count, 3))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _sphere_points() -> NDArray[np.float64]:
    """Evenly spread directions (Fibonacci lattice)."""
    n = np.arange(4000) + 0.5
    z, turn = 1.0 - 2.0 * n / 4000, np.pi * (1.0 + 5.0**0.5) * n
    ring = np.sqrt(1.0 - z * z)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)


def _spicules(rng: np.random.Generator, center: NDArray[np.float64], radius: float) -> Tubes:
    directions = np.repeat(_directions(rng, 16), 24, axis=0)
    place = np.tile(np.linspace(0.0, 1.0, 24), 16)
    length = np.repeat(rng.uniform(0.5, 1.2, 16), 24) * max(radius, 3.0)
    points = center + directions * (0.9 * radius + place * length)[:, None]
    return Tubes(points, directions, (0.65 - 0.45 * place) * min(1.0, radius / 4.0))


def _no_tubes() -> Tubes:
    return Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
