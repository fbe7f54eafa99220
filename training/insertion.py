"""Nodules put into real lungs, with the scan's own noise and resolution.

A nodule is a map of tissue fractions: 0 where its own scan shows lung, 1 where it shows tissue. The host becomes
``host * (1 - fraction) + tissue * fraction``: host vessels run into it, ground glass keeps the host's texture, and
the edge keeps the source's blur. The noise that the mixing takes away is put back with the host's power and grain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from training.lung_background import Background, NoiseModel
from training.nodule_bank import NoduleBank
from training.nodule_blocks import Nodule, sphere_diameter_mm
from training.nodule_rendering import RenderedNodule, render
from training.placement import MIN_PLEURAL_MM, Box, InsertedNodule, Site, choose_site, draw_diameter_mm, draw_site

Cut = tuple[slice, slice, slice]

MIN_VISIBLE_SHARE = 0.5
"""Readers saw every nodule of the bank. Where the wall or a hilar vessel would hide half of one, it is not put."""
TRIES_EACH = 3


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
        float32 (z, y, x) at isotropic 1 mm, in HU. The nodule may lie partly or wholly outside.
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
        bool (z, y, x) like ``volume_hu``: what falls outside the lung is not part of the nodule and not changed.
    """
    scale = 1.0 if diameter_mm is None else diameter_mm / nodule.diameter_mm
    rendered = render(
        nodule,
        center_zyx,
        rng,
        scale=scale,
        wall_direction_zyx=wall_direction_zyx,
        slice_spacing_mm=slice_spacing_mm,
    )
    host_cut, block_cut = _overlap(rendered.start_zyx, rendered.inside.shape, volume_hu.shape)
    inside, fraction = rendered.inside, rendered.fraction
    if in_lungs is not None:
        lung = np.ones(inside.shape, np.float32)
        lung[block_cut] = in_lungs[host_cut]
        inside = inside * lung
        fraction = fraction * ndimage.gaussian_filter(lung, 0.5)
    grain = None if noise is None else noise.sample(inside.shape, rng)[block_cut]
    host = volume_hu[host_cut]
    mixed = _mixed(host, fraction[block_cut], rendered.tissue_hu, grain)
    mask = inside[block_cut] >= 0.5
    rise_hu = (mixed - host)[mask]
    clear_rise_hu = (rendered.fraction * (rendered.tissue_hu - nodule.lung_hu))[rendered.inside >= 0.5].sum()
    volume_hu[host_cut] = mixed
    return InsertedNodule(
        center_zyx=_centroid(inside, rendered),
        diameter_mm=sphere_diameter_mm(float(inside.sum(dtype=np.float64))),
        kind=nodule.kind,
        mask=mask,
        start_zyx=(host_cut[0].start, host_cut[1].start, host_cut[2].start),
        patient_id=nodule.patient_id,
        site=site,
        malignancy=nodule.malignancy,
        contrast_hu=float(rise_hu.mean()) if mask.any() else 0.0,
        readers=nodule.readers,
        visible_share=float(rise_hu.sum() / max(clear_rise_hu, 1.0)),
    )


def populate(
    background: Background,
    bank: NoduleBank,
    count: int,
    rng: np.random.Generator,
    *,
    within: Box | None = None,
    own_size: bool = False,
) -> tuple[NDArray[np.float32], list[InsertedNodule]]:
    """A copy of the background (or of the box ``within``) with up to ``count`` nodules inserted.

    Parameters
    ----------
    own_size
        Every nodule of the bank is equally likely and keeps its size; otherwise `draw_diameter_mm` sets the sizes.

    Returns
    -------
    hu, nodules
        float32 HU (z, y, x) of the box, and what lies in it in the box's own voxel coordinates. Fewer than ``count``
        when no free place was found.
    """
    box = within or ((0, 0, 0), background.grid.shape_zyx)
    cut = tuple(slice(a, b) for a, b in zip(*box, strict=True))
    hu = background.hu[cut].astype(np.float32)
    placed: list[InsertedNodule] = []
    for _ in range(count * TRIES_EACH):
        if len(placed) == count:
            break
        nodule, diameter, site = _draw_at_own_size(bank, rng) if own_size else _draw(bank, rng)
        existing = [n.moved(box[0]) for n in placed]
        center = choose_site(background, diameter, existing, rng, site=site, nodule=nodule, within=within)
        if center is None:
            continue
        changed = hu.copy()
        inserted = insert(
            changed,
            nodule,
            np.asarray(center) - box[0],
            rng,
            diameter_mm=diameter,
            wall_direction_zyx=background.wall_direction(center) if site == "pleura" else None,
            noise=background.noise,
            slice_spacing_mm=background.slice_spacing_mm,
            in_lungs=background.in_lungs[cut],
            site=site,
        )
        if inserted.visible_share >= MIN_VISIBLE_SHARE:
            hu = changed
            placed.append(inserted)
    return hu, placed


def _draw(bank: NoduleBank, rng: np.random.Generator) -> tuple[Nodule, float, Site]:
    diameter = draw_diameter_mm(rng)
    site = draw_site(rng, diameter)
    return bank.pick(diameter, rng, at_wall=site == "pleura"), diameter, site


def _draw_at_own_size(bank: NoduleBank, rng: np.random.Generator) -> tuple[Nodule, float, Site]:
    """At the pleura if it touched the wall in its own scan and would not drown there, else free or at a vessel."""
    nodule = bank.nodules[int(rng.integers(len(bank.nodules)))]
    if nodule.wall_zyx is not None and nodule.diameter_mm >= MIN_PLEURAL_MM:
        return nodule, nodule.diameter_mm, "pleura"
    site = draw_site(rng, 0.0)
    return nodule, nodule.diameter_mm, site


def _mixed(
    host: NDArray[np.float32], fraction: NDArray[np.float32], tissue_hu: float, grain: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Host and tissue by fraction; where the host is denser than the tissue it stays."""
    fraction = np.where(host < tissue_hu, fraction, np.float32(0.0))
    mixed = host + fraction * (np.float32(tissue_hu) - host)
    if grain is None:
        return mixed
    return np.asarray(mixed + grain * np.sqrt(1.0 - (1.0 - fraction) ** 2), dtype=np.float32)


def _overlap(start: NDArray[np.int64], shape: tuple[int, ...], host_shape: tuple[int, ...]) -> tuple[Cut, Cut]:
    """Where a block starting at ``start`` lies in the host, and the same part of the block; empty if it misses."""
    low = np.clip(start, 0, host_shape)
    high = np.clip(start + shape, low, host_shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    u, v, w = (slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))
    return (z, y, x), (u, v, w)


def _centroid(inside: NDArray[np.float32], rendered: RenderedNodule) -> tuple[float, float, float]:
    """Host voxel of the centroid of what lies in the lung; of the whole outline where nothing does."""
    weight = inside if inside.any() else rendered.inside
    z, y, x = np.asarray(ndimage.center_of_mass(weight)) + rendered.start_zyx
    return float(z), float(y), float(x)
