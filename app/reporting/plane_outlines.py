"""Outlines of nodules as polygons on the pictures of a plane, along the very voxels that SEG marks."""

from __future__ import annotations

import numpy as np

from app.imaging.planes import Plane
from app.reporting.outlines import Voxels

Polygon = list[tuple[float, float]]
"""(row, column) of each corner, pixel centres at whole numbers; the first corner is repeated at the end."""


def polygons(voxels: Voxels, plane: Plane) -> list[tuple[int, Polygon]]:
    """The outline of a nodule on each slice that it is in, slices ascending; several where it falls apart or has holes.

    Parameters
    ----------
    voxels
        (n, 3) indices (z, y, x) of the volume, as `app.reporting.outlines.original_voxels` gives them.
    plane
        Of the same volume.
    """
    from skimage.measure import find_contours  # noqa: PLC0415 - costs a second, and only readers want it

    if not len(voxels):
        return []
    places = np.rint(plane.from_index(voxels)).astype(np.intp)
    low = places.min(axis=0)
    # One empty pixel around: every contour closes.
    marked = np.zeros(places.max(axis=0) - low + np.array([1, 3, 3]), np.float32)
    marked[tuple((places - low + np.array([0, 1, 1])).T)] = 1.0
    found = []
    for number, picture in enumerate(marked):
        for contour in find_contours(picture, 0.5):  # type: ignore[no-untyped-call]
            corners = contour + low[1:] - 1.0
            found.append((int(low[0]) + number, [(float(row), float(column)) for row, column in corners]))
    return found
