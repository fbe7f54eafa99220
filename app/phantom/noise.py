"""Noise with the texture of a CT reconstruction kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import fft

_SLICE_MIX = np.sqrt(np.array([0.2, 0.6, 0.2], dtype=np.float32))
"""Neighbouring slices share part of their rays."""


def correlated_slices(
    rng: np.random.Generator, shape_zyx: tuple[int, int, int], spacing_yx_mm: tuple[float, float]
) -> Iterator[NDArray[np.float32]]:
    """Yield (rows, columns) of unit-variance noise for each slice in turn.

    In-plane the power rises from zero as filtered back projection's ramp does and is cut off by a soft kernel near 6
    line pairs per cm; along z each slice shares a fifth of its power with each neighbour.
    """
    depth, rows, columns = shape_zyx
    cycles = np.hypot(
        fft.fftfreq(rows, spacing_yx_mm[0])[:, None].astype(np.float32),
        fft.rfftfreq(columns, spacing_yx_mm[1])[None, :].astype(np.float32),
    )
    filtered = np.sqrt(cycles + 0.01) * np.exp(-((cycles / 0.55) ** 2))
    white = rng.standard_normal((3, rows, columns), dtype=np.float32)
    scale = np.float32(1.0)
    for z in range(depth):
        mixed = _SLICE_MIX[0] * (white[0] + white[2]) + _SLICE_MIX[1] * white[1]
        noise = fft.irfft2(fft.rfft2(mixed) * filtered, s=(rows, columns))
        if z == 0:
            scale = np.float32(1.0 / max(float(noise.std()), 1e-6))
        yield np.asarray(noise * scale, dtype=np.float32)
        white[:2] = white[1:]
        white[2] = rng.standard_normal((rows, columns), dtype=np.float32)
