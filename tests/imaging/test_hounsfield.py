"""Stored values to HU, bit for bit, for every layout that CT is stored in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.imaging.hounsfield import AIR_HU, write_hu
from app.imaging.slice_header import PixelFormat


def layout(bits: int = 16, *, signed: bool = False, padding: tuple[int, int] | None = None) -> PixelFormat:
    return PixelFormat(4, 5, 16, bits, bits - 1, signed, little_endian=True, padding=padding)


def hu(stored: np.ndarray, pixel_format: PixelFormat, slope: float = 1.0, intercept: float = 0.0) -> np.ndarray:
    out = np.full(stored.shape, 7, np.int16)
    write_hu(stored, pixel_format, slope, intercept, out)
    return out


@example(np.zeros((4, 5), np.uint16), 16, False, 1.0, -40000.0)
@example(np.full((4, 5), 60000, np.uint16), 16, False, 1.0, 0.0)
@given(
    arrays(np.uint16, (4, 5)),
    st.integers(1, 16),
    st.booleans(),
    st.one_of(st.just(1.0), st.floats(0.001, 100.0)),
    st.one_of(st.integers(-70000, 70000).map(float), st.floats(-2000.0, 2000.0)),
)
def test_rescale_is_exact_rounded_and_clamped(
    stored: np.ndarray, bits: int, signed: bool, slope: float, intercept: float
) -> None:
    value = stored.astype(np.int64) & ((1 << bits) - 1)
    if signed:
        value = np.where(value >= 1 << (bits - 1), value - (1 << bits), value)
    expected = np.clip(np.rint(value * slope + intercept), -32768, 32767)
    stored_as = stored.view(np.int16) if signed else stored
    np.testing.assert_array_equal(hu(stored_as, layout(bits, signed=signed), slope, intercept), expected)


def test_overlays_above_the_stored_bits_are_dropped() -> None:
    stored = np.array([[0xF123, 0x0123]], np.uint16)
    np.testing.assert_array_equal(hu(stored, layout(12), 1.0, -1024.0), [[0x123 - 1024] * 2])


@pytest.mark.parametrize(("padding", "stored"), [((-2000, -2000), -2000), ((-3000, -1900), -1950)])
def test_padding_becomes_air(padding: tuple[int, int], stored: int) -> None:
    values = np.array([[stored, 100]], np.int16)
    found = hu(values, layout(signed=True, padding=padding), 1.0, -1024.0)
    np.testing.assert_array_equal(found, [[AIR_HU, 100 - 1024]])


def test_padding_that_tissue_could_have_is_not_believed() -> None:
    """PixelPaddingValue 0 with intercept 0 would cut water out of the patient."""
    values = np.array([[0, 40]], np.int16)
    np.testing.assert_array_equal(hu(values, layout(signed=True, padding=(0, 0))), [[0, 40]])
