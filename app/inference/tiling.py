"""Cut a volume into cores with a halo, so that a fully convolutional network answers as it would on the whole.

Cores partition the volume. A tile is its core widened by the halo and clipped to the volume; what the network says
about the halo is dropped, because there it has not seen all that it would see in the whole. Tiles start at multiples
of the network's stride, so its output grid falls on the same voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class TilingSpec:
    """How a volume may be cut.

    Parameters
    ----------
    max_voxels
        Largest tile, halo included: what bounds the memory of one network pass.
    halo_voxels
        Context around a core; at least the network's receptive radius plus half of its largest box.
    multiple
        Tiles and cores start and end at multiples of this.
    """

    max_voxels: int
    halo_voxels: int
    multiple: int

    @property
    def halo(self) -> int:
        """The halo rounded up to the multiple."""
        return -(-self.halo_voxels // self.multiple) * self.multiple


@dataclass(frozen=True)
class Tile:
    """One pass of the network: half-open index ranges (z, y, x) in the whole volume."""

    start: Shape
    stop: Shape
    core_start: Shape
    core_stop: Shape
    whole: Shape
    """Shape of the volume that was cut."""

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """What to cut from the array."""
        z, y, x = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return z, y, x

    def owns(self, centers_zyx: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n, 3) continuous indices in the whole volume -> (n,) whether they lie in the core.

        Every point belongs to exactly one tile: cores meet half a voxel before their first voxel, and those at the
        border of the volume own all that lies beyond it.
        """
        low = np.where(np.equal(self.core_start, 0), -np.inf, np.asarray(self.core_start) - 0.5)
        high = np.where(np.equal(self.core_stop, self.whole), np.inf, np.asarray(self.core_stop) - 0.5)
        return np.asarray(((centers_zyx >= low) & (centers_zyx < high)).all(axis=1))


def tiles(shape_zyx: Shape, spec: TilingSpec) -> list[Tile]:
    """Cut a volume with the fewest voxels to compute; one tile when the whole fits.

    Parameters
    ----------
    shape_zyx
        Shape of the volume; each axis a multiple of ``spec.multiple``.
    spec
        Bounds.

    Raises
    ------
    ValueError
        If an axis is no multiple, or if not even the smallest core with its halo fits ``spec.max_voxels``.
    """
    if any(n % spec.multiple for n in shape_zyx):
        raise ValueError(f"shape_zyx {shape_zyx} must be multiples of {spec.multiple}")
    per_axis = [_ways_to_cut(n, spec) for n in shape_zyx]
    affordable = [ways for ways in product(*per_axis) if prod(way.largest for way in ways) <= spec.max_voxels]
    if not affordable:
        least = prod(min(way.largest for way in ways) for ways in per_axis)
        raise ValueError(f"max_voxels {spec.max_voxels} is below the smallest tile with its halo, {least} voxels")
    best = min(affordable, key=lambda ways: (prod(way.computed for way in ways), prod(len(way.cores) for way in ways)))
    return [_tile(shape_zyx, cores, spec.halo) for cores in product(*(way.cores for way in best))]


@dataclass(frozen=True)
class _Cut:
    """One way to cut one axis."""

    cores: tuple[tuple[int, int], ...]
    largest: int
    """Length of the longest tile, halo included."""
    computed: int
    """Sum of the lengths of all tiles."""


def _ways_to_cut(length: int, spec: TilingSpec) -> list[_Cut]:
    """From the whole axis to single blocks; a way that makes more tiles, but none smaller, is left out."""
    blocks = length // spec.multiple
    ways: list[_Cut] = []
    for count in range(1, blocks + 1):
        edges = [round(i * blocks / count) * spec.multiple for i in range(count + 1)]
        cores = tuple(pairwise(edges))
        lengths = [min(stop + spec.halo, length) - max(start - spec.halo, 0) for start, stop in cores]
        if not ways or max(lengths) < ways[-1].largest:
            ways.append(_Cut(cores, max(lengths), sum(lengths)))
    return ways


def _tile(shape: Shape, cores: tuple[tuple[int, int], ...], halo: int) -> Tile:
    (z0, z1), (y0, y1), (x0, x1) = cores
    core_start, core_stop = (z0, y0, x0), (z1, y1, x1)
    start = (max(z0 - halo, 0), max(y0 - halo, 0), max(x0 - halo, 0))
    stop = (min(z1 + halo, shape[0]), min(y1 + halo, shape[1]), min(x1 + halo, shape[2]))
    return Tile(start, stop, core_start, core_stop, shape)
