"""Tissue for a nodule of which only the shape is known, by the readers' ratings.

Solid, part-solid and ground glass interiors, blurred or sharp margins, spicules and calcium in the patterns that LIDC's
ratings name. Values are the field's usual ranges: soft tissue 0..60 HU, ground glass -700..-450, calcium above 200.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.nodule_blocks import BLOCK_SPACING_MM, Kind, nodule_kind

Block = NDArray[np.float32]
SOFT_TISSUE_HU = (5.0, 60.0)
GROUND_GLASS_HU = (-700.0, -450.0)
CALCIUM_HU = (250.0, 900.0)
POPCORN, LAMINATED, SOLID, NON_CENTRAL, CENTRAL = 1, 2, 3, 4, 5
"""LIDC's calcification ratings; 6 is none."""


@dataclass(frozen=True)
class Appearance:
    """LIDC's mean ratings that decide how a nodule looks; each 1 to 5, calcification 1 to 6."""

    texture: float = 5.0
    calcification: float = 6.0
    spiculation: float = 1.0
    margin: float = 5.0

    @property
    def kind(self) -> Kind:
        """Kind of nodule that the ratings describe."""
        return nodule_kind(self.texture, self.calcification)


def paint_texture(distance_mm: Block, look: Appearance, lung_hu: float, rng: np.random.Generator) -> Block:
    """HU of a block around an outline.

    Parameters
    ----------
    distance_mm
        (z, y, x) signed distance to the outline on `BLOCK_SPACING_MM`, negative inside.
    lung_hu
        Value of the lung around it.

    Returns
    -------
    numpy.ndarray
        float32 (z, y, x) in HU, without noise.
    """
    edge = BLOCK_SPACING_MM * (0.5 + 0.5 * max(0.0, 5.0 - look.margin))
    wavy = distance_mm + _smooth_noise(distance_mm.shape, 1.5, rng) * np.float32(0.3)
    body = np.clip(0.5 - wavy / (2.0 * edge), 0.0, 1.0)
    hu = lung_hu + body * (_interior(distance_mm, look, rng) - lung_hu)
    if look.spiculation >= 2.5:
        tissue = float(rng.uniform(-300.0, 0.0))
        hu = np.maximum(hu, lung_hu + _spicules(distance_mm, look.spiculation, rng) * (tissue - lung_hu))
    return np.asarray(ndimage.gaussian_filter(hu, 0.5), dtype=np.float32)


def _interior(distance_mm: Block, look: Appearance, rng: np.random.Generator) -> Block:
    soft = float(rng.uniform(*SOFT_TISSUE_HU))
    depth = -distance_mm / max(float(-distance_mm.min()), BLOCK_SPACING_MM)
    if look.kind == "calcified":
        calcium = _calcium(depth, round(look.calcification), rng)
        return np.asarray(soft + calcium * (rng.uniform(*CALCIUM_HU) - soft), dtype=np.float32)
    glass = rng.uniform(*GROUND_GLASS_HU) + 60.0 * _smooth_noise(depth.shape, 1.6, rng)
    if look.kind == "ground-glass":
        return np.asarray(glass, dtype=np.float32)
    if look.kind == "solid":
        return np.asarray(soft + 12.0 * _smooth_noise(depth.shape, 2.0, rng), dtype=np.float32)
    # the solid part of a part-solid nodule grows with the texture rating
    threshold = np.clip(0.65 - 0.25 * (look.texture - 2.5), 0.2, 0.65) + 0.12 * _smooth_noise(depth.shape, 1.8, rng)
    core = np.clip((depth - threshold) / 0.15, 0.0, 1.0)
    return np.asarray(glass + core * (soft - glass), dtype=np.float32)


def _calcium(depth: Block, pattern: int, rng: np.random.Generator) -> Block:
    """Share of calcium 0..1 by pattern; ``depth`` is 0 at the outline and 1 in the middle."""
    blobs = _smooth_noise(depth.shape, 1.2, rng)
    if pattern == POPCORN:
        field = blobs - 0.4
    elif pattern == LAMINATED:
        field = np.cos(depth * 4 * np.pi) - 0.2
    elif pattern == SOLID:
        field = np.ones_like(depth)
    elif pattern == NON_CENTRAL:
        field = blobs - 0.6 + 0.5 * (depth < 0.6)
    else:
        field = depth - 0.55
    return np.asarray(np.clip(field / 0.25, 0.0, 1.0), dtype=np.float32)


def _spicules(distance_mm: Block, rating: float, rng: np.random.Generator) -> Block:
    """Thin tapering strands from the surface outwards, more and longer ones for a higher rating; 0..1."""
    middle = (np.asarray(distance_mm.shape, dtype=np.float64) - 1) / 2
    axes = [(np.arange(n) - c) * BLOCK_SPACING_MM for n, c in zip(distance_mm.shape, middle, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
    share = np.zeros(distance_mm.shape, np.float32)
    for _ in range(int(rng.integers(4, 8) * (rating - 1.0))):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        length, radius = rng.uniform(2.0, 2.0 + rating), rng.uniform(0.35, 0.8)
        along = points @ direction.astype(np.float32)
        across = np.linalg.norm(points - along[..., None] * direction.astype(np.float32), axis=-1)
        # a strand ends where it is `length` away from the surface, and thins out towards there
        taper = np.clip(1.0 - np.maximum(distance_mm, 0.0) / length, 0.0, 1.0)
        strand = np.clip(0.5 + (radius * taper - across) / BLOCK_SPACING_MM, 0.0, 1.0) * (along > 0)
        share = np.maximum(share, strand * (taper > 0))
    # inside, the interior's own texture shows
    return np.asarray(share * np.clip(distance_mm / BLOCK_SPACING_MM + 1.5, 0.0, 1.0), dtype=np.float32)


def _smooth_noise(shape: tuple[int, ...], grain_mm: float, rng: np.random.Generator) -> Block:
    """Gaussian field of unit spread."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), grain_mm / BLOCK_SPACING_MM)
    return np.asarray(field / max(float(field.std()), 1e-6), dtype=np.float32)
