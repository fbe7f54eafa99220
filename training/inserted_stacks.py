"""Slices through and beyond inserted nodules, with their masks: what teaches an outline where to end.

The real stacks stop where the nodule stops; only inserted nodules have lung above and below them, where the mask must
be empty although a vessel may run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocessing import CropSpec, sample_crops
from app.imaging.volume import CtVolume, Grid
from training.crops import CACHE_SIZE_PX
from training.insertion import MIN_VISIBLE_SHARE, insert
from training.lung_background import Background
from training.nodule_bank import NoduleBank
from training.placement import choose_site, draw_diameter_mm, draw_site

HALF_BOX_MM = 36
"""Lung around the nodule: more than a crop and its random shift reach."""
BEYOND_MM = 6
"""Slices kept above and below the nodule."""


@dataclass(frozen=True)
class InsertedStacks:
    """Axial crops 1 mm apart.

    Parameters
    ----------
    crops, mask
        uint8 (m, CACHE_SIZE_PX, CACHE_SIZE_PX): network units times 255; 255 inside the nodule.
    first_slice, slice_count
        (n,) rows of the slices of each nodule.
    """

    crops: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    first_slice: NDArray[np.int64]
    slice_count: NDArray[np.int64]


def make_inserted_stacks(
    backgrounds: Sequence[Background], bank: NoduleBank, spec: CropSpec, count: int, seed: int
) -> InsertedStacks:
    """``count`` nodules, each alone in a lung; the same for the same seed."""
    crops: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.uint8]] = []
    counts: list[int] = []
    number = 0
    while len(counts) < count:
        rng = np.random.default_rng((seed, number))
        number += 1
        made = _one_stack(backgrounds[int(rng.integers(len(backgrounds)))], bank, spec, rng)
        if made is not None:
            crops.append(made[0])
            masks.append(made[1])
            counts.append(len(made[0]))
    slice_count = np.asarray(counts, dtype=np.int64)
    return InsertedStacks(
        np.concatenate(crops), np.concatenate(masks), np.concatenate([[0], np.cumsum(slice_count)[:-1]]), slice_count
    )


def _one_stack(
    background: Background, bank: NoduleBank, spec: CropSpec, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    diameter = draw_diameter_mm(rng)
    site = draw_site(rng, diameter)
    drawn = bank.pick(diameter, rng, at_wall=site == "pleura")
    center = choose_site(background, diameter, (), rng, site=site, nodule=drawn)
    if center is None:
        return None
    low_zyx = np.maximum(np.asarray(center) - HALF_BOX_MM, 0)
    cut = tuple(slice(int(a), int(c) + HALF_BOX_MM + 1) for a, c in zip(low_zyx, center, strict=True))
    hu = background.hu[cut].astype(np.float32)
    nodule = insert(
        hu,
        drawn,
        np.asarray(center) - low_zyx,
        rng,
        diameter_mm=diameter,
        wall_direction_zyx=background.wall_direction(center) if site == "pleura" else None,
        noise=background.noise,
        slice_spacing_mm=background.slice_spacing_mm,
        in_lungs=background.in_lungs[cut],
        site=site,
    )
    if not nodule.mask.any() or nodule.visible_share < MIN_VISIBLE_SHARE:
        return None
    inside = np.zeros(hu.shape, np.int16)
    z, y, x = nodule.start_zyx
    depth, height, width = nodule.mask.shape
    inside[z : z + depth, y : y + height, x : x + width] = nodule.mask * np.int16(100)
    occupied = np.flatnonzero(inside.any(axis=(1, 2)))
    low, high = max(occupied[0] - BEYOND_MM, 0), min(occupied[-1] + BEYOND_MM + 1, len(hu))
    grid = Grid.from_spacing((hu.shape[0], hu.shape[1], hu.shape[2]))
    wide = spec.model_copy(update={"size_px": CACHE_SIZE_PX})
    offsets = tuple(float(n) - nodule.center_zyx[0] for n in range(low, high))
    middle_lps_mm = grid.to_patient(nodule.center_zyx)[None]
    volume = CtVolume(np.rint(hu).astype(np.int16), grid)
    crops = sample_crops(volume, middle_lps_mm, wide, slice_offsets_mm=offsets)[0]
    binary = wide.model_copy(update={"window_hu": (0.0, 100.0)})
    mask = sample_crops(CtVolume(inside, grid), middle_lps_mm, binary, slice_offsets_mm=offsets)[0]
    return np.rint(crops * 255).astype(np.uint8), np.rint(mask * 255).astype(np.uint8)
