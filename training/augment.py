"""Random changes of CT blocks that stand for other scanners: kernel, dose, slice thickness, density, pose, shape.

Each function takes a float32 block (z, y, x) in HU at isotropic 1 mm, a random generator and a strength (0 changes
nothing, 1 is the full range met in LIDC) and returns a new block. `vary_scanner` chains those that leave every voxel
where it is; `turned` and `warped` move voxels and take masks along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Block = NDArray[np.float32]
Effect = Callable[[Block, np.random.Generator, float], Block]

AIR_HU = -1024.0
LUNG_RANGE_HU = (-1000.0, -500.0)


def change_kernel(hu: Block, rng: np.random.Generator, strength: float = 1.0) -> Block:
    """Sharpen (edge-enhancing kernel) or blur (soft kernel) in-plane."""
    amount = rng.uniform(-1.0, 1.0) * strength
    if amount < 0:
        sigma = 0.8 * -amount
        return np.asarray(ndimage.gaussian_filter(hu, (0.0, sigma, sigma)), dtype=np.float32)
    blurred = ndimage.gaussian_filter(hu, (0.0, 0.8, 0.8))
    return np.asarray(hu + np.float32(0.8 * amount) * (hu - blurred), dtype=np.float32)


def lower_dose(hu: Block, rng: np.random.Generator, strength: float = 1.0) -> Block:
    """Add noise of up to 60 HU: correlated as filtered back projection leaves it, streaky along a random direction."""
    std = 60.0 * strength * rng.random() ** 2
    if std < 1.0:
        return hu.copy()
    grain = rng.uniform(0.3, 0.9)
    white = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(white, (rng.uniform(0.3, 1.0), grain, grain))
    return np.asarray(hu + noise * np.float32(std / max(float(noise.std()), 1e-6)), dtype=np.float32)


def thicken_slices(hu: Block, rng: np.random.Generator, strength: float = 1.0) -> Block:
    """What slices of 2 to 5 mm leave of the block after linear interpolation back to 1 mm."""
    thickness = 1.0 + rng.uniform(1.0, 4.0) * strength
    return thick_slices(hu, thickness, float(rng.uniform(0.0, thickness)))


def thick_slices(hu: Block, thickness_mm: float, first_mm: float = 0.0) -> Block:
    """Average over contiguous slices of one thickness and interpolate linearly back to 1 mm.

    Parameters
    ----------
    thickness_mm
        Thickness and spacing of the slices.
    first_mm
        Position of the first slice's centre along z.
    """
    depth = len(hu)
    centers = np.arange(first_mm - thickness_mm, depth + thickness_mm, thickness_mm)
    low, high = centers - thickness_mm / 2, centers + thickness_mm / 2
    voxels = np.arange(depth)
    cover = np.minimum(high[:, None], voxels + 0.5) - np.maximum(low[:, None], voxels - 0.5)
    cover = np.maximum(cover, 0.0)
    held = cover.sum(axis=1)
    centers, cover = centers[held > 0], cover[held > 0] / held[held > 0, None]
    position = np.clip((voxels - centers[0]) / thickness_mm, 0.0, len(centers) - 1)
    lower = np.minimum(position.astype(int), max(len(centers) - 2, 0))
    weights = np.zeros((depth, len(centers)))
    weights[voxels, lower] += 1.0 - (position - lower)
    weights[voxels, np.minimum(lower + 1, len(centers) - 1)] += position - lower
    back = (weights @ cover).astype(np.float32)
    return np.asarray((back @ hu.reshape(depth, -1)).reshape(hu.shape), dtype=np.float32)


def shift_density(hu: Block, rng: np.random.Generator, strength: float = 1.0) -> Block:
    """Lung density of another breath or of emphysema: scale what lies above air, most in lung, little in tissue."""
    offset = rng.uniform(-60.0, 90.0) * strength
    low, high = LUNG_RANGE_HU
    weight = np.clip((0.0 - hu) / (0.0 - high), 0.0, 1.0) * np.clip((hu - low + 100.0) / 100.0, 0.0, 1.0)
    calibration = rng.normal(0.0, 8.0) * strength
    return np.asarray(np.maximum(hu + weight * np.float32(offset) + np.float32(calibration), AIR_HU), dtype=np.float32)


SCANNER_EFFECTS: tuple[tuple[Effect, float], ...] = (
    (shift_density, 0.5),
    (thicken_slices, 0.3),
    (change_kernel, 0.5),
    (lower_dose, 0.4),
)
"""Effects in the order of physics, each with the share of blocks it touches."""


def vary_scanner(
    hu: Block,
    rng: np.random.Generator,
    strength: float = 1.0,
    effects: Sequence[tuple[Effect, float]] = SCANNER_EFFECTS,
) -> Block:
    """Make the block look as if another scanner had taken it; every structure stays where it is."""
    for effect, share in effects:
        if rng.random() < share:
            hu = effect(hu, rng, strength)
    return hu


def turned(
    arrays: Sequence[NDArray[np.generic]],
    centers_zyx: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    swap_axes: bool = False,
) -> tuple[list[NDArray[np.generic]], NDArray[np.float64]]:
    """Mirror blocks of one cubic shape, and with ``swap_axes`` permute their axes, together with points in them.

    Parameters
    ----------
    centers_zyx
        (n, 3) voxel coordinates.
    """
    order = list(list(permutations(range(3)))[int(rng.integers(6))]) if swap_axes else [0, 1, 2]
    flips = [bool(f) for f in rng.integers(0, 2, 3)]
    cut = tuple(slice(None, None, -1 if f else 1) for f in flips)
    moved = [np.ascontiguousarray(a.transpose(order)[cut]) for a in arrays]
    points = np.asarray(centers_zyx, dtype=np.float64).reshape(-1, 3)[:, order]
    last = np.asarray(moved[0].shape) - 1
    return moved, np.where(flips, last - points, points)


def warped(
    hu: Block,
    mask: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    strength: float = 1.0,
    *,
    knot_spacing: int = 32,
) -> tuple[Block, NDArray[np.bool_] | None]:
    """Smooth random deformation of up to about 3 mm; distances of a nodule's size hardly change.

    Parameters
    ----------
    mask
        Moved along with the block, nearest voxel.
    knot_spacing
        Voxels between the random displacements.
    """
    knots = tuple(max(2, n // knot_spacing + 2) for n in hu.shape)
    coordinates = list(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in hu.shape), indexing="ij"))
    for axis in range(3):
        coarse = rng.uniform(-3.0, 3.0, knots).astype(np.float32) * np.float32(strength)
        factors = [n / k for n, k in zip(hu.shape, knots, strict=True)]
        fine = ndimage.zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
        coordinates[axis] = coordinates[axis] + fine
    moved = ndimage.map_coordinates(hu, coordinates, order=1, mode="nearest")
    if mask is None:
        return np.asarray(moved, dtype=np.float32), None
    return np.asarray(moved, dtype=np.float32), np.asarray(
        ndimage.map_coordinates(mask.astype(np.float32), coordinates, order=1, mode="nearest") >= 0.5
    )
