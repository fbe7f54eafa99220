"""Pictures of a nodule: where it lies in axial, coronal and sagittal cuts, and the axial cut from near.

Each is drawn at one scale along both sides, so that round stays round whatever the slice spacing, with the patient as a
radiologist expects: right side on the left, front up in axial cuts, head up in the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.imaging.volume import CtVolume, Grid, canonical
from app.inference.findings import Nodule

ORANGE = (230, 159, 0)
"""Seen with any colour vision, on any grey (Okabe and Ito 2008)."""
_WINDOW_HU = (-1350.0, 150.0)
_NEAR_MM = 50.0
_SIDES = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF", "near": "RLAP"}
"""Letters at the left, right, upper and lower edge."""


@dataclass(frozen=True)
class Chest:
    """Voxels in the patient's order: (z, y, x) to head, back and left."""

    hu: NDArray[np.int16]
    grid: Grid

    @classmethod
    def of(cls, volume: CtVolume) -> Chest:
        """The volume with its axes permuted and turned; nothing is resampled."""
        return cls(*canonical(volume))


def views(chest: Chest, nodule: Nodule, size_px: int) -> dict[str, Image.Image]:
    """``axial``, ``coronal``, ``sagittal`` and ``near``: RGB pictures of ``size_px`` on either side, black around."""
    low, high = _box_index(chest.grid, nodule)
    center = np.clip(np.rint((low + high) / 2), 0, np.asarray(chest.grid.shape_zyx) - 1).astype(int)
    z_mm, y_mm, x_mm = chest.grid.spacing_zyx_mm
    depth = chest.grid.shape_zyx[0]
    # Rows of the upright cuts run from the head down.
    box = {
        "axial": (low[2], low[1], high[2], high[1]),
        "coronal": (low[2], depth - 1 - high[0], high[2], depth - 1 - low[0]),
        "sagittal": (low[1], depth - 1 - high[0], high[1], depth - 1 - low[0]),
    }
    cuts = {
        "axial": (chest.hu[center[0]], (y_mm, x_mm)),
        "coronal": (chest.hu[::-1, center[1], :], (z_mm, x_mm)),
        "sagittal": (chest.hu[::-1, :, center[2]], (z_mm, y_mm)),
    }
    drawn = {name: _drawn(*cuts[name], box[name], name, size_px) for name in cuts}
    near, moved = _near(chest.hu[center[0]], (y_mm, x_mm), box["axial"])
    return {**drawn, "near": _drawn(near, (y_mm, x_mm), moved, "near", size_px)}


def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size_px)


def _box_index(grid: Grid, nodule: Nodule) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = grid.to_index(np.array(list(product(*zip(*nodule.box_lps_mm, strict=True)))))
    return corners.min(axis=0), corners.max(axis=0)


def _near(
    cut: NDArray[np.int16], spacing_mm: tuple[float, float], box: tuple[float, ...]
) -> tuple[NDArray[np.int16], tuple[float, float, float, float]]:
    """The part around a box, filled with air where it reaches over the edge, and the box in it."""
    left, top, right, bottom = box
    shape = [max(2, round(_NEAR_MM / spacing)) for spacing in spacing_mm]
    row, column = round((top + bottom) / 2) - shape[0] // 2, round((left + right) / 2) - shape[1] // 2
    rows, columns = np.arange(row, row + shape[0]), np.arange(column, column + shape[1])
    inside = ((rows >= 0) & (rows < cut.shape[0]))[:, None] & ((columns >= 0) & (columns < cut.shape[1]))
    part = cut[np.clip(rows, 0, cut.shape[0] - 1)][:, np.clip(columns, 0, cut.shape[1] - 1)]
    return np.where(inside, part, -1024).astype(np.int16), (left - column, top - row, right - column, bottom - row)


def _drawn(
    cut: NDArray[np.int16],
    spacing_mm: tuple[float, float],
    box: tuple[float, float, float, float],
    name: str,
    size_px: int,
) -> Image.Image:
    low, high = _WINDOW_HU
    grey = np.clip((cut.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    height_mm, width_mm = cut.shape[0] * spacing_mm[0], cut.shape[1] * spacing_mm[1]
    scale = size_px / max(height_mm, width_mm)
    width, height = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    picture = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR).convert("RGB")
    x_scale, y_scale = width / cut.shape[1], height / cut.shape[0]
    draw = ImageDraw.Draw(picture)
    left, right = ((value + 0.5) * x_scale for value in box[::2])
    top, bottom = ((value + 0.5) * y_scale for value in box[1::2])
    margin = max(2.0, size_px / 100)  # the frame lies around the nodule, not on it
    framed = (left - margin, top - margin, right + margin, bottom + margin)
    line = max(1, size_px // 130)
    draw.rectangle([v + s * line for v, s in zip(framed, (-1, -1, 1, 1), strict=True)], outline="black", width=line)
    draw.rectangle(framed, outline=ORANGE, width=line)
    page = Image.new("RGB", (size_px, size_px))
    page.paste(picture, ((size_px - width) // 2, (size_px - height) // 2))
    _letter(page, _SIDES[name], size_px)
    return page


def _letter(page: Image.Image, letters: str, size_px: int) -> None:
    draw, half, edge = ImageDraw.Draw(page), size_px / 2, size_px * 0.015
    places = ((edge, half, "lm"), (size_px - edge, half, "rm"), (half, edge, "mt"), (half, size_px - edge, "mb"))
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        draw.text(
            (x, y), letter, font=font(max(9, size_px // 16)), fill="white", anchor=anchor, stroke_width=1,
            stroke_fill="black",
        )  # fmt: skip
