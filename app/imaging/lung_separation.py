"""The steps of lung segmentation, on a coarse canonical array (z from feet to head, y to the back, x to the left)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.lung_morphology import dilated, eroded, grown_together
from app.imaging.volume import Grid

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

Box = tuple[slice, slice, slice]

RIGHT, LEFT = 1, 2

_AIR_HU = -400
"""Halfway between lung and soft tissue: where the lung's edge lies on pooled voxels."""
_PURE_AIR_HU = -960
_TISSUE_HU = -300
_BONE_HU = 250
_GAS_MEDIAN_HU = -980
"""Bowel gas lies below; emphysematous lung stays above, for its vessels and septa."""
_LUMEN_DARKEST_HU = -945
"""A trachea's core is darker; a round patch of noisy lung is not."""
_MAIN_BRONCHI_ML = 30.0
_DEEPEST_BRIDGE_MM = 17.0
"""Erosion after which lungs that still hang together are taken for one."""
_MINIMUM_PART_ML = 15.0
_LOST_LUNG_ML = 200.0

_IN_PLANE = np.array([[[0] * 3] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0] * 3] * 3], bool)


@dataclass(frozen=True)
class Air:
    """Air of the scan, sorted."""

    lungs: Mask
    """Lungs, with whatever airways hang together with them."""
    enclosed: Mask
    """All air inside the body: lungs, trachea, bowel gas."""
    outside: Mask
    """Air around the patient."""


def find_body(hu: NDArray[np.int16]) -> Mask:
    """Soft tissue and bone of the patient, eroded in-plane by a voxel so that table and blankets fall off."""
    parts, count = ndimage.label(eroded(hu > _TISSUE_HU, axes=(1, 2)))
    if not count:
        return np.zeros(hu.shape, bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def box_around(mask: Mask, margin: int) -> Box:
    """Slices of the smallest box that holds the mask, widened by ``margin`` voxels; the whole array if it is empty."""
    box = []
    for axis, size in enumerate(mask.shape):
        occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not occupied.size:
            return (slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2]))
        box.append(slice(max(int(occupied[0]) - margin, 0), min(int(occupied[-1]) + margin + 1, size)))
    return (box[0], box[1], box[2])


def find_air(hu: NDArray[np.int16], body: Mask, spacing_mm: Floats) -> Air:
    """Sort the connected regions of air into lungs, other air inside the body, and air outside.

    Where lungs hang together with the room, pure air is taken away first: airways join them in a scan that shows nose
    or mouth, the filling outside the reconstructed circle where that cuts the chest wall.
    """
    is_air = hu < _AIR_HU
    exposed = _exposed(body)
    air = _sorted_air(hu, is_air, exposed, spacing_mm)
    lost = air.outside & ~exposed & (hu > _PURE_AIR_HU)
    if _volume_ml(lost, spacing_mm) < _LOST_LUNG_ML:
        return air
    smooth_hu = ndimage.uniform_filter(hu, 3)
    core = eroded(is_air & (smooth_hu > _PURE_AIR_HU))
    return _sorted_air(hu, dilated(core, 4.0, spacing_mm) & is_air, exposed, spacing_mm)


def _sorted_air(hu: NDArray[np.int16], air: Mask, exposed: Mask, spacing_mm: Floats) -> Air:
    """Tell air outside by what it is, not by touching the edge: a scan may be cropped so closely that lungs do too."""
    parts, count = ndimage.label(air)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    outside = np.zeros(count + 1, bool)
    boxes = ndimage.find_objects(parts)
    medians_hu: dict[int, float] = {}
    for part in np.flatnonzero(sizes * _voxel_ml(spacing_mm) >= _MINIMUM_PART_ML).tolist():
        box = boxes[part - 1]
        inside = parts[box] == part
        outside[part] = exposed[box][inside].mean() > 0.5
        if not outside[part]:
            medians_hu[part] = float(np.median(hu[box][inside]))
    is_outside = outside[parts]
    chosen = np.zeros(count + 1, bool)
    chosen[_lung_parts(medians_hu, boxes, sizes)] = True
    return Air(lungs=chosen[parts], enclosed=air & ~is_outside, outside=is_outside)


def _exposed(body: Mask) -> Mask:
    """Whether a voxel has no body before or behind it: lungs lie between ribs, a table's core does not."""
    before = np.logical_or.accumulate(body, axis=1)
    behind = np.logical_or.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(~(behind & before))


def _lung_parts(medians_hu: dict[int, float], boxes: list[tuple[slice, ...]], sizes: NDArray[np.integer]) -> list[int]:
    """The largest region that is not gas, and others like it that do not lie below it, as bowel does."""
    tissue = [part for part, median in medians_hu.items() if median > _GAS_MEDIAN_HU]
    if not tissue:
        return []
    main = max(tissue, key=lambda part: int(sizes[part]))
    bottom = boxes[main - 1][0].start
    return [p for p in tissue if p == main or (boxes[p - 1][0].start + boxes[p - 1][0].stop) / 2 > bottom]


def find_airways(hu: NDArray[np.int16], air: Air, spacing_mm: Floats) -> Mask:
    """Trachea and main bronchi: tracked down slice by slice, then grown until they would leak into the lung.

    Growth is held within reach of the lowest place that was tracked, where the main bronchi are.
    """
    trachea = _trachea(hu, air, spacing_mm)
    if not trachea.any():
        return trachea
    z, y, x = np.nonzero(trachea)
    end = np.array([z.min(), y[z == z.min()].mean(), x[z == z.min()].mean()])
    low = np.maximum(end - np.array([50.0, 40.0, 60.0]) / spacing_mm, 0).astype(int)
    high = (end + np.array([np.inf, 40.0, 60.0]) / spacing_mm).clip(max=hu.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    air_here, hu_here, lumen = air.enclosed[box], hu[box], trachea[box]
    largest_ml = _volume_ml(trachea, spacing_mm) + _MAIN_BRONCHI_ML
    for threshold_hu in (-960, -940, -920, -900, -880):
        grown = ndimage.binary_propagation(lumen, mask=lumen | (air_here & (hu_here < threshold_hu)))
        if _volume_ml(grown, spacing_mm) > largest_ml:
            break
        lumen = grown
    airways = trachea.copy()
    airways[box] |= lumen
    return airways


def _trachea(hu: NDArray[np.int16], air: Air, spacing_mm: Floats) -> Mask:
    """The longest column of small round patches of air near the middle of the chest."""
    found = np.zeros(hu.shape, bool)
    occupied = np.flatnonzero(air.lungs.any(axis=(0, 1)))
    reach = round(55.0 / spacing_mm[2])
    middle = int(occupied[0] + occupied[-1]) // 2
    band = (slice(None), slice(None), slice(max(middle - reach, 0), middle + reach + 1))
    # Averaged along the tube, or the noise of a sharp kernel makes tubes of the lung beside it.
    smooth_hu = ndimage.uniform_filter1d(hu[band], 2 * round(2.5 / spacing_mm[0]) + 1, axis=0)
    patches, count = ndimage.label(air.enclosed[band] & (smooth_hu < -850), _IN_PLANE)
    areas_mm2 = np.bincount(patches.ravel(), minlength=count + 1) * spacing_mm[1] * spacing_mm[2]
    keep = np.zeros(count + 1, bool)
    boxes = ndimage.find_objects(patches)
    for patch in np.flatnonzero((areas_mm2 >= 40) & (areas_mm2 <= 800) & (np.arange(count + 1) > 0)):
        box = boxes[patch - 1]
        if smooth_hu[box][patches[box] == patch].min() < _LUMEN_DARKEST_HU:
            height, width = ((s.stop - s.start) * d for s, d in zip(box[1:], spacing_mm[1:], strict=True))
            keep[patch] = max(height, width) <= 2.5 * min(height, width) and areas_mm2[patch] > 0.5 * height * width
    columns, _ = ndimage.label(keep[patches])
    levels = np.flatnonzero(air.lungs.any(axis=(1, 2)))
    extents = [(box[0].start, box[0].stop) for box in ndimage.find_objects(columns)]
    # Bowel makes columns too, but lower down.
    lengths_mm = [(b - a) * spacing_mm[0] if a + b > levels[0] + levels[-1] else 0.0 for a, b in extents]
    if lengths_mm and max(lengths_mm) >= 20:
        found[band] = columns == np.argmax(lengths_mm) + 1
    return found


def midline_left_mm(hu: NDArray[np.int16], body: Mask, airways: Mask, grid: Grid) -> float:
    """Patient x (to the left) of the midline in mm: the median of bones, trachea and body."""
    left = left_mm(grid)
    thinned = (slice(None, None, 2),) * 3
    witnesses = [
        float(np.median(left[thinned][mask[thinned]])) for mask in (hu > _BONE_HU, airways, body) if mask[thinned].any()
    ]
    return float(np.median(witnesses or [left.mean()]))


def left_mm(grid: Grid) -> Floats:
    """(z, y, x) patient x of each voxel in mm; a view without memory of its own where x follows one array axis."""
    along = grid.affine[0]
    index = np.ogrid[tuple(slice(0, n) for n in grid.shape_zyx)]
    varying = [a * i for a, i in zip(along, index, strict=False) if abs(a) > 1e-9]
    return np.broadcast_to(sum(varying, np.asarray(along[3])), grid.shape_zyx)


def split_sides(lungs: Mask, offset_mm: Floats, spacing_mm: Floats) -> NDArray[np.uint8]:
    """Label right and left; regions that join both lungs are cut at their thinnest place."""
    labels = np.zeros(lungs.shape, np.uint8)
    parts, count = ndimage.label(lungs)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    boxes = ndimage.find_objects(parts)
    for part in np.flatnonzero(sizes * _voxel_ml(spacing_mm) >= _MINIMUM_PART_ML):
        box = boxes[part - 1]
        inside = parts[box] == part
        labels[box][inside] = _split_part(inside, offset_mm[box], spacing_mm)[inside]
    return labels


def _split_part(inside: Mask, offset_mm: Floats, spacing_mm: Floats) -> NDArray[np.uint8]:
    """Sides of one connected region: erode it until a large piece lies on either side, then grow both back."""
    voxel_ml = _voxel_ml(spacing_mm)
    one_sided = np.full(inside.shape, _side_of(inside, offset_mm), np.uint8)
    on_left = np.count_nonzero(offset_mm[inside] > 0)
    if min(on_left, np.count_nonzero(inside) - on_left) * voxel_ml < 50.0:
        return one_sided
    core = inside
    for _ in range(round(_DEEPEST_BRIDGE_MM / float(spacing_mm.min()))):
        core = eroded(core)
        parts, count = ndimage.label(core)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        seeds = np.zeros(inside.shape, np.uint8)
        for part in np.flatnonzero(sizes * voxel_ml > 20.0):
            member = parts == part
            seeds[member] = _side_of(member, offset_mm)
        sides_ml = np.bincount(seeds.ravel(), minlength=3)[1:] * voxel_ml
        if sides_ml.min() > max(20.0, 0.1 * sides_ml.max()):
            return grown_together(seeds, inside)
    return one_sided


def _side_of(mask: Mask, offset_mm: Floats) -> int:
    return LEFT if offset_mm[mask].mean() > 0 else RIGHT


def _voxel_ml(spacing_mm: Floats) -> float:
    return float(np.prod(spacing_mm)) / 1000.0


def _volume_ml(mask: Mask, spacing_mm: Floats) -> float:
    return float(np.count_nonzero(mask)) * _voxel_ml(spacing_mm)
