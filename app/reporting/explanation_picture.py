"""An explanation as a picture: the axial slice, over it what spoke for and against, and the disclaimer."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from app.inference.explanation import Explanation
from app.inference.findings import DISCLAIMER

SCALE = 8
"""Pixels of the picture for one of the crop."""
_FOR, _AGAINST, _OUTLINE = (255, 64, 32), (48, 128, 255), (255, 224, 64)
_OPACITY = 0.55
_LINE_PX = 14


def explanation_png(explanation: Explanation) -> bytes:
    """Draw the crop's middle slice as PNG: patient's right to the left, front up.

    Red where covering the place lowers the probability of a nodule, blue where it raises it, as strong as the
    largest effect in the slice; yellow is the outline.
    """
    z = len(explanation.crop) // 2
    grey = np.repeat(explanation.crop[z][..., None], 3, axis=2) * 255
    importance = explanation.nodule_importance[z]
    largest = max(float(np.abs(importance).max()), 1e-9)
    strength = (np.abs(importance) / largest * _OPACITY)[..., None]
    colour = np.where(importance[..., None] > 0, _FOR, _AGAINST)
    blended = (grey * (1 - strength) + colour * strength).astype(np.uint8)
    picture = blended.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    picture[_contour(explanation.outline[z])] = _OUTLINE
    return _with_caption(picture, _caption(explanation))


def _contour(outline: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One picture pixel wide, along the inner edge."""
    large = outline.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    return np.asarray(large & ~ndimage.binary_erosion(large, border_value=1))


def _caption(explanation: Explanation) -> tuple[str, ...]:
    width_mm = explanation.spec.size_px * explanation.spec.spacing_mm
    nodule, malignancy = explanation.nodule_probability, explanation.malignancy_probability
    return (
        f"Axial slice, {width_mm:.0f} mm wide. Network: nodule {nodule:.2f}, malignancy {malignancy:.2f} (0 to 1).",
        "Red: speaks for a nodule. Blue: speaks against. Yellow: outline.",
        DISCLAIMER,
    )


def _with_caption(picture: NDArray[np.uint8], lines: tuple[str, ...]) -> bytes:
    height, width = picture.shape[:2]
    image = Image.new("RGB", (width, height + _LINE_PX * len(lines) + 6))
    image.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((4, height + 3 + _LINE_PX * number), line, fill=(255, 255, 255))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
