"""What is measured on an outline: pure functions of a mask, its grid and the scan.

Lengths are taken between the outer edges of voxels (the midpoints of their faces), as a reader sets calipers: a
single voxel is one spacing long, and a digitised disc is neither shortened by half a voxel at each end nor
lengthened by the corners of its staircase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from app.imaging.volume import CtVolume, FloatArray, Grid
from app.inference.findings import NoduleMask, Point, SliceBox


@dataclass(frozen=True)
class Axes:
    """Long and short axis in mm in one axial slice, perpendicular to each other."""

    long_mm: float
    short_mm: float
    index_z: int
    """Slice of the mask that they were measured in: the one with the largest area."""

    @property
    def mean_mm(self) -> float:
        """The diameter that guidelines ask for (Fleischner 2017: average of long and short axis)."""
        return (self.long_mm + self.short_mm) / 2


def volume_mm3(mask: NoduleMask) -> float:
    """Number of voxels times the volume of one, in mm3."""
    return float(np.count_nonzero(mask.voxels) * mask.grid.voxel_volume_mm3)


def center_lps_mm(mask: NoduleMask) -> Point:
    """Centre of mass of the mask, patient LPS mm."""
    return _point(mask.grid.to_patient(np.argwhere(mask.voxels).mean(axis=0)))


def axes_mm(mask: NoduleMask) -> Axes:
    """Long axis and the longest chord perpendicular to it, in the slice of largest area.

    Parameters
    ----------
    mask
        Not empty. Concave outlines are measured by their convex hull.
    """
    z = int(np.argmax(mask.voxels.sum(axis=(1, 2))))
    points = _edge_midpoints_mm(mask.voxels[z], mask.grid)
    hull = points[ConvexHull(points).vertices]
    between = hull[:, None] - hull[None]
    length = np.linalg.norm(between, axis=-1)
    longest = np.unravel_index(int(np.argmax(length)), length.shape)
    along = between[longest] / length[longest]
    return Axes(float(length[longest]), _longest_perpendicular_chord(hull, along), z)


def long_axis_3d_mm(mask: NoduleMask) -> float:
    """Longest extent of the mask in any direction, in mm.

    In-plane between the outer edges of voxels, across slices between their middles: the outermost slices are filled in
    part, and their outer faces would make every nodule in thick slices longest across them. Directions are those of a
    lattice on the half sphere, about 6 degrees apart, so it is short by less than 0.5 %.
    """
    directions = _half_sphere()
    rows, first, last = _row_ends(mask.voxels)
    ends = np.concatenate([np.column_stack([rows, first]), np.column_stack([rows, last])])
    along = mask.grid.to_patient(ends - ends[0]) @ directions.T
    # To the edges of the pixels at both ends: half an edge each, whichever points there most.
    faces = np.abs(directions @ mask.grid.affine[:3, 1:3]).max(axis=1)
    return float((np.ptp(along, axis=0) + faces).max())


def box_lps_mm(mask: NoduleMask) -> tuple[Point, Point]:
    """Smallest box along the patient axes that holds every voxel of the mask: (min, max) in LPS mm."""
    centers = mask.grid.to_patient(np.argwhere(mask.voxels))
    half = np.abs(mask.grid.affine[:3, :3]).sum(axis=1) / 2
    return _point(centers.min(axis=0) - half), _point(centers.max(axis=0) + half)


def box_index_zyx(mask: NoduleMask, grid: Grid) -> tuple[Point, Point]:
    """Smallest box along the axes of ``grid``, the scan's own, in its continuous index coordinates: (min, max)."""
    centers, half = _voxels_on(grid, mask)
    edge = np.asarray(grid.shape_zyx) - 0.5
    low = np.clip((centers - half).min(axis=0), -0.5, edge)
    return _point(low), _point(np.clip((centers + half).max(axis=0), -0.5, edge))


def slice_boxes(mask: NoduleMask, volume: CtVolume) -> tuple[SliceBox, ...]:
    """The mask's box on each original slice (axis 0 of the scan's array) that it touches, in slice order.

    A voxel of the mask belongs to every slice whose plane runs through it, or to the nearest where none does.
    """
    centers, half = _voxels_on(volume.grid, mask)
    depth, height, width = volume.grid.shape_zyx
    nearest = np.rint(centers[:, 0])
    first = np.minimum(np.ceil(centers[:, 0] - half[0]), nearest)
    last = np.maximum(np.floor(centers[:, 0] + half[0]), nearest)
    identities = volume.identity.slices if volume.identity else ()
    boxes = []
    for z in range(max(0, int(first.min())), min(depth - 1, int(last.max())) + 1):
        here = centers[(first <= z) & (z <= last), 1:]
        if not len(here):
            continue
        row_min, column_min = np.maximum(here.min(axis=0) - half[1:], -0.5)
        row_max, column_max = np.minimum(here.max(axis=0) + half[1:], (height - 0.5, width - 0.5))
        box = (float(column_min), float(row_min), float(column_max), float(row_max))
        if identities:
            image = identities[z]
            boxes.append(SliceBox(z, box, image.sop_instance_uid, image.instance_number, image.frame_number))
        else:
            boxes.append(SliceBox(z, box))
    return tuple(boxes)


def _voxels_on(grid: Grid, mask: NoduleMask) -> tuple[FloatArray, FloatArray]:
    """(n, 3) centres of the mask's voxels in index coordinates of ``grid``, and (3,) half their extent there."""
    centers = grid.to_index(mask.grid.to_patient(np.argwhere(mask.voxels)))
    step = np.linalg.inv(grid.affine[:3, :3]) @ mask.grid.affine[:3, :3]
    return centers, np.abs(step).sum(axis=1) / 2


def _row_ends(voxels: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """(n, 2) rows that are occupied, and the first and last column in each: all that an extent depends on."""
    rows = np.argwhere(voxels.any(axis=2))
    occupied = voxels[rows[:, 0], rows[:, 1]]
    return rows, occupied.argmax(axis=1), voxels.shape[2] - 1 - occupied[:, ::-1].argmax(axis=1)


def _half_sphere() -> FloatArray:
    """(700, 3) unit vectors spread evenly over half of all directions (Fibonacci lattice)."""
    step = np.arange(700) + 0.5
    height, turn = step / 700, np.pi * (1 + 5**0.5) * step
    ring = np.sqrt(1 - height**2)
    return np.stack((ring * np.cos(turn), ring * np.sin(turn), height), axis=1)


def _edge_midpoints_mm(plane: NDArray[np.bool_], grid: Grid) -> FloatArray:
    """(n, 2) midpoints of the four edges of every pixel, in mm within the plane of the slice."""
    to_row, to_column = grid.affine[:3, 1], grid.affine[:3, 2]
    first = to_column / np.linalg.norm(to_column)
    second = to_row - (to_row @ first) * first
    basis = np.stack((first, second / np.linalg.norm(second)), axis=1)
    pixels = np.argwhere(plane).astype(np.float64)
    edges = np.concatenate([pixels + offset for offset in ((-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5))])
    return np.asarray(edges @ np.stack((to_row, to_column)) @ basis)


def _longest_perpendicular_chord(hull: FloatArray, along: FloatArray) -> float:
    """Longest chord of a convex polygon across a direction; it starts at a vertex, as chord length is concave."""
    position = hull @ along
    across = hull @ np.array((-along[1], along[0]))
    following, across_following = np.roll(position, -1), np.roll(across, -1)
    longest = 0.0
    for cut in position:
        crossed = (np.minimum(position, following) <= cut) & (cut <= np.maximum(position, following))
        run = following[crossed] - position[crossed]
        share = np.divide(cut - position[crossed], run, out=np.zeros_like(run), where=run != 0)
        heights = across[crossed] + share * (across_following[crossed] - across[crossed])
        heights = np.concatenate((heights, across[crossed][run == 0], across_following[crossed][run == 0]))
        longest = max(longest, float(np.ptp(heights)))
    return longest


def _point(values: FloatArray) -> Point:
    first, second, third = (float(v) for v in values)
    return first, second, third
