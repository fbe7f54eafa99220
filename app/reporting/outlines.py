"""Outlines of nodules on the voxels of the original slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import Grid
from app.inference.findings import NoduleMask

Voxels = NDArray[np.intp]


def original_voxels(mask: NoduleMask, grid: Grid) -> Voxels:
    """(n, 3) indices (z, y, x) of the voxels of ``grid`` whose centre lies in a voxel of the mask.

    Where the nodule slips between thick slices, the voxels nearest to those of the mask: a nodule that was found is
    never without an outline. Empty only when it lies outside the grid.
    """
    centers = grid.to_index(mask.grid.to_patient(np.argwhere(mask.voxels)))
    half = np.abs(np.linalg.inv(grid.affine[:3, :3]) @ mask.grid.affine[:3, :3]).sum(axis=1) / 2
    last = np.asarray(grid.shape_zyx) - 1
    low = np.clip(np.ceil(centers.min(axis=0) - half), 0, last).astype(np.intp)
    high = np.clip(np.floor(centers.max(axis=0) + half), 0, last).astype(np.intp)
    if (high >= low).all():
        near = np.stack(
            np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1
        ).reshape(-1, 3)
        within = np.rint(mask.grid.to_index(grid.to_patient(near))).astype(np.intp)
        inside = ((within >= 0) & (within < mask.voxels.shape)).all(axis=1)
        marked = np.zeros(len(near), np.bool_)
        marked[inside] = mask.voxels[tuple(within[inside].T)]
        if marked.any():
            return np.asarray(near[marked], np.intp)
    nearest = np.unique(np.rint(centers).astype(np.intp), axis=0)
    return np.asarray(nearest[((nearest >= 0) & (nearest <= last)).all(axis=1)], np.intp)


def label_planes(outlines: Sequence[Voxels], grid: Grid) -> tuple[list[int], NDArray[np.uint16]]:
    """Slices that hold an outline, ascending, and their pixels: n + 1 where the n-th outline lies, else 0.

    Where two share a voxel, the smaller has it, so that none disappears behind another.
    """
    slices = sorted({int(z) for outline in outlines for z in np.unique(outline[:, 0])})
    planes = np.zeros((len(slices), *grid.shape_zyx[1:]), np.uint16)
    for number in sorted(range(len(outlines)), key=lambda n: -len(outlines[n])):
        z, y, x = outlines[number].T
        planes[np.searchsorted(slices, z), y, x] = number + 1
    return slices, planes
