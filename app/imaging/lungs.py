"""Where the lungs are: a low-resolution mask, left and right told apart, and its box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import CtVolume, Grid

BACKGROUND, RIGHT, LEFT = 0, 1, 2
"""Values of `LungMask.labels`; right and left are the patient's."""


@dataclass(frozen=True)
class LungMask:
    """Lungs of one CT on a coarse grid of their own.

    Parameters
    ----------
    labels
        uint8 (z, y, x): BACKGROUND, RIGHT or LEFT.
    grid
        Coarse grid whose axes run along the scan's own.
    """

    labels: NDArray[np.uint8]
    grid: Grid

    def box_corners_lps_mm(self) -> NDArray[np.float64]:
        """(8, 3) corners in patient LPS mm of the smallest box, along the grid's axes, that holds both lungs."""
        raise NotImplementedError

    def widened_on(self, grid: Grid, margin_mm: float) -> NDArray[np.bool_]:
        """The mask widened by ``margin_mm``, sampled at the voxel centres of another grid with the same axes."""
        raise NotImplementedError


def segment_lungs(volume: CtVolume) -> LungMask:
    """Find the lungs of a chest CT."""
    raise NotImplementedError
