"""Whole scans with inserted nodules at their own resolution, for trying the complete service on known truth.

Nodules are inserted at 1 mm, where training inserts them; what they changed is then carried over to the scan's own
voxels, so that reading, lung mask, resampling and crops all see a scan as a scanner would have written it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.volume import CtVolume
from training.insertion import populate
from training.lung_background import Background
from training.nodule_bank import NoduleBank
from training.placement import InsertedNodule

MARGIN_MM = 6


@dataclass(frozen=True)
class TrueNodule:
    """An inserted nodule in patient space."""

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    kind: str
    site: str
    malignancy: float
    readers: int = 0


def inserted_scan(
    volume: CtVolume,
    background: Background,
    bank: NoduleBank,
    count: int,
    rng: np.random.Generator,
    *,
    own_size: bool = False,
) -> tuple[CtVolume, tuple[TrueNodule, ...]]:
    """A copy of the scan with up to ``count`` nodules of the bank, and where they are.

    Parameters
    ----------
    volume
        The scan as read.
    background
        The same scan as `training.lung_background` prepared it.
    own_size
        As `training.insertion.populate`.
    """
    changed, nodules = populate(background, bank, count, rng, own_size=own_size)
    difference = changed - background.hu
    hu = volume.hu.copy()
    for nodule in nodules:
        _carry_over(hu, volume, background, difference, nodule)
    truths = []
    for nodule in nodules:
        x, y, z = background.grid.to_patient(nodule.center_zyx)
        truths.append(
            TrueNodule(
                (float(x), float(y), float(z)),
                nodule.diameter_mm,
                nodule.kind,
                nodule.site,
                nodule.malignancy,
                nodule.readers,
            )
        )
    return CtVolume(hu, volume.grid, volume.identity), tuple(truths)


def _carry_over(
    hu: NDArray[np.int16],
    volume: CtVolume,
    background: Background,
    difference: NDArray[np.float32],
    nodule: InsertedNodule,
) -> None:
    """Add what one nodule changed to the scan's voxels around it, in place."""
    start = np.asarray(nodule.start_zyx) - MARGIN_MM
    stop = start + np.asarray(nodule.mask.shape) + 2 * MARGIN_MM
    ends = np.stack(np.meshgrid(*zip(start, stop, strict=True), indexing="ij"), axis=-1).reshape(-1, 3)
    index = volume.grid.to_index(background.grid.to_patient(ends))
    low = np.clip(np.floor(index.min(axis=0)), 0, volume.hu.shape).astype(int)
    high = np.clip(np.ceil(index.max(axis=0)) + 1, low, volume.hu.shape).astype(int)
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    voxels = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    there = background.grid.to_index(volume.grid.to_patient(voxels.reshape(-1, 3)))
    inside = ((there >= start) & (there <= stop)).all(axis=1)
    added = ndimage.map_coordinates(difference, there.T, order=1, mode="constant", cval=0.0)
    hu[cut] += np.rint(np.where(inside, added, 0.0)).astype(np.int16).reshape(hu[cut].shape)
