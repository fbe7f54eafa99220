"""Nodules put into real lungs, with the scan's own noise and resolution.

A nodule's block is read as a map of soft tissue fractions: 0 where it shows its own lung, 1 where it shows tissue. The
host becomes ``host * (1 - fraction) + tissue * fraction``, so host vessels run into the nodule, ground glass keeps the host's
texture, and the edge keeps the source's own blur. The noise that this takes away is put back with the host's own power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from training.lung_background import Background, NoiseModel
from training.nodule_bank import Kind, Nodule, NoduleBank, soft_volume_mm3, sphere_diameter_mm

Site = Literal["free", "vessel", "pleura"]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Start and stop index (z, y, x)."""

SITE_SHARES: dict[Site, float] = {"free": 0.42, "vessel": 0.33, "pleura": 0.25}
TISSUE_HU = 40.0


@dataclass(frozen=True)
class InsertedNodule:
    """What was put where.

    Parameters
    ----------
    center_zyx
        Centroid of the nodule's mask in voxels of the array it was put into; may lie outside it.
    diameter_mm
        Diameter of the sphere with the volume of the nodule inside the lung, whole even when the array cuts it.
    kind, site
        Kind of nodule; what it sits at.
    mask
        bool block (z, y, x) of the nodule; voxel (0, 0, 0) lies at ``start_zyx`` of the array. Clipped to the array.
    start_zyx
        First voxel of ``mask``.
    patient_id
        Whose nodule it is.
    """

    center_zyx: tuple[float, float, float]
    diameter_mm: float
    kind: Kind
    mask: NDArray[np.bool_]
    start_zyx: tuple[int, int, int]
    patient_id: str = ""
    site: Site = "free"
    malignancy: float = float("nan")

    def moved(self, by_zyx: ArrayLike) -> InsertedNodule:
        """The same nodule in the coordinates of an array whose voxel (0, 0, 0) lies at ``-by_zyx``."""
        by = np.asarray(by_zyx)
        center, start = np.asarray(self.center_zyx) + by, np.asarray(self.start_zyx) + by
        return InsertedNodule(
            (float(center[0]), float(center[1]), float(center[2])),
            self.diameter_mm,
            self.kind,
            self.mask,
            (int(start[0]), int(start[1]), int(start[2])),
            self.patient_id,
            self.site,
            self.malignancy,
        )


def draw_diameter_mm(rng: np.random.Generator) -> float:
    """Diameter to aim at: LUNA16's own (median 6.4 mm, 3.25 to 32) with a thicker tail of large ones."""
    if rng.random() < 0.2:
        return float(np.exp(rng.uniform(np.log(8.0), np.log(30.0))))
    return float(np.clip(np.exp(rng.normal(np.log(6.2), 0.42)), 3.0, 30.0))


def draw_site(rng: np.random.Generator) -> Site:
    """Free, at a vessel or at the pleura, by `SITE_SHARES`."""
    return list(SITE_SHARES)[int(rng.choice(len(SITE_SHARES), p=list(SITE_SHARES.values())))]


def choose_site(
    background: Background,
    diameter_mm: float,
    existing: Sequence[InsertedNodule],
    rng: np.random.Generator,
    *,
    site: Site = "free",
    within: Box | None = None,
    tries: int = 4096,
) -> tuple[int, int, int] | None:
    """A voxel inside the lung to centre a nodule on, clear of the scan's own findings and of other inserted ones.

    Parameters
    ----------
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
        fits &= (depth > 0.45 * radius) & (depth < 0.85 * radius) & (depth > 1.0)
    else:
        fits &= depth > radius + 1.0
        near, far = (0.2 * radius, radius + 0.5) if site == "vessel" else (min(2.0, radius), np.inf)
        fits &= (vessel >= near) & (vessel <= far)
    for other in existing:
        clearance = radius + other.diameter_mm / 2 + 4.0
        fits &= np.linalg.norm(voxels - np.asarray(other.center_zyx), axis=1) > clearance
    if not fits.any():
        return None
    z, y, x = voxels[int(np.argmax(fits))]
    return int(z), int(y), int(x)


def insert(
    volume_hu: NDArray[np.float32],
    nodule: Nodule,
    center_zyx: ArrayLike,
    rng: np.random.Generator,
    *,
    diameter_mm: float | None = None,
    wall_direction_zyx: ArrayLike | None = None,
    noise: NoiseModel | None = None,
    slice_spacing_mm: float = 1.0,
    in_lungs: NDArray[np.bool_] | None = None,
    site: Site = "free",
) -> InsertedNodule:
    """Put a nodule into an array in place, turned and mirrored at random.

    Parameters
    ----------
    volume_hu
        float32 (z, y, x) at isotropic 1 mm, in HU. The nodule may lie partly outside.
    center_zyx
        Where its centroid goes, in voxels.
    diameter_mm
        Rescaled to this; None keeps its size.
    wall_direction_zyx
        The side that touched the chest wall is turned to this direction.
    noise
        The host's noise; None adds none.
    slice_spacing_mm
        Slice spacing of the host scan: the nodule is blurred along z to its resolution.
    in_lungs
        bool (z, y, x) like ``volume_hu``: what falls outside the lung is not part of the mask and not changed.
    """
    scale = 1.0 if diameter_mm is None else diameter_mm / nodule.diameter_mm
    hu, distance, start = _placed(nodule, np.asarray(center_zyx, dtype=np.float64), scale, wall_direction_zyx, rng)
    fraction, tissue = _tissue_fraction(nodule, hu, distance)
    fraction = _blurred_along_z(fraction, nodule.slice_spacing_mm * scale, slice_spacing_mm)
    inside = np.clip(0.5 - distance, 0.0, 1.0)
    host_box, block_box = _overlap(start, distance.shape, volume_hu.shape)
    if in_lungs is not None:
        lung = np.ones(distance.shape, bool)
        lung[block_box] = in_lungs[host_box]
        inside *= lung
        fraction *= ndimage.gaussian_filter(lung.astype(np.float32), 0.5)
    texture = 0.0 if noise is None else noise.sample(fraction.shape, rng)
    host, part = volume_hu[host_box], fraction[block_box]
    lost = np.sqrt(1.0 - (1.0 - part) ** 2)
    extra = texture[block_box] * lost if isinstance(texture, np.ndarray) else 0.0
    volume_hu[host_box] = host + part * np.maximum(tissue - host, 0.0) + extra
    return _record(nodule, inside, start, host_box, block_box, site)


def populate(
    background: Background, bank: NoduleBank, count: int, rng: np.random.Generator, *, within: Box | None = None
) -> tuple[NDArray[np.float32], list[InsertedNodule]]:
    """A copy of the background (or of the box ``within``) with up to ``count`` nodules inserted.

    Returns
    -------
    hu, nodules
        float32 HU (z, y, x) of the box, and what lies in it in the box's own voxel coordinates. Fewer than ``count`` when
        no free place was found.
    """
    box = within or ((0, 0, 0), background.hu.shape)
    cut = tuple(slice(a, b) for a, b in zip(*box, strict=True))
    hu = background.hu[cut].astype(np.float32)
    lungs, start = background.in_lungs[cut], np.asarray(box[0])
    placed: list[InsertedNodule] = []
    for _ in range(count):
        diameter, site = draw_diameter_mm(rng), draw_site(rng)
        moved = [n.moved(start) for n in placed]
        center = choose_site(background, diameter, moved, rng, site=site, within=within)
        if center is None:
            continue
        nodule = bank.pick(diameter, rng, at_wall=site == "pleura")
        placed.append(
            insert(
                hu,
                nodule,
                np.asarray(center) - start,
                rng,
                diameter_mm=diameter,
                wall_direction_zyx=background.wall_direction(center) if site == "pleura" else None,
                noise=background.noise,
                slice_spacing_mm=background.slice_spacing_mm,
                in_lungs=lungs,
                site=site,
            )
        )
    return hu, placed


def _placed(
    nodule: Nodule,
    center: NDArray[np.float64],
    scale: float,
    wall_direction_zyx: ArrayLike | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The nodule turned and scaled on the host's voxels: HU, signed distance in mm and the block's first voxel."""
    turn = _orientation(nodule, wall_direction_zyx, rng)
    half = (np.asarray(nodule.hu.shape) - 1) / 2
    reach = np.abs(turn) @ half * scale
    start = np.floor(center - reach).astype(np.int64)
    shape = tuple(int(n) for n in np.ceil(center + reach).astype(np.int64) - start + 1)
    matrix = turn.T / scale
    offset = half - matrix @ (center - start)
    hu = ndimage.affine_transform(
        nodule.hu.astype(np.float32), matrix, offset, shape, order=1, mode="constant", cval=nodule.lung_hu
    )
    distance = ndimage.affine_transform(
        nodule.distance_mm.astype(np.float32), matrix, offset, shape, order=1, mode="nearest"
    )
    return hu, distance * np.float32(scale), start


def _orientation(nodule: Nodule, wall_direction_zyx: ArrayLike | None, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random orthogonal matrix; with a wall on both sides, one that takes the one direction to the other."""
    turn, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    turn = turn * np.sign(np.diag(upper))
    if wall_direction_zyx is None or nodule.wall_zyx is None:
        return np.asarray(turn)
    source, target = turn @ np.asarray(nodule.wall_zyx), np.asarray(wall_direction_zyx, dtype=np.float64)
    between = source - target
    if np.linalg.norm(between) < 1e-6:
        return np.asarray(turn)
    axis = between / np.linalg.norm(between)
    return np.asarray((np.eye(3) - 2.0 * np.outer(axis, axis)) @ turn)


def _tissue_fraction(
    nodule: Nodule, hu: NDArray[np.float32], distance_mm: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Soft tissue fraction 0..1 of the nodule's voxels and the HU that a fraction of 1 stands for."""
    core = nodule.hu[nodule.distance_mm < 0]
    tissue = max(TISSUE_HU, float(np.percentile(core, 90))) if core.size else TISSUE_HU
    smooth = ndimage.gaussian_filter(hu, 0.5)
    fraction = (smooth - nodule.lung_hu) / (tissue - nodule.lung_hu)
    outside = np.clip(distance_mm, 0.0, 1.0)
    fraction = fraction - 0.08 * outside
    rim = np.clip((3.0 - distance_mm) / 2.0, 0.0, 1.0)
    return np.clip(fraction * rim, 0.0, 1.0).astype(np.float32), tissue


def _blurred_along_z(fraction: NDArray[np.float32], source_mm: float, host_mm: float) -> NDArray[np.float32]:
    """Lower the resolution along z from the source's slice spacing to the host's."""
    missing = host_mm**2 - source_mm**2
    if missing <= 0.25:
        return fraction
    return np.asarray(ndimage.gaussian_filter1d(fraction, 0.35 * np.sqrt(missing), axis=0))


def _overlap(
    start: NDArray[np.int64], shape: tuple[int, ...], host_shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a block starting at ``start`` lies in the host, and the same part in the block; empty if it misses."""
    low = np.clip(start, 0, host_shape)
    high = np.clip(start + shape, low, host_shape)
    host = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    block = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))
    return host, block


def _record(
    nodule: Nodule,
    inside: NDArray[np.float32],
    start: NDArray[np.int64],
    host_box: tuple[slice, ...],
    block_box: tuple[slice, ...],
    site: Site,
) -> InsertedNodule:
    center = np.asarray(ndimage.center_of_mass(inside)) + start
    return InsertedNodule(
        center_zyx=(float(center[0]), float(center[1]), float(center[2])),
        diameter_mm=sphere_diameter_mm(float(inside.sum(dtype=np.float64))),
        kind=nodule.kind,
        mask=inside[block_box] >= 0.5,
        start_zyx=(host_box[0].start, host_box[1].start, host_box[2].start),
        patient_id=nodule.patient_id,
        site=site,
        malignancy=nodule.malignancy,
    )


def diameter_of(nodule: Nodule) -> float:
    """Diameter of the sphere with the volume of the nodule's outline."""
    return sphere_diameter_mm(soft_volume_mm3(nodule.distance_mm))
