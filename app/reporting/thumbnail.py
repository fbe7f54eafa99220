"""A small picture of a nodule: the slice through its centre, grey, square, a few diameters wide."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from app.imaging.planes import Plane
from app.imaging.slabs import Slab, Window, cut

LEAST_WIDTH_MM = 40.0
DIAMETERS_WIDE = 2.5


def thumbnail_png(
    hu: NDArray[np.int16], plane: Plane, center_lps_mm: ArrayLike, diameter_mm: float, size_px: int, window: Window
) -> bytes:
    """The slice of ``plane`` through a point, as a square PNG with the point in its middle; black outside the scan.

    Parameters
    ----------
    hu
        int16 (z, y, x).
    plane
        Of the same volume.
    center_lps_mm
        (x, y, z) in patient LPS mm.
    diameter_mm
        Of what is shown; the picture is 2.5 times as wide, and at least 40 mm.
    size_px
        Edge of the picture.
    window
        For the grey values.
    """
    place = plane.from_index(plane.grid.to_index(center_lps_mm))
    number = int(np.clip(np.rint(place[0]), 0, plane.shape[0] - 1))
    picture = Image.fromarray(cut(hu, plane, Slab(number, 1), window)[0])
    width_mm = max(LEAST_WIDTH_MM, DIAMETERS_WIDE * diameter_mm)
    _, row_mm, column_mm = plane.spacing_mm
    across, down = width_mm / size_px / column_mm, width_mm / size_px / row_mm
    # PIL counts from a pixel's corner, and maps each pixel of the answer to a place in the picture.
    left, top = place[2] + 0.5 - across * size_px / 2, place[1] + 0.5 - down * size_px / 2
    data = (across, 0.0, float(left), 0.0, down, float(top))
    square = picture.transform((size_px, size_px), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    written = io.BytesIO()
    square.save(written, format="PNG")
    return written.getvalue()
