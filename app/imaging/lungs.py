"""Where the lungs are: a low-resolution mask, left and right told apart, and its box."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.imaging import lung_separation as separation
from app.imaging.acceptance import Notice
from app.imaging.errors import NotChestCt
from app.imaging.lung_filling import fill_sides
from app.imaging.lung_morphology import dilated
from app.imaging.volume import CtVolume, Grid, canonical

BACKGROUND, RIGHT, LEFT = 0, 1, 2
"""Values of `LungMask.labels`; right and left are the patient's."""

Side = Literal["left", "right"]

_A = TypeVar("_A", bound=np.generic)
_B = TypeVar("_B", bound=np.generic)

_LABEL_OF_SIDE: dict[Side, int] = {"right": RIGHT, "left": LEFT}

WORKING_SPACING_MM = 2.8
"""Voxels are pooled to about this before anything is looked for."""
MINIMUM_LUNG_VOLUME_ML = 300.0
"""Both lungs together; less is not called a chest CT."""
_USUAL_LUNG_VOLUME_ML = (1500.0, 9000.0)
"""Both lungs of an adult at anything from full expiration to emphysema."""
_MISSING_LUNG_SHARE = 0.1
_CUT_AREA_SHARE = 0.15
"""Of the largest axial area; the first slice of a scan that just touches a dome shows less."""
_SIDE_TOLERANCE_MM = 4.0
_AIRWAY_WALL_MM = 4.0


@dataclass(frozen=True)
class LungMask:
    """Lungs of one CT on a coarse grid of their own.

    Parameters
    ----------
    labels
        uint8 (z, y, x): BACKGROUND, RIGHT or LEFT.
    grid
        Coarse grid whose axes run along the scan's own, in canonical order (see `app.imaging.volume.canonical`).
    """

    labels: NDArray[np.uint8]
    grid: Grid

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape_zyx:
            raise ValueError(f"labels has shape {self.labels.shape}, its grid {self.grid.shape_zyx}")

    def box_corners_lps_mm(self) -> NDArray[np.float64]:
        """(8, 3) corners in patient LPS mm of the smallest box, along the grid's axes, that holds both lungs.

        The box spans whole voxels: its faces lie half a voxel beyond the outermost voxel centres.

        Raises
        ------
        ValueError
            If the mask is empty.
        """
        bounds = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            occupied = np.flatnonzero(self.labels.any(axis=others))
            if not occupied.size:
                raise ValueError("an empty lung mask has no box")
            bounds.append((occupied[0] - 0.5, occupied[-1] + 0.5))
        return self.grid.to_patient(list(product(*bounds)))

    def widened_on(self, grid: Grid, margin_mm: float) -> NDArray[np.bool_]:
        """The mask widened by ``margin_mm``, sampled at the voxel centres of another grid with the same axes.

        Raises
        ------
        ValueError
            If the axes of ``grid`` do not run along this mask's (in any order, forwards or backwards).
        """
        order, scale, start = _axis_map(self.grid, grid)
        pad = np.ceil(margin_mm / self.grid.spacing_zyx_mm).astype(int) + 1
        padded = np.pad(self.labels > 0, [(int(p), int(p)) for p in pad])
        padded = dilated(padded, margin_mm, self.grid.spacing_zyx_mm)
        sampled = padded.transpose(order)
        for axis in (2, 1, 0):
            source = order[axis]
            index = np.floor(start[axis] + scale[axis] * np.arange(grid.shape_zyx[axis]) + pad[source] + 0.5)
            sampled = sampled.take(np.clip(index.astype(np.intp), 0, sampled.shape[axis] - 1), axis=axis)
        return np.ascontiguousarray(sampled)

    def side_at(self, lps_mm: ArrayLike) -> Side | None:
        """Lung that a point in patient LPS mm lies in, or the nearer one within 4 mm; None outside both."""
        reach = np.ceil(_SIDE_TOLERANCE_MM / self.grid.spacing_zyx_mm).astype(int) + 1
        position = self.grid.to_index(lps_mm)
        nearest = np.floor(position + 0.5).astype(int)
        low = np.maximum(nearest - reach, 0)
        high = np.minimum(nearest + reach + 1, self.grid.shape_zyx)
        if (high <= low).any():
            return None
        around = self.labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        found = np.argwhere(around > 0)
        # Distance to the nearest point of each voxel's box, so that a point inside a voxel is at distance 0.
        gap = np.maximum(np.abs(found + low - position) - 0.5, 0.0) * self.grid.spacing_zyx_mm
        distance = np.linalg.norm(gap, axis=1)
        if not distance.size or distance.min() > _SIDE_TOLERANCE_MM:
            return None
        label = int(around[tuple(found[distance.argmin()])])
        return "right" if label == RIGHT else "left"

    def volume_ml(self, side: Side | None = None) -> float:
        """Volume in ml of one lung, or of both; vessels and nodules inside the lung count."""
        count = np.count_nonzero(self.labels if side is None else self.labels == _LABEL_OF_SIDE[side])
        return float(count * self.grid.voxel_volume_mm3 / 1000.0)


def segment_lungs(volume: CtVolume) -> LungMask:
    """Find the lungs of a chest CT.

    Parameters
    ----------
    volume
        CT in HU, any orientation and spacing.

    Returns
    -------
    LungMask
        On voxels of about 2.8 mm. Trachea and main bronchi are left out; vessels, nodules and consolidation that the
        lung surrounds or that bite into its costal surface are inside.

    Raises
    ------
    NotChestCt
        Code ``no_lungs``, if less than 300 ml of lung are found.
    """
    return segment_chest(volume).lungs


@dataclass(frozen=True)
class SegmentedChest:
    """Lungs, and the airways that were left out of them.

    Parameters
    ----------
    lungs
        As `segment_lungs` gives them.
    airways
        bool (z, y, x): the lumen of trachea and main bronchi, as far as voxels of 2.8 mm show it; empty where none was
        found.
    airways_grid
        Of ``airways``; it reaches above the lungs.
    """

    lungs: LungMask
    airways: NDArray[np.bool_]
    airways_grid: Grid


def segment_chest(volume: CtVolume) -> SegmentedChest:
    """`segment_lungs`, with the airways that it finds on its way.

    Raises
    ------
    NotChestCt
        As `segment_lungs`.
    """
    hu, grid = coarse(volume, WORKING_SPACING_MM)
    body = separation.find_body(hu)
    hu, body, grid = _within(separation.box_around(body, margin=2), hu, body, grid)
    spacing_mm = grid.spacing_zyx_mm
    air = separation.find_air(hu, body, spacing_mm)
    if not air.lungs.any():
        raise _no_lungs(0.0)
    airways = separation.find_airways(hu, air, spacing_mm)
    whole_airways, whole_grid = airways, grid
    midline_mm = separation.midline_left_mm(hu, body, airways, grid)
    box = separation.box_around(air.lungs, margin=0)
    outside, airways, grid = _within(box, air.outside, airways, grid)
    with_walls = dilated(airways, _AIRWAY_WALL_MM, spacing_mm)
    offset_mm = separation.left_mm(grid) - midline_mm
    labels = separation.split_sides(air.lungs[box] & ~with_walls, offset_mm, spacing_mm)
    labels = fill_sides(labels, airways | outside, spacing_mm)
    lungs = LungMask(labels, grid)
    found_ml = lungs.volume_ml()
    if found_ml < MINIMUM_LUNG_VOLUME_ML:
        raise _no_lungs(found_ml)
    return SegmentedChest(lungs, whole_airways, whole_grid)


def _within(
    box: separation.Box, first: NDArray[_A], second: NDArray[_B], grid: Grid
) -> tuple[NDArray[_A], NDArray[_B], Grid]:
    """Copies of two arrays, and their grid, within a box."""
    first, second = np.ascontiguousarray(first[box]), np.ascontiguousarray(second[box])
    return first, second, grid.cropped([s.start for s in box], first.shape)


def _no_lungs(found_ml: float) -> NotChestCt:
    return NotChestCt(
        f"{found_ml:.0f} ml of lung were found, fewer than {MINIMUM_LUNG_VOLUME_ML:.0f} ml: "
        "send a CT that covers the chest",
        code="no_lungs",
        values={"lung_volume_ml": round(found_ml, 1), "minimum_lung_volume_ml": MINIMUM_LUNG_VOLUME_ML},
    )


def coarse(volume: CtVolume, spacing_mm: float) -> tuple[NDArray[np.int16], Grid]:
    """Canonical view of the scan, two-by-two samples of each block averaged in-plane, and its grid.

    A full block mean would read every voxel and cost more than all the rest; four samples halve the noise. HU are
    clipped to -1024..1024.
    """
    hu, grid = canonical(volume)
    steps = [max(1, round(spacing_mm / s)) for s in grid.spacing_zyx_mm]
    steps = [min(step, n) for step, n in zip(steps, hu.shape, strict=True)]
    counts = [n // step for n, step in zip(hu.shape, steps, strict=True)]
    first = [(step - 1) // 2 for step in steps]
    taps = [(step // 4, step - 1 - step // 4) for step in steps]
    plane = hu[first[0] : first[0] + (counts[0] - 1) * steps[0] + 1 : steps[0]]
    # Halves are added, not sums halved: int16 must not overflow.
    rows = [plane[:, t : t + (counts[1] - 1) * steps[1] + 1 : steps[1]] >> 1 for t in taps[1]]
    summed = rows[0] + rows[1]
    columns = [summed[:, :, t : t + (counts[2] - 1) * steps[2] + 1 : steps[2]] >> 1 for t in taps[2]]
    pooled = np.clip(columns[0] + columns[1], -1024, 1024)
    start = [float(first[0]), (steps[1] - 1) / 2, (steps[2] - 1) / 2]
    affine = np.eye(4)
    affine[:3, :3] = grid.affine[:3, :3] * steps
    affine[:3, 3] = grid.to_patient(start)
    return pooled, Grid(pooled.shape, affine)


def coverage_warnings(lungs: LungMask, volume: CtVolume) -> tuple[Notice, ...]:
    """What a reader should know about how much of the lungs the scan shows.

    Parameters
    ----------
    lungs
        `segment_lungs` of the same volume.
    volume
        The whole scan.

    Returns
    -------
    tuple of Notice
        Codes ``lungs_cut_at_top``, ``lungs_cut_at_bottom`` (the outermost slice still shows much lung),
        ``one_lung_missing`` and ``unusual_lung_volume``; empty when all is as usual.
    """
    notices = [*_cut_notices(lungs, volume)]
    volumes_ml: dict[Side, float] = {"left": lungs.volume_ml("left"), "right": lungs.volume_ml("right")}
    total_ml = sum(volumes_ml.values())
    smaller: Side = "left" if volumes_ml["left"] < volumes_ml["right"] else "right"
    share = volumes_ml[smaller] / total_ml
    if share < _MISSING_LUNG_SHARE:
        message = (
            f"the {smaller} lung holds {volumes_ml[smaller]:.0f} of {total_ml:.0f} ml of lung: "
            "collapsed, consolidated, removed or outside the scan; nodules there cannot be found"
        )
        notices.append(Notice("one_lung_missing", message, {"side": smaller, "volume_ml": round(volumes_ml[smaller])}))
    low_ml, high_ml = _USUAL_LUNG_VOLUME_ML
    if not low_ml <= total_ml <= high_ml:
        message = f"the lungs hold {total_ml:.0f} ml, unusual for an adult ({low_ml:.0f} to {high_ml:.0f} ml)"
        notices.append(Notice("unusual_lung_volume", message, {"volume_ml": round(total_ml)}))
    return tuple(notices)


def _cut_notices(lungs: LungMask, volume: CtVolume) -> list[Notice]:
    """Notices for the first and last slice, where lung is still wide."""
    _, scan = canonical(volume)
    areas_mm2 = np.count_nonzero(lungs.labels, axis=(1, 2)) * float(np.prod(lungs.grid.spacing_zyx_mm[1:]))
    shown = np.flatnonzero(areas_mm2)
    notices = []
    for name, plane, slice_index in (("bottom", shown[0], 0), ("top", shown[-1], scan.shape_zyx[0] - 1)):
        scan_index = float(scan.to_index(lungs.grid.to_patient([plane, 0, 0]))[0])
        distance_mm = abs(scan_index - slice_index) * scan.spacing_zyx_mm[0]
        share = float(areas_mm2[plane] / areas_mm2.max())
        if distance_mm <= 1.5 * lungs.grid.spacing_zyx_mm[0] and share > _CUT_AREA_SHARE:
            message = (
                f"the scan ends inside the lungs at the {name}: the last slice still shows {share:.0%} of their "
                "largest cross-section; nodules beyond it cannot be found"
            )
            notices.append(Notice(f"lungs_cut_at_{name}", message, {"area_share": round(share, 2)}))
    return notices


def _axis_map(source: Grid, target: Grid) -> tuple[list[int], list[float], list[float]]:
    """For each target axis: the source axis it runs along, source voxels per target voxel, and the first index."""
    steps = np.linalg.inv(source.affine[:3, :3]) @ target.affine[:3, :3]
    order = [int(i) for i in np.abs(steps).argmax(axis=0)]
    aligned = np.zeros_like(steps)
    aligned[order, range(3)] = steps[order, range(3)]
    drift = np.abs((steps - aligned) @ np.asarray(target.shape_zyx, dtype=np.float64))
    if sorted(order) != [0, 1, 2] or drift.max() > 0.5:
        raise ValueError("the axes of the grid must run along those of the lung mask")
    start = source.to_index(target.origin_lps_mm)
    return order, [float(steps[order[i], i]) for i in range(3)], [float(start[order[i]]) for i in range(3)]
