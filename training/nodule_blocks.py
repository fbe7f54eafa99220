"""From a stack of native axial slices to a nodule on an isotropic grid, with caps, and without the chest wall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Kind = Literal["solid", "part-solid", "ground-glass", "calcified"]
Block = NDArray[np.float32]

BLOCK_SPACING_MM = 0.8
"""Finer than the 1 mm they are put into, so that interpolating twice costs little sharpness."""
MARGIN_MM = 7.0
WALL_HU = -450.0
WALL_SHARE = 0.08
"""Share of the shell within 2 mm of the outline that must be wall for a nodule to count as attached."""


@dataclass(frozen=True, eq=False)
class Nodule:
    """One nodule on an isotropic grid of `BLOCK_SPACING_MM`, its centroid in the middle of the block.

    Parameters
    ----------
    hu
        int16 (z, y, x): the nodule and `MARGIN_MM` around it; lung value where the source had chest wall.
    distance_mm
        float16 (z, y, x): signed distance to the outline, negative inside.
    diameter_mm
        Diameter of the sphere with the outline's volume.
    kind
        From the readers' mean texture and calcification ratings.
    lung_hu
        Lung parenchyma around the nodule in its own scan.
    wall_zyx, wall_distance_mm
        Unit vector from the centroid to the chest wall or mediastinum that it touched, and how far away that lay;
        None and 0 for a nodule that touched neither.
    slice_spacing_mm
        Slice spacing of the source: its resolution along z.
    patient_id, series_uid
        Whose it is; empty for synthetic ones.
    malignancy, spiculation
        Mean ratings of the readers, 1 to 5; NaN for synthetic ones.
    estimated_hu
        HU were estimated from grey values, not measured (see `training.hu_estimation`).
    readers
        How many readers outlined it, 0 for synthetic ones.
    """

    hu: NDArray[np.int16]
    distance_mm: NDArray[np.float16]
    diameter_mm: float
    kind: Kind
    lung_hu: float = -850.0
    wall_zyx: tuple[float, float, float] | None = None
    wall_distance_mm: float = 0.0
    slice_spacing_mm: float = 1.0
    patient_id: str = ""
    series_uid: str = ""
    malignancy: float = float("nan")
    spiculation: float = float("nan")
    estimated_hu: bool = False
    readers: int = 0


def nodule_kind(texture: float, calcification: float) -> Kind:
    """Kind from mean LIDC ratings: texture 1 (ground glass) to 5 (solid); calcification 6 is none, 1 to 5 some."""
    if calcification <= 4.5:
        return "calcified"
    if texture < 2.5:
        return "ground-glass"
    return "part-solid" if texture < 4.25 else "solid"


def soft_volume_mm3(distance_mm: NDArray[np.floating], spacing_mm: float = BLOCK_SPACING_MM) -> float:
    """Volume inside an outline given by signed distance; voxels it cuts count in part."""
    inside = np.clip(0.5 - distance_mm.astype(np.float32) / spacing_mm, 0.0, 1.0)
    return float(inside.sum(dtype=np.float64)) * spacing_mm**3


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere with this volume."""
    return float((6.0 * volume_mm3 / np.pi) ** (1.0 / 3.0))


def nodule_from_stack(hu: Block, outline: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Nodule | None:
    """Turn a stack of native axial slices into an isotropic block of kind "solid".

    Parameters
    ----------
    hu, outline
        (slices, rows, columns) and the nodule's mask on them; the slices end where the nodule ends, so lung is assumed
        above and below, and linear interpolation makes the caps.
    spacing_mm
        Slice spacing, pixel spacing.

    Returns
    -------
    Nodule or None
        None where the outline is empty or runs out of the slices' field of view.
    """
    outline = _largest_part(outline)
    if not _inside_view(outline):
        return None
    lung_hu = _lung_value(hu, outline)
    caps = _caps(spacing_mm)
    hu = np.pad(hu, ((caps, caps), (0, 0), (0, 0)), constant_values=lung_hu)
    distance, resample = _isotropic_distance(outline, spacing_mm)
    block = resample(hu)
    wall = _wall(block, distance)
    direction, reach = _wall_contact(wall, distance)
    return Nodule(
        hu=np.round(np.where(wall, lung_hu, block)).astype(np.int16),
        distance_mm=distance.astype(np.float16),
        diameter_mm=sphere_diameter_mm(soft_volume_mm3(distance)),
        kind="solid",
        lung_hu=lung_hu,
        wall_zyx=direction,
        wall_distance_mm=reach,
        slice_spacing_mm=spacing_mm[0],
    )


def distance_from_outline(outline: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Block | None:
    """Signed distance in mm on an isotropic block around the largest part of an outline; None where it is empty.

    Parameters
    ----------
    outline
        (slices, rows, columns) with at least three empty pixels around it in-plane.
    spacing_mm
        Slice spacing, pixel spacing.
    """
    outline = _largest_part(outline)
    return _isotropic_distance(outline, spacing_mm)[0] if _inside_view(outline) else None


def _largest_part(outline: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(outline)
    if count < 2:
        return outline
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))


def _lung_value(hu: Block, outline: NDArray[np.bool_]) -> float:
    """Median of the aerated lung near the nodule; -850 HU where there is hardly any."""
    near = ndimage.binary_dilation(outline, np.ones((1, 3, 3), bool), iterations=12) & ~outline
    aerated = hu[near & (hu < -600) & (hu > -1000)]
    return float(np.median(aerated)) if len(aerated) > 50 else -850.0


def _signed_distance(outline: NDArray[np.bool_], sampling: NDArray[np.float64]) -> Block:
    """Distance in mm to the surface between inside and outside pixels, negative inside."""
    outside = ndimage.distance_transform_edt(~outline, sampling=sampling)
    inside = ndimage.distance_transform_edt(outline, sampling=sampling)
    half = sampling[1] / 2
    return np.asarray(np.where(outline, half - inside, outside - half), dtype=np.float32)


def _inside_view(outline: NDArray[np.bool_]) -> bool:
    """Whether there is an outline and it keeps three pixels from the border of its slices."""
    rows, columns = np.flatnonzero(outline.any((0, 2))), np.flatnonzero(outline.any((0, 1)))
    if not len(rows):
        return False
    first, last = min(rows[0], columns[0]), max(rows[-1] - outline.shape[1], columns[-1] - outline.shape[2])
    return bool(first >= 3 and last < -3)


def _caps(spacing_mm: tuple[float, float]) -> int:
    """Empty slices added above and below."""
    return 2 + int(np.ceil(MARGIN_MM / spacing_mm[0]))


def _isotropic_distance(
    outline: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> tuple[Block, Callable[[Block], Block]]:
    """Signed distance around the outline's centroid with `MARGIN_MM`, and the resampling for slices padded alike."""
    sampling = np.asarray([spacing_mm[0], spacing_mm[1], spacing_mm[1]])
    caps = _caps(spacing_mm)
    outline = np.pad(outline, ((caps, caps), (0, 0), (0, 0)))
    center = np.asarray(ndimage.center_of_mass(outline))
    reach_mm = np.abs(np.stack(np.nonzero(outline)) - center[:, None]).max(axis=1) * sampling + MARGIN_MM
    radius = np.ceil(reach_mm / BLOCK_SPACING_MM).astype(int)
    matrix = BLOCK_SPACING_MM / sampling
    offset, shape = center - radius * matrix, tuple(int(n) for n in 2 * radius + 1)

    def resample(array: Block) -> Block:
        return np.asarray(ndimage.affine_transform(array, matrix, offset, shape, order=1, mode="nearest"))

    return resample(_signed_distance(outline, sampling)), resample


def _wall(hu: Block, distance_mm: Block) -> NDArray[np.bool_]:
    """Chest wall, diaphragm and mediastinum: dense and thick (over about 4 mm), outside the outline."""
    dense = (hu > WALL_HU) & (distance_mm > 0.5)
    steps = round(2.0 / BLOCK_SPACING_MM)
    thick = ndimage.binary_opening(dense, iterations=steps)
    # the blurred border of the wall goes with it
    return np.asarray(ndimage.binary_dilation(thick, iterations=steps + 1) & (distance_mm > 0.3))


def _wall_contact(wall: NDArray[np.bool_], distance_mm: Block) -> tuple[tuple[float, float, float] | None, float]:
    """Direction to the wall and its distance from the centroid; None and 0 where too little of it touches."""
    shell = (distance_mm > 0.3) & (distance_mm < 2.0)
    touching = np.stack(np.nonzero(wall & shell)) - (np.asarray(wall.shape)[:, None] - 1) / 2
    if touching.shape[1] < WALL_SHARE * shell.sum():
        return None, 0.0
    mean = touching.mean(axis=1)
    length = float(np.linalg.norm(mean))
    if length * BLOCK_SPACING_MM < 0.5:
        return None, 0.0
    unit = mean / length
    reach = float(np.median(unit @ touching)) * BLOCK_SPACING_MM
    return (float(unit[0]), float(unit[1]), float(unit[2])), reach
