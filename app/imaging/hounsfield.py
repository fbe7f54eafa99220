"""Stored values to Hounsfield units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.slice_header import PixelFormat

AIR_HU = -1024
"""What padding outside the reconstruction circle is set to."""
_LOWEST, _HIGHEST = -32768, 32767
_MEASURED_HU = (-1000.0, 4000.0)
"""Padding said to lie in here is a value that tissue has too: a wrong header, and no pixel is taken for padding."""


def write_hu(
    stored: NDArray[Any], pixel_format: PixelFormat, slope: float, intercept: float, out: NDArray[np.int16]
) -> None:
    """Rescale one slice into ``out``, rounded to the nearest HU and clamped to int16; padding becomes air.

    Parameters
    ----------
    stored
        (rows, columns) 16-bit stored values in native byte order; may be the memory of ``out``.
    pixel_format
        Bits stored, sign, padding range.
    slope, intercept
        HU = slope * stored + intercept (PS3.3 C.11.1).
    out
        (rows, columns) int16.
    """
    values = _valid_bits(stored, pixel_format)
    padded = _padding_mask(values, pixel_format, slope, intercept)
    low, high = int(values.min()), int(values.max())
    if slope == 1.0 and intercept.is_integer() and low + intercept >= _LOWEST and high + intercept <= _HIGHEST:
        # May wrap around and back within 16 bits: exact, because the result is known to fit.
        np.add(values.view(np.int16), np.int16(_wrapped(int(intercept))), out=out)
    else:
        hu = values.astype(np.float64)
        hu *= slope
        hu += intercept
        np.rint(hu, out=hu)
        np.clip(hu, _LOWEST, _HIGHEST, out=hu)
        out[...] = hu
    if padded is not None:
        out[padded] = AIR_HU


def _valid_bits(stored: NDArray[Any], pixel_format: PixelFormat) -> NDArray[Any]:
    """Stored values without what some scanners keep in the bits above BitsStored (overlays), sign extended."""
    unused = pixel_format.bits_allocated - pixel_format.bits_stored
    if unused == 0:
        return stored
    if pixel_format.is_signed:
        return np.asarray((stored << unused) >> unused)
    return np.asarray(stored & stored.dtype.type((1 << pixel_format.bits_stored) - 1))


def _padding_mask(
    values: NDArray[Any], pixel_format: PixelFormat, slope: float, intercept: float
) -> NDArray[np.bool_] | None:
    if pixel_format.padding is None:
        return None
    low, high = pixel_format.padding
    if high * slope + intercept >= _MEASURED_HU[0] and low * slope + intercept <= _MEASURED_HU[1]:
        return None
    mask = values == low if low == high else (values >= low) & (values <= high)
    return mask if mask.any() else None


def _wrapped(value: int) -> int:
    """The int16 with the same low 16 bits."""
    return (value + 0x8000) % 0x10000 - 0x8000
