"""Where in a lung a nodule goes: how large, at what, clear of the scan's own findings and of other nodules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.lung_background import Background
from training.nodule_blocks import Kind, Nodule

Site = Literal["free", "vessel", "pleura"]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Start and stop index (z, y, x)."""

SITE_SHARES: dict[Site, float] = {"free": 0.42, "vessel": 0.33, "pleura": 0.25}
MIN_PLEURAL_MM = 4.5
GAP_MM = 4.0
"""At least this much lung between two inserted nodules."""


@dataclass(frozen=True, eq=False)
class InsertedNodule:
    """What was put where.

    Parameters
    ----------
    center_zyx
        Centroid of the nodule's mask in voxels of the array it was put into; may lie outside it.
    diameter_mm
        Diameter of the sphere with the volume of the nodule inside the lung, whole even when the array cuts it.
    kind
        Kind of nodule.
    mask
        bool block (z, y, x) of the nodule; voxel (0, 0, 0) lies at ``start_zyx`` of the array. Clipped to the array.
    start_zyx
        First voxel of ``mask``.
    patient_id
        Whose nodule it is.
    site
        What it sits at.
    malignancy
        Mean rating of its readers; NaN for synthetic ones.
    contrast_hu
        Mean rise of HU within the mask: how visible it is.
    readers
        How many readers outlined it where it comes from.
    visible_share
        What it adds to this lung over what it would add to clear lung, summed over the nodule: near 0 where a wall or a
        hilar vessel swallows it.
    """

    center_zyx: tuple[float, float, float]
    diameter_mm: float
    kind: Kind
    mask: NDArray[np.bool_]
    start_zyx: tuple[int, int, int]
    patient_id: str = ""
    site: Site = "free"
    malignancy: float = float("nan")
    contrast_hu: float = 0.0
    readers: int = 0
    visible_share: float = 1.0

    def moved(self, by_zyx: ArrayLike) -> InsertedNodule:
        """The same nodule in an array whose voxel (0, 0, 0) lies at ``-by_zyx`` of this one."""
        z, y, x = (int(v) for v in np.asarray(by_zyx))
        center, start = self.center_zyx, self.start_zyx
        return replace(
            self,
            center_zyx=(center[0] + z, center[1] + y, center[2] + x),
            start_zyx=(start[0] + z, start[1] + y, start[2] + x),
        )

    def mask_in(self, shape_zyx: tuple[int, int, int]) -> NDArray[np.bool_]:
        """The mask painted into an array of the host's shape."""
        whole = np.zeros(shape_zyx, bool)
        whole[tuple(slice(s, s + n) for s, n in zip(self.start_zyx, self.mask.shape, strict=True))] = self.mask
        return whole


def draw_diameter_mm(rng: np.random.Generator) -> float:
    """Diameter to aim at, 3 to 30 mm: LUNA16's distribution (median 6.4 mm) with more of the small and the large."""
    if rng.random() < 0.15:
        return float(np.exp(rng.uniform(np.log(8.0), np.log(30.0))))
    return float(np.clip(np.exp(rng.normal(np.log(6.0), 0.42)), 3.0, 30.0))


def draw_site(rng: np.random.Generator, diameter_mm: float = 8.0) -> Site:
    """Free, at a vessel or at the pleura, by `SITE_SHARES`; what would drown in the wall's blurred edge is free."""
    site = list(SITE_SHARES)[int(rng.choice(len(SITE_SHARES), p=list(SITE_SHARES.values())))]
    return "free" if site == "pleura" and diameter_mm < MIN_PLEURAL_MM else site


def choose_site(
    background: Background,
    diameter_mm: float,
    existing: Sequence[InsertedNodule],
    rng: np.random.Generator,
    *,
    site: Site = "free",
    nodule: Nodule | None = None,
    within: Box | None = None,
    tries: int = 4096,
) -> tuple[int, int, int] | None:
    """A voxel inside the lung to centre a nodule on, clear of the scan's own findings and of other inserted ones.

    Parameters
    ----------
    existing
        What is there already, in voxels of the background.
    nodule
        At the pleura: the one to be placed, so that the side that touched its wall comes to touch this one.
    within
        Centres are taken from this box only; None for the whole lung.
    tries
        Voxels looked at; None is returned when none of them will do.
    """
    radius = diameter_mm / 2
    voxels = background.draw_lung_voxels(rng, tries, within)
    depth, vessel, own = (field[tuple(voxels.T)] for field in background.distances)
    fits = own > radius + 1.0
    if site == "pleura":
        shallowest, deepest = _pleural_depth_mm(radius, nodule)
        fits &= (depth >= shallowest) & (depth <= deepest)
    else:
        fits &= depth > radius + 1.0
        nearest, furthest = (0.2 * radius, radius + 0.5) if site == "vessel" else (min(2.0, radius), np.inf)
        fits &= (vessel >= nearest) & (vessel <= furthest)
    for other in existing:
        clearance = radius + other.diameter_mm / 2 + GAP_MM
        fits &= np.linalg.norm(voxels - np.asarray(other.center_zyx), axis=1) > clearance
    if not fits.any():
        return None
    z, y, x = voxels[int(np.argmax(fits))]
    return int(z), int(y), int(x)


def _pleural_depth_mm(radius: float, nodule: Nodule | None) -> tuple[float, float]:
    """Depths of the centroid at which a nodule touches the pleura and yet lies in the lung for the most part."""
    contact = 0.75 * radius
    if nodule is not None and nodule.wall_zyx is not None:
        contact = nodule.wall_distance_mm * 2 * radius / nodule.diameter_mm - 0.5
    contact = float(np.clip(contact, 0.45 * radius, 0.9 * radius))
    return max(1.0, contact - 1.5), max(2.0, contact)
