"""Figures with their interval and their n: percentile bootstraps over groups, paired differences, the area under ROC.

Where cases of one patient are not independent the unit that is resampled is the patient: pass ``groups``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

IntArray = NDArray[np.intp]

CONFIDENCE = 0.95
N_BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Estimate:
    """A measured figure, its confidence interval and the number of cases it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


@dataclass(frozen=True)
class PairedDifference:
    """First minus second on the same cases, and the two-sided p-value of no difference."""

    difference: Estimate
    p_value: float


def percentile_interval(samples: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile bootstrap interval; draws in which the figure is not defined (NaN) are left out."""
    defined = np.asarray(samples, dtype=np.float64)
    defined = defined[~np.isnan(defined)]
    if defined.size == 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, (tail, 1 - tail), method="inverted_cdf")
    return float(low), float(high)


def resamples(groups: ArrayLike, n_bootstraps: int, seed: int) -> Iterator[IntArray]:
    """Case indices of bootstrap draws: whole groups (patients) with replacement, as many as there are."""
    _, group_of_case = np.unique(np.asarray(groups), return_inverse=True)
    by_group = np.argsort(group_of_case, kind="stable")
    counts = np.bincount(group_of_case)
    starts = np.cumsum(counts) - counts
    generator = np.random.default_rng(seed)
    for _ in range(n_bootstraps):
        drawn = generator.integers(len(counts), size=len(counts))
        sizes = counts[drawn]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield by_group[np.repeat(starts[drawn], sizes) + within]


def bootstrap(
    statistic: Callable[[IntArray], float],
    groups: ArrayLike,
    *,
    n_bootstraps: int = N_BOOTSTRAPS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A figure of case indices with its interval by resampling groups.

    Parameters
    ----------
    statistic
        Case indices (with repetitions) -> figure; NaN where it is not defined.
    groups
        (n,) the patient (or scan) of each case.
    """
    n = np.asarray(groups).shape[0]
    low, high = percentile_interval(
        [statistic(drawn) for drawn in resamples(groups, n_bootstraps, seed)], confidence=confidence
    )
    return Estimate(float(statistic(np.arange(n))), low, high, n)


def paired_bootstrap(
    statistic: Callable[[IntArray, int], float],
    groups: ArrayLike,
    *,
    n_bootstraps: int = N_BOOTSTRAPS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> PairedDifference:
    """Compare two methods on the same cases by resampling groups once for both.

    Parameters
    ----------
    statistic
        (case indices, method 0 or 1) -> figure.

    Notes
    -----
    The p-value is twice the smaller tail of the differences beyond 0, with one added to count and draws (Davison and
    Hinkley 1997), so it is never 0.
    """
    n = np.asarray(groups).shape[0]
    draws = np.array(
        [statistic(drawn, 0) - statistic(drawn, 1) for drawn in resamples(groups, n_bootstraps, seed)], dtype=np.float64
    )
    draws = draws[~np.isnan(draws)]
    everything = np.arange(n)
    low, high = percentile_interval(draws, confidence)
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2.0 * (float(tail) + 1) / (draws.size + 1))
    return PairedDifference(Estimate(statistic(everything, 0) - statistic(everything, 1), low, high, n), p_value)


def area_under_roc(is_positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve with half a point for ties; NaN where one class is absent."""
    positive = np.asarray(is_positive, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return math.nan
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
