"""Two models on the same scans: differences with intervals by resampling scans, the same draw for both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.evaluation.estimates import PairedDifference, paired_bootstrap
from app.evaluation.froc import FP_RATES, Events, FloatArray, FrocResult, FrocRules

FP_PER_SCAN = 1.0


@dataclass(frozen=True)
class FrocDifference:
    """First model minus second; n counts scans."""

    cpm: PairedDifference
    sensitivity_at_1_fp_per_scan: PairedDifference


def froc_difference(first: FrocResult, second: FrocResult, rules: FrocRules) -> FrocDifference:
    """Compare two evaluations of the same scans.

    Raises
    ------
    ValueError
        They are of other scans.
    """
    uids = [[scan.series_uid for scan in result.scans] for result in (first, second)]
    if uids[0] != uids[1]:
        raise ValueError("the two evaluations are not of the same scans in the same order")
    events, n_scans = [Events.of(result.scans) for result in (first, second)], len(uids[0])
    known: dict[tuple[bytes, int], FloatArray] = {}

    def sensitivities(drawn: np.ndarray[tuple[int, ...], np.dtype[np.intp]], model: int) -> FloatArray:
        times = np.bincount(drawn, minlength=n_scans)
        key = (times.tobytes(), model)  # both figures are asked of the same draws
        if key not in known:
            known[key] = events[model].curve(times).sensitivity_at(np.array(FP_RATES))
        return known[key]

    def difference(columns: list[int]) -> PairedDifference:
        return paired_bootstrap(
            lambda drawn, model: float(sensitivities(drawn, model)[columns].mean()),
            np.arange(n_scans),
            n_bootstraps=rules.n_bootstraps,
            seed=rules.seed,
            confidence=rules.confidence,
        )

    return FrocDifference(difference(list(range(len(FP_RATES)))), difference([FP_RATES.index(FP_PER_SCAN)]))
