"""How sure the volume is: an interval from the voxels' size and from how sharply the network drew the outline."""

from __future__ import annotations

import numpy as np

from app.inference.findings import NoduleMask
from app.inference.measurements import volume_mm3

STRICT, LAX = 0.75, 0.25
"""Mask probabilities between which the outline may as well have been drawn."""

VOXEL_WEIGHT, DOUBT_WEIGHT = 0.28, 2.14
"""Standard deviations of the volume's logarithm for each unit of `voxel_share` and of `outline_doubt`.

Fitted by `python -m training.measurement_fit` against the readers' outlines of LIDC patients; coverage on patients that
had no part in it is in docs/measurements.md.
"""
_QUANTILE = 1.96


def voxel_share(mask: NoduleMask) -> float:
    """Share of a sphere of the mask's volume that half a voxel's diagonal along its surface makes up.

    Half the root mean square of the voxel's edges, over a third of the sphere's radius: thick slices and small nodules
    are unsure.
    """
    radius_mm = float(np.cbrt(volume_mm3(mask) * 3 / (4 * np.pi)))
    edge_mm = float(np.sqrt((mask.grid.spacing_zyx_mm**2).mean()))
    return 3 * (edge_mm / 2) / radius_mm


def outline_doubt(mask: NoduleMask) -> float:
    """Half the difference of the logarithms of the volumes at `LAX` and `STRICT` within a voxel of the outline.

    0 where the network gave no probabilities.
    """
    if mask.probability is None:
        return 0.0
    grown = _grown(mask.voxels)
    lax = int(np.count_nonzero(grown & (mask.probability >= LAX)))
    strict = int(np.count_nonzero(mask.voxels & (mask.probability >= STRICT)))
    return float(np.log(max(lax, 1) / max(strict, 1))) / 2


def volume_interval_mm3(mask: NoduleMask) -> tuple[float, float]:
    """95 % interval of the volume in mm3: log-normal about the number of voxels."""
    spread = log_spread(voxel_share(mask), outline_doubt(mask))
    factor, volume = float(np.exp(_QUANTILE * spread)), volume_mm3(mask)
    return volume / factor, volume * factor


def log_spread(voxels: float, doubt: float) -> float:
    """Standard deviation of the volume's logarithm, from `voxel_share` and `outline_doubt`."""
    return float(np.hypot(VOXEL_WEIGHT * voxels, DOUBT_WEIGHT * doubt))


def _grown(voxels: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    grown = np.pad(voxels, 1)
    grown = grown | np.roll(grown, 1, 0) | np.roll(grown, -1, 0)
    grown = grown | np.roll(grown, 1, 1) | np.roll(grown, -1, 1)
    grown = grown | np.roll(grown, 1, 2) | np.roll(grown, -1, 2)
    return np.asarray(grown[1:-1, 1:-1, 1:-1])
