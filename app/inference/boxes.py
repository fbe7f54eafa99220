"""The order of a 3-D box, stated once; intersection over union and non-maximum suppression.

A box is ``(z_min, y_min, x_min, z_max, y_max, x_max)`` in continuous index coordinates of some grid: voxel i
spans i - 0.5 .. i + 0.5, so a box around exactly voxel i is (i - 0.5, i + 0.5) along that axis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import Grid

Boxes = NDArray[np.float64]
"""(n, 6) in the order above."""


def volumes(boxes: Boxes) -> NDArray[np.float64]:
    """(n, 6) -> (n,) volume in voxels; 0 for a box with no extent."""
    return np.asarray(np.prod(np.clip(boxes[:, 3:] - boxes[:, :3], 0.0, None), axis=1))


def iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """(n, 6), (m, 6) -> (n, m) intersection over union, 0 where both are empty."""
    low = np.maximum(first[:, None, :3], second[None, :, :3])
    high = np.minimum(first[:, None, 3:], second[None, :, 3:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=2)
    union = volumes(first)[:, None] + volumes(second)[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def non_maximum_suppression(boxes: Boxes, scores: NDArray[np.floating], iou_threshold: float) -> NDArray[np.intp]:
    """Indices of the boxes kept, by falling score; a box goes when it overlaps a better one by more than the threshold.

    Equal scores keep their input order, so the answer does not depend on the sort's whims.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[int] = []
    for candidate in order:
        if not kept or iou(boxes[candidate][None], boxes[kept]).max() <= iou_threshold:
            kept.append(int(candidate))
    return np.asarray(kept, dtype=np.intp)


def centers(boxes: Boxes) -> NDArray[np.float64]:
    """(n, 6) -> (n, 3) centre (z, y, x)."""
    return np.asarray((boxes[:, :3] + boxes[:, 3:]) / 2)


def to_patient_corners(box: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """The eight corners of one box in patient LPS mm, (8, 3); the grid may be oblique."""
    z, y, x = (box[[axis, axis + 3]] for axis in range(3))
    corners = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid.to_patient(corners)
