"""Two scans of one phantom patient: another breath, another place on the table, nodules that grew by a known factor.

What takes a point of the current scan to the prior one is known exactly, so is each nodule in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from app.imaging.alignment import Chest, coarse_chest
from app.imaging.lungs import segment_lungs
from app.imaging.volume import CtVolume, Grid
from app.phantom.chest import CENTER_MM, _add_noise, phantom_ct
from app.phantom.nodules import NoduleSpec, find_place, make_shape, paint_nodule
from app.phantom.vessels import lung_vessels

Points = NDArray[np.float64]
SHAPE, SPACING = (110, 150, 190), (2.7, 2.0, 2.0)


@dataclass(frozen=True)
class Motion:
    """From a point of the current scan to the same point of the prior one, patient LPS mm."""

    shift_mm: Points
    rotation: Points
    breath_mm: Points
    """How far the diaphragm, and with it less and less of the lung, moves along (x, y, z)."""
    waves: Points
    """(n, 7): wave vector per mm, phase, amplitude in mm."""

    def __call__(self, points: Points) -> Points:
        from_diaphragm = np.clip((110.0 - points[:, 2]) / 220.0, 0.0, 1.3)
        moved = points + self.breath_mm * (from_diaphragm**1.5)[:, None]
        for wave in self.waves:
            moved = moved + wave[4:] * np.sin(points @ wave[:3] + wave[3])[:, None]
        return (moved - CENTER_MM) @ self.rotation.T + CENTER_MM + self.shift_mm


STILL = Motion(np.zeros(3), np.eye(3), np.zeros(3), np.zeros((0, 7)))


def draw_motion(rng: np.random.Generator, breath_mm: float = 15.0) -> Motion:
    """As between two visits: some cm on the table, some degrees, a breath, and some mm from place to place."""
    x, y, z = np.radians(rng.uniform(-4.0, 4.0, 3))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation, _ = np.linalg.qr(np.eye(3) + cross)
    rotation *= np.sign(np.diag(rotation))
    waves = np.concatenate(
        [rng.normal(0, 1 / 45.0, (4, 3)), rng.uniform(0, 6.3, (4, 1)), rng.normal(0, 1.0, (4, 3))], axis=1
    )
    breath = breath_mm * rng.uniform(-1, 1) * np.array((0.1 * rng.normal(), -0.35, 1.0))
    return Motion(rng.uniform(-20.0, 20.0, 3), rotation, breath, waves)


@dataclass(frozen=True)
class PairedNodule:
    """One nodule; a diameter is None in the scan that does not have it."""

    current_lps_mm: Points
    prior_lps_mm: Points
    current_mm: float | None
    prior_mm: float | None


@dataclass(frozen=True)
class PhantomPair:
    current: CtVolume
    prior: CtVolume
    motion: Motion
    nodules: tuple[PairedNodule, ...]

    def chests(self) -> tuple[Chest, Chest]:
        current, prior = (coarse_chest(volume, segment_lungs(volume)) for volume in (self.current, self.prior))
        return current, prior


def phantom_grid(shape_zyx=SHAPE, spacing_zyx_mm=SPACING, direction_lps_zyx=None, center_mm=CENTER_MM) -> Grid:
    """A grid with the phantom's middle in its own: the frame of the phantom is then the patient's."""
    direction = np.eye(3)[:, ::-1] if direction_lps_zyx is None else np.asarray(direction_lps_zyx)
    half = direction * np.asarray(spacing_zyx_mm) @ ((np.asarray(shape_zyx) - 1) / 2.0)
    return Grid.from_spacing(shape_zyx, spacing_zyx_mm, np.asarray(center_mm) - half, direction)


def phantom_pair(
    seed: int,
    diameters_mm: Sequence[tuple[float | None, float | None]] = (),
    *,
    motion: Motion | None = None,
    current_grid: Grid | None = None,
    prior_grid: Grid | None = None,
    noise_hu: float = 30.0,
) -> PhantomPair:
    """``diameters_mm`` are (prior, current) for each nodule; the chest is as wide as the default grid."""
    rng = np.random.default_rng([seed, 77])
    motion = draw_motion(rng) if motion is None else motion
    base, clean = phantom_grid(), _clean_phantom(seed)
    prior = warped(clean, prior_grid or base, STILL)
    current = warped(clean, current_grid or base, motion)
    nodules = _place(rng, seed, diameters_mm, motion, base)
    for number, nodule in enumerate(nodules):
        for volume, place, diameter in (
            (prior, nodule.prior_lps_mm, nodule.prior_mm), (current, nodule.current_lps_mm, nodule.current_mm),
        ):  # fmt: skip
            if diameter is not None:
                shape = make_shape(np.random.default_rng([seed, number]), NoduleSpec(diameter), place)
                paint_nodule(shape, volume.grid, volume.hu)
    for volume in (prior, current):
        _add_noise(rng, volume.hu, volume.grid, noise_hu)
    return PhantomPair(current, prior, motion, nodules)


@lru_cache(maxsize=2)
def _clean_phantom(seed: int) -> CtVolume:
    """Without nodules and noise; not to be written to."""
    grid = phantom_grid()
    return phantom_ct(
        shape_zyx=grid.shape_zyx, spacing_zyx_mm=grid.spacing_zyx_mm, origin_lps_mm=grid.origin_lps_mm,
        nodules=(), noise_hu=0.0, seed=seed,
    ).volume  # fmt: skip


def _place(rng, seed, diameters_mm, motion: Motion, grid: Grid) -> tuple[PairedNodule, ...]:
    """Places are found in the prior; the current one is where the motion takes to it."""
    vessels, _, _ = lung_vessels(np.random.default_rng([seed, 0]))
    taken, nodules = np.zeros((0, 4)), []
    for before, after in diameters_mm:
        widest = max(before or 0.0, after or 0.0)
        place = find_place(rng, NoduleSpec(widest), vessels, taken, grid)
        taken = np.concatenate([taken, [[*place, widest / 2 + 4.0]]])
        nodules.append(PairedNodule(inverse(motion, place), place, after, before))
    return tuple(nodules)


def inverse(motion: Motion, place: Points) -> Points:
    """The point that the motion takes to a place."""
    found = np.atleast_2d(place).astype(float)
    for _ in range(60):
        found = found - (motion(found) - place) @ motion.rotation
    return np.asarray(found[0])


def warped(volume: CtVolume, grid: Grid, motion: Callable[[Points], Points], beyond: str = "constant") -> CtVolume:
    """A slice of the new grid at a time; beyond the source is air, or with ``nearest`` its edge."""
    hu = np.empty(grid.shape_zyx, np.int16)
    plane = np.argwhere(np.ones(grid.shape_zyx[1:], bool))
    source = volume.hu.astype(np.float32)
    for z in range(grid.shape_zyx[0]):
        points = grid.to_patient(np.column_stack([np.full(len(plane), z), plane]))
        index = volume.grid.to_index(motion(points))
        values = map_coordinates(source, index.T, order=1, mode=beyond, cval=-1000.0)
        hu[z] = np.rint(values).reshape(grid.shape_zyx[1:])
    return CtVolume(hu, grid)
