"""Nodules of a model that has a detector only: what a box alone can tell, and nothing else.

There is no outline, so no volume, no density, no type and no malignancy: these are None. The axes are the sides of the
box, which lie along the axes of the scan; a nodule that lies across them is measured too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import CtVolume, Grid, canonical
from app.inference.findings import Candidate, Nodule, Point, SliceBox
from app.inference.location import locate
from app.inference.measuring import Chest

NOT_TOLD = "This model has a detector only; it does not tell malignancy."


def boxed_nodules(candidates: Sequence[Candidate], threshold: float, chest: Chest) -> tuple[Nodule, ...]:
    """The candidates that reach the threshold, as nodules, in the order given.

    Parameters
    ----------
    candidates
        Output of `app.inference.detection.detect`, with the corners of their boxes.
    threshold
        Operating point on the detector's probability.
    chest
        Scan and lungs.
    """
    likely = [candidate for candidate in candidates if candidate.probability >= threshold]
    return tuple(_nodule(f"nodule-{number}", candidate, chest) for number, candidate in enumerate(likely, start=1))


def _nodule(identifier: str, candidate: Candidate, chest: Chest) -> Nodule:
    if candidate.box_corners_lps_mm is None:
        raise ValueError("a nodule without an outline needs the corners of its box")
    grid = chest.volume.grid
    low, high = _index_box(candidate.box_corners_lps_mm, grid)
    _, upright = canonical(chest.volume)
    first, last = _index_box(candidate.box_corners_lps_mm, upright)
    height, depth, width = (float(side) for side in (last - first) * upright.spacing_zyx_mm)
    side = chest.lungs.side_at(candidate.center_lps_mm)
    corners = grid.to_patient(list(product(*zip(low, high, strict=True))))
    return Nodule(
        id=identifier,
        probability=candidate.probability,
        malignancy_probability=None,
        label=None,
        diameter_mm=(depth + width) / 2,
        long_axis_mm=max(depth, width),
        short_axis_mm=min(depth, width),
        volume_mm3=None,
        center_lps_mm=candidate.center_lps_mm,
        box_index_zyx=(_point(low), _point(high)),
        box_lps_mm=(_point(corners.min(axis=0)), _point(corners.max(axis=0))),
        slices=_slices(low, high, chest.volume),
        side=side,
        long_axis_3d_mm=max(height, depth, width),
        location=locate(None, candidate.center_lps_mm, side, chest.surface, whole_lungs=chest.whole_lungs),
    )


def _index_box(corners_lps_mm: tuple[Point, Point], grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest corner in continuous indices, ending with the voxels of the grid."""
    index = grid.to_index(corners_lps_mm)
    edge = np.asarray(grid.shape_zyx) - 0.5
    return np.clip(index.min(axis=0), -0.5, edge), np.clip(index.max(axis=0), -0.5, edge)


def _slices(low: NDArray[np.float64], high: NDArray[np.float64], volume: CtVolume) -> tuple[SliceBox, ...]:
    """The box on every slice whose plane runs through it, or on the nearest where none does."""
    nearest = int(np.clip(np.rint((low[0] + high[0]) / 2), 0, len(volume.hu) - 1))
    first, last = min(int(np.ceil(low[0])), nearest), max(int(np.floor(high[0])), nearest)
    box = (float(low[2]), float(low[1]), float(high[2]), float(high[1]))
    images = volume.identity.slices if volume.identity else ()
    boxes = []
    for z in range(max(first, 0), min(last, len(volume.hu) - 1) + 1):
        image = (images[z].sop_instance_uid, images[z].instance_number, images[z].frame_number) if images else ()
        boxes.append(SliceBox(z, box, *image))
    return tuple(boxes)


def _point(values: NDArray[np.float64]) -> Point:
    a, b, c = (float(value) for value in values)
    return a, b, c
