"""The low-resolution lung mask against the same method at full resolution.

At full resolution the steps are the same, on voxels of a third of the usual size or the scan's own, whichever is
coarser. Dice is taken on the full-resolution voxels. What decides for detection is the share of the full-resolution
lung that the widened low-resolution mask holds: only there are candidates kept.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from app.imaging import lungs
from app.imaging.reading import read_ct

FULL_SPACING_MM = lungs.WORKING_SPACING_MM / 3
MARGIN_MM = 6.0


def compared(scan: Path) -> dict[str, Any]:
    """Dice, the share of lung kept, and the seconds of both."""
    volume, _ = read_ct(scan)
    began = time.perf_counter()
    low = lungs.segment_lungs(volume)
    low_s = time.perf_counter() - began
    with patch.object(lungs, "WORKING_SPACING_MM", FULL_SPACING_MM):
        began = time.perf_counter()
        full = lungs.segment_lungs(volume)
        full_s = time.perf_counter() - began
    truth = full.labels > 0
    found = low.widened_on(full.grid, 0.0)
    widened = low.widened_on(full.grid, MARGIN_MM)
    return {
        "dice": float(2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found))),
        "kept_share": float(np.count_nonzero(truth & widened) / np.count_nonzero(truth)),
        "low_ml": round(low.volume_ml()),
        "full_ml": round(full.volume_ml()),
        "low_spacing_mm": [round(float(mm), 2) for mm in low.grid.spacing_zyx_mm],
        "full_spacing_mm": [round(float(mm), 2) for mm in full.grid.spacing_zyx_mm],
        "seconds": {"low": low_s, "full": full_s},
    }
