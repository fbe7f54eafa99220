"""The steps of lung segmentation, on a coarse canonical array (z from feet to head, y to the back, x to the left)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.volume import Grid

Mask = NDArray[np.bool_]

_AIR_HU = -400
"""Halfway between lung and soft tissue: where the lung's edge lies on pooled voxels."""
_TISSUE_HU = -300
_BONE_HU = 250
_PURE_AIR_MEDIAN_HU = -970
"""Outside air and bowel gas lie below; emphysematous lung stays above, for its vessels and septa."""
_MINIMUM_PART_ML = 15.0
_MINIMUM_DEPTH_MM = 40.0
_RIGHT, _LEFT = 1, 2


@dataclass(frozen=True)
class Air:
    """Air of the scan, sorted."""

    lungs: Mask
    """Lungs, with whatever airways hang together with them."""
    enclosed: Mask
    """All air inside the body: lungs, trachea, bowel gas."""
    outside: Mask
    """Air around the patient."""


@dataclass(frozen=True)
class Airways:
    """Trachea and main bronchi."""

    lumen: Mask
    with_wall: Mask


def find_body(hu: NDArray[np.int16]) -> Mask:
    """Soft tissue and bone of the patient, eroded by a voxel so that table and blankets fall off."""
    tissue = ndimage.binary_erosion(hu > _TISSUE_HU, np.ones((1, 3, 3), bool), border_value=1)
    parts, count = ndimage.label(tissue)
    if not count:
        return np.zeros(hu.shape, bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def find_air(hu: NDArray[np.int16], body: Mask, spacing_mm: NDArray[np.float64]) -> Air:
    """Sort the connected regions of air into lungs, other air inside the body, and air outside.

    Air outside is told by what it is, not by touching the edge of the array: a scan may be cropped so closely that the
    lungs touch it too.
    """
    parts, count = ndimage.label(hu < _AIR_HU)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    large = [int(i) for i in np.flatnonzero(sizes * voxel_ml >= _MINIMUM_PART_ML) if i > 0]
    boxes = ndimage.find_objects(parts)
    outside_parts, enclosed_parts, lung_parts = [], [], []
    exposed = _exposed(body)
    medians = {}
    for part in large:
        box = boxes[part - 1]
        inside = parts[box] == part
        medians[part] = float(np.median(hu[box][inside]))
        depth = _depth_mm(parts, part, int(sizes[part]), spacing_mm)
        if depth < _MINIMUM_DEPTH_MM or exposed[box][inside].mean() > 0.5:
            outside_parts.append(part)
        else:
            enclosed_parts.append(part)
    if enclosed_parts:
        lung_parts = _choose_lungs(enclosed_parts, boxes, sizes, medians)
    small = np.ones(count + 1, bool)
    small[[0, *large]] = False
    return Air(
        lungs=_members(parts, lung_parts, count),
        enclosed=_members(parts, enclosed_parts, count) | small[parts],
        outside=_members(parts, outside_parts, count),
    )


def _members(parts: NDArray[np.integer], chosen: list[int], count: int) -> Mask:
    table = np.zeros(count + 1, bool)
    table[chosen] = True
    return np.asarray(table[parts])


def _exposed(body: Mask) -> Mask:
    """Whether a voxel has no body before or behind it: lungs lie between ribs, a table's core does not."""
    behind = np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    before = np.maximum.accumulate(body, axis=1)
    return np.asarray(~(behind & before))


def _depth_mm(parts: NDArray[np.integer], part: int, size: int, spacing_mm: NDArray[np.float64]) -> float:
    """Volume over the area in contact with the sides of the array: how deep a region reaches from there."""
    dz, dy, dx = spacing_mm
    contact = (np.count_nonzero(parts[:, 0] == part) + np.count_nonzero(parts[:, -1] == part)) * dz * dx
    contact += (np.count_nonzero(parts[:, :, 0] == part) + np.count_nonzero(parts[:, :, -1] == part)) * dz * dy
    return float(size * dz * dy * dx / max(contact, 1e-6))


def _choose_lungs(
    enclosed: list[int], boxes: list[tuple[slice, ...]], sizes: NDArray[np.intp], medians: dict[int, float]
) -> list[int]:
    """The largest region that is not gas, and others like it that do not lie below it, as bowel does."""
    tissue = [p for p in enclosed if medians[p] > _PURE_AIR_MEDIAN_HU] or enclosed
    main = max(tissue, key=lambda p: int(sizes[p]))
    bottom = boxes[main - 1][0].start
    chosen = []
    for part in tissue:
        z = boxes[part - 1][0]
        if part == main or (z.start + z.stop) / 2 > bottom:
            chosen.append(part)
    return chosen


def find_airways(hu: NDArray[np.int16], air: Air, spacing_mm: NDArray[np.float64]) -> Airways:
    """Trachea, tracked down slice by slice, and main bronchi, grown from it until they would leak into the lung."""
    trachea = _trachea(hu, air, spacing_mm)
    if not trachea.any():
        return Airways(trachea, trachea)
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    lumen = trachea
    limit_ml = np.count_nonzero(trachea) * voxel_ml + 30.0
    for threshold in (-960, -940, -920, -900, -880):
        grown = ndimage.binary_propagation(lumen, mask=(air.enclosed & (hu < threshold)) | trachea)
        if np.count_nonzero(grown) * voxel_ml > limit_ml:
            break
        lumen = grown
    wall = ndimage.binary_dilation(lumen, ndimage.generate_binary_structure(3, 2))
    return Airways(lumen, wall)


def _trachea(hu: NDArray[np.int16], air: Air, spacing_mm: NDArray[np.float64]) -> Mask:
    """The longest column of small round patches of air near the middle of the chest."""
    pixel_mm2 = float(spacing_mm[1] * spacing_mm[2])
    tubes = np.zeros(hu.shape, bool)
    lumen = air.enclosed & (hu < -850)
    occupied = np.flatnonzero(air.lungs.any(axis=(0, 1)))
    if not occupied.size:
        return tubes
    middle = (occupied[0] + occupied[-1]) / 2
    for z in range(hu.shape[0]):
        parts, _ = ndimage.label(lumen[z])
        for i, box in enumerate(ndimage.find_objects(parts), start=1):
            patch = parts[box] == i
            area = np.count_nonzero(patch) * pixel_mm2
            height, width = patch.shape
            round_enough = max(height, width) <= 2.5 * min(height, width) and patch.mean() > 0.5
            central = abs((box[1].start + box[1].stop - 1) / 2 - middle) * spacing_mm[2] < 50
            if 40 <= area <= 800 and round_enough and central:
                tubes[z][box] |= patch
    parts, count = ndimage.label(tubes, ndimage.generate_binary_structure(3, 3))
    if not count:
        return tubes
    boxes = ndimage.find_objects(parts)
    lengths = [(b[0].stop - b[0].start) * spacing_mm[0] for b in boxes]
    best = int(np.argmax(lengths))
    if lengths[best] < 20:
        return np.zeros(hu.shape, bool)
    return np.asarray(parts == best + 1)


def offset_from_midline_mm(hu: NDArray[np.int16], body: Mask, airways: Airways, grid: Grid) -> NDArray[np.float64]:
    """(z, y, x) distance of each voxel to the left of the patient's midline in mm.

    The midline is the median of three witnesses: vertebrae and ribs, the trachea, and the body.
    """
    z, y, x = np.ogrid[tuple(slice(0, n) for n in hu.shape)]
    a = grid.affine[0]
    left_mm = a[0] * z + a[1] * y + a[2] * x + a[3]
    witnesses = [float(np.median(left_mm[m])) for m in (hu > _BONE_HU, airways.lumen, body) if m.any()]
    return np.asarray(left_mm - (float(np.median(witnesses)) if witnesses else left_mm.mean()))


def split_sides(lungs: Mask, offset_mm: NDArray[np.float64], spacing_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Label right and left; regions that join both lungs are cut at their thinnest place."""
    labels = np.zeros(lungs.shape, np.uint8)
    parts, count = ndimage.label(lungs)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    for part, box in enumerate(ndimage.find_objects(parts), start=1):
        if sizes[part] * voxel_ml < _MINIMUM_PART_ML:
            continue
        inside = parts[box] == part
        offset = offset_mm[box]
        labels[box][inside] = _split_part(inside, offset, voxel_ml)[inside]
    return labels


def _split_part(inside: Mask, offset_mm: NDArray[np.float64], voxel_ml: float) -> NDArray[np.uint8]:
    whole = np.full(inside.shape, _LEFT if offset_mm[inside].mean() > 0 else _RIGHT, np.uint8)
    on_left = np.count_nonzero(offset_mm[inside] > 0)
    total = np.count_nonzero(inside)
    if min(on_left, total - on_left) * voxel_ml < 50:
        return whole
    eroded = inside
    for _ in range(6):
        eroded = ndimage.binary_erosion(eroded)
        parts, count = ndimage.label(eroded)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        seeds = np.zeros(inside.shape, np.uint8)
        for part in np.flatnonzero(sizes * voxel_ml > 20):
            if part > 0:
                member = parts == part
                seeds[member] = _LEFT if offset_mm[member].mean() > 0 else _RIGHT
        sides = np.bincount(seeds.ravel(), minlength=3)[1:] * voxel_ml
        if sides.min() > max(20.0, 0.1 * sides.max()):
            nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
            return np.asarray(seeds[tuple(nearest)])
    return whole


def fill_sides(labels: NDArray[np.uint8], forbidden: Mask, spacing_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Close vessels, hilar notches and nodules into each lung, and what bites into its costal surface."""
    filled = labels.copy()
    for side in (_RIGHT, _LEFT):
        lung = labels == side
        if not lung.any():
            continue
        closed = _closed(lung, 9.0, spacing_mm) | (_closed(lung, 25.0, spacing_mm) & _behind(lung, labels > 0))
        closed = ndimage.binary_fill_holes(closed)
        filled[closed & (labels == 0) & (filled == 0) & ~forbidden] = side
    return filled


def _closed(mask: Mask, radius_mm: float, spacing_mm: NDArray[np.float64]) -> Mask:
    """Morphological closing with a ball."""
    pad = [(int(n), int(n)) for n in np.ceil(radius_mm / spacing_mm) + 1]
    padded = np.pad(mask, pad)
    dilated = ndimage.distance_transform_edt(~padded, sampling=spacing_mm) <= radius_mm
    closed = ndimage.distance_transform_edt(dilated, sampling=spacing_mm) > radius_mm
    return np.asarray(closed[tuple(slice(p, n - q) for (p, q), n in zip(pad, padded.shape, strict=True))]) | mask


def _behind(lung: Mask, both: Mask) -> Mask:
    """Voxels that are hidden by this lung when seen, in their axial slice, from the middle of the chest."""
    occupied = [np.flatnonzero(both.any(axis=axes)) for axes in ((0, 2), (0, 1))]
    cy, cx = ((o[0] + o[-1]) / 2 for o in occupied)
    y, x = np.mgrid[: lung.shape[1], : lung.shape[2]]
    radius = np.hypot(y - cy, x - cx)
    sector = np.floor((np.arctan2(y - cy, x - cx) + np.pi) / (2 * np.pi) * 119.999).astype(np.intp)
    hidden = np.zeros(lung.shape, bool)
    for z in np.flatnonzero(lung.any(axis=(1, 2))):
        nearest = np.full(120, np.inf)
        np.minimum.at(nearest, sector[lung[z]], radius[lung[z]])
        hidden[z] = radius > nearest[sector]
    return hidden
