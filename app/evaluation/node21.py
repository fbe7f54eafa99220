"""NODE21's score and both readings of "FROC25%", adapted to CT.

NODE21 scores 2-D chest X-rays: ``0.75 * AUROC + 0.25 * sensitivity at 0.25 false positives per image``. Here an image
is a scan, its score the highest probability of its marks, and a hit is LUNA16's. The project's text asks for the "false
positive rate at 25 % sensitivity"; NODE21 measures the sensitivity at 0.25 false positives. Both are given, each under
its own name; the combined score uses the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.evaluation.estimates import Estimate, area_under_roc, percentile_interval
from app.evaluation.froc import Events, FrocResult, FrocRules, draws_of_scans

AUROC_WEIGHT = 0.75
FP_PER_SCAN = 0.25
SENSITIVITY = 0.25


@dataclass(frozen=True)
class Node21Score:
    """NODE21's figures on CT (an adaptation); every interval is by resampling scans."""

    scan_auroc: Estimate
    """Scans with against scans without a nodule, by their highest probability; n counts scans. NaN without both."""
    sensitivity_at_quarter_fp_per_scan: Estimate
    """n counts nodules."""
    fp_per_scan_at_quarter_sensitivity: Estimate
    """n counts nodules; inf where the curve never reaches 25 % sensitivity."""
    combined: Estimate
    """0.75 AUROC + 0.25 sensitivity at 0.25 FP/scan; n counts scans."""

    def by_name(self) -> dict[str, Estimate]:
        """The estimates under the names that reports use."""
        return {
            "scan_auroc": self.scan_auroc,
            "sensitivity_at_0.25_fp_per_scan": self.sensitivity_at_quarter_fp_per_scan,
            "fp_per_scan_at_25_percent_sensitivity": self.fp_per_scan_at_quarter_sensitivity,
            "node21_combined_adapted_to_ct": self.combined,
        }


def node21_score(result: FrocResult, *, n_bootstraps: int = 1000, seed: int = 0) -> Node21Score:
    """Score an evaluated submission; the draws are those of the FROC band with the same seed."""
    events = Events.of(result.scans)
    has_nodule = np.array([bool(scan.nodules) for scan in result.scans])
    scores = np.array([scan.max_probability for scan in result.scans])

    def figures(times_drawn: NDArray[np.int64]) -> tuple[float, float, float, float]:
        drawn = np.repeat(np.arange(len(scores)), times_drawn)
        area = area_under_roc(has_nodule[drawn], scores[drawn])
        curve = events.curve(times_drawn)
        sensitivity = float(curve.sensitivity_at(FP_PER_SCAN))
        reached = curve.fp_per_scan_at(SENSITIVITY) if not math.isnan(sensitivity) else math.nan
        return area, sensitivity, reached, AUROC_WEIGHT * area + (1 - AUROC_WEIGHT) * sensitivity

    rules = FrocRules(n_bootstraps=n_bootstraps, seed=seed)
    draws = np.array([figures(times) for times in draws_of_scans(len(scores), rules)]).reshape(-1, 4)
    values = figures(np.ones(len(scores), dtype=np.int64))
    n_of_figure = (len(scores), result.n_nodules, result.n_nodules, len(scores))
    return Node21Score(
        *(
            Estimate(value, *percentile_interval(draws[:, column]), n)
            for column, (value, n) in enumerate(zip(values, n_of_figure, strict=True))
        )
    )
