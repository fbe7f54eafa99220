"""Stored values to Hounsfield units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.dicom_headers import PixelFormat

AIR_HU = -1024
"""What padding outside the reconstruction circle is set to."""
_LOWEST, _HIGHEST = -32768, 32767


def write_hu(
    stored: NDArray[Any], pixel_format: PixelFormat, slope: float, intercept: float, out: NDArray[np.int16]
) -> None:
    """Rescale one slice into ``out``, rounded and clamped to int16; padding becomes air.

    Parameters
    ----------
    stored
        (rows, columns) stored values, 8, 16 or 32 bits, signed or not; may share memory with ``out``.
    pixel_format
        Bits stored, sign, padding range.
    slope, intercept
        HU = slope * stored + intercept (PS3.3 C.11.1).
    out
        (rows, columns) int16, contiguous.
    """
    valid = _valid_bits(stored, pixel_format)
    padded = _padding_mask(valid, pixel_format)
    low, high = int(valid.min()), int(valid.max())
    fits = (
        slope == 1.0 and float(intercept).is_integer() and _LOWEST <= low + intercept and high + intercept <= _HIGHEST
    )
    if fits and valid.dtype.itemsize <= 2:
        # Wraps around and back in 16 bits: exact, because the result is known to fit.
        np.add(valid.astype(np.int16, copy=False), np.int16(int(intercept)), out=out)
    else:
        hu = valid.astype(np.float64)
        hu *= slope
        hu += intercept
        np.rint(hu, out=hu)
        np.clip(hu, _LOWEST, _HIGHEST, out=hu)
        out[...] = hu
    if padded is not None:
        out[padded] = AIR_HU


def _valid_bits(stored: NDArray[Any], pixel_format: PixelFormat) -> NDArray[Any]:
    """Stored values without what old scanners keep in the bits above BitsStored (overlays)."""
    unused = pixel_format.bits_allocated - pixel_format.bits_stored
    if unused == 0:
        return stored
    if pixel_format.is_signed:
        return (stored << unused) >> unused
    return stored & ((1 << pixel_format.bits_stored) - 1)


def _padding_mask(values: NDArray[Any], pixel_format: PixelFormat) -> NDArray[np.bool_] | None:
    if pixel_format.padding is None:
        return None
    low, high = pixel_format.padding
    mask = (values >= low) & (values <= high) if low != high else values == low
    return mask if mask.any() else None
