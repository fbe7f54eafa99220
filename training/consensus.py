"""Which outlines of LIDC's four readers are one nodule, and the voxels they agree on.

Outlines of a scan are grouped by the smallest distance between their contour points, in mm, as pylidc documents its
clustering: connected components of "closer than the slice thickness", repeated with a tolerance 10 % smaller where more
than four outlines (there are four readers) fall together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from training.lidc import FloatArray, LidcError, LidcNodule, LidcScan

MAX_READERS = 4


@dataclass(frozen=True)
class ReaderMasks:
    """Every reader's mask of one nodule on the same voxels of the scan."""

    masks: NDArray[np.bool_]
    """(reader, z, y, x)."""
    start_zyx: tuple[int, int, int]
    """Index of the first voxel; z counts the slices of `LidcScan.slice_z_mm`, rising."""

    def consensus(self, share: float = 0.5) -> NDArray[np.bool_]:
        """(z, y, x) voxels inside at least this share of the outlines; 0.5 is the majority, ties included."""
        return np.asarray(self.masks.mean(axis=0) >= share - 1e-9)


def group_outlines(scan: LidcScan, tolerance_mm: float | None = None) -> tuple[LidcNodule, ...]:
    """Group a scan's outlines into nodules, by rising z.

    Parameters
    ----------
    tolerance_mm
        Outlines closer than this (or equal) belong together; default the slice thickness, as in pylidc 0.2.3.
    """
    if not scan.outlines:
        return ()
    distance = _outline_distances(scan)
    tolerance = scan.slice_thickness_mm if tolerance_mm is None else tolerance_mm
    _, group = connected_components(distance <= tolerance, directed=False)
    # Below 0.1 mm outlines touch; more than four that touch are left as one nodule, as pylidc leaves them.
    while np.bincount(group).max() > MAX_READERS and tolerance >= 0.1:
        tolerance *= 0.9
        _, group = connected_components(distance <= tolerance, directed=False)
    nodules = [
        LidcNodule(scan, tuple(outline for outline, its in zip(scan.outlines, group, strict=True) if its == number))
        for number in range(int(group.max()) + 1)
    ]
    return tuple(sorted(nodules, key=lambda nodule: float(_center_mm(nodule)[2])))


def reader_masks(nodule: LidcNodule) -> ReaderMasks:
    """Fill every reader's outlines on the voxels of the scan that hold them all.

    Raises
    ------
    LidcError
        If a contour lies between the slices of the scan.
    """
    contours = [(reader, contour) for reader, outline in enumerate(nodule.outlines) for contour in outline.contours]
    slices = [_slice_index(nodule.scan, contour.slice_z_mm) for _, contour in contours]
    points = np.concatenate([contour.points_xy_px for _, contour in contours])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    z0 = min(slices)
    masks = np.zeros((nodule.n_outlines, max(slices) - z0 + 1, y1 - y0 + 1, x1 - x0 + 1), dtype=np.bool_)
    # Holes last: an exclusion cuts whatever the same reader included in that slice.
    for index in sorted(range(len(contours)), key=lambda i: not contours[i][1].is_inclusion):
        reader, contour = contours[index]
        plane = masks[reader, slices[index] - z0]
        filled = fill_outline(contour.points_xy_px - (x0, y0), (plane.shape[0], plane.shape[1]))
        if contour.is_inclusion:
            plane |= filled
        else:
            plane &= ~(filled | _drawn(contour.points_xy_px - (x0, y0), (plane.shape[0], plane.shape[1])))
    return ReaderMasks(masks, (int(z0), int(y0), int(x0)))


def fill_outline(points_xy_px: NDArray[np.int64], shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """(rows, columns) pixels strictly inside a closed outline, by the even-odd rule; the outline's own stay False."""
    start, end = points_xy_px.astype(np.float64), np.roll(points_xy_px, -1, axis=0).astype(np.float64)
    inside = np.zeros(shape_yx, dtype=np.bool_)
    columns = np.arange(shape_yx[1])
    for row in range(shape_yx[0]):
        crossing = (start[:, 1] <= row) != (end[:, 1] <= row)
        a, b = start[crossing], end[crossing]
        at_x = a[:, 0] + (row - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
        inside[row] = (at_x[:, None] < columns).sum(axis=0) % 2 == 1
    return inside & ~_drawn(points_xy_px, shape_yx)


def _drawn(points_xy_px: NDArray[np.int64], shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    plane = np.zeros(shape_yx, dtype=np.bool_)
    plane[points_xy_px[:, 1], points_xy_px[:, 0]] = True
    return plane


def _center_mm(nodule: LidcNodule) -> FloatArray:
    return np.asarray(np.mean([nodule.scan.points_mm(outline).mean(axis=0) for outline in nodule.outlines], axis=0))


def _slice_index(scan: LidcScan, z_mm: float) -> int:
    positions = np.asarray(scan.slice_z_mm)
    index = int(np.abs(positions - z_mm).argmin())
    if abs(positions[index] - z_mm) > scan.slice_spacing_mm / 2:
        raise LidcError(f"series {scan.series_uid}: no slice at z = {z_mm} mm")
    return index


def _outline_distances(scan: LidcScan) -> FloatArray:
    """(n, n) smallest distance of contour points in mm."""
    trees = [KDTree(scan.points_mm(outline)) for outline in scan.outlines]
    distance = np.zeros((len(trees), len(trees)))
    for first, second in combinations(range(len(trees)), 2):
        nearest = np.asarray(trees[first].query(trees[second].data)[0])
        distance[first, second] = distance[second, first] = nearest.min()
    return distance
