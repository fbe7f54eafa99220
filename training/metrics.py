"""Figures with their interval and their n: AUROC, shares, Dice, agreement, paired comparisons.

Every interval is a 95 % interval unless the caller says otherwise. Where cases of one patient are not independent the
unit that is resampled is the patient: pass ``groups``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

FloatArray = NDArray[np.float64]
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


def auroc(
    is_positive: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_bootstraps: int = N_BOOTSTRAPS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """AUROC with its interval: by patient where ``groups`` are given, else DeLong's on the logit scale.

    Raises
    ------
    ValueError
        If a class is absent, a score is not finite, or the lengths differ.
    """
    positive, values = _checked(is_positive, scores)
    if groups is not None:
        if np.asarray(groups).shape != positive.shape:
            raise ValueError(f"groups has shape {np.asarray(groups).shape}, the labels {positive.shape}")
        return bootstrap(
            lambda drawn: area_under_roc(positive[drawn], values[drawn]),
            groups,
            n_bootstraps=n_bootstraps,
            seed=seed,
            confidence=confidence,
        )
    area = area_under_roc(positive, values)
    error = math.sqrt(_delong_covariance(positive, values[None])[0, 0])
    low, high = _logit_interval(area, error, confidence)
    return Estimate(area, low, high, positive.size)


def delong_test(
    is_positive: ArrayLike, first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE
) -> PairedDifference:
    """Paired comparison of two correlated AUROCs of independent cases (DeLong, DeLong and Clarke-Pearson 1988)."""
    positive, first_values = _checked(is_positive, first)
    _, second_values = _checked(is_positive, second)
    covariance = _delong_covariance(positive, np.stack([first_values, second_values]))
    difference = area_under_roc(positive, first_values) - area_under_roc(positive, second_values)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = math.sqrt(max(variance, 0.0))
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    p_value = 2 * float(norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)
    return PairedDifference(
        Estimate(difference, difference - reach, difference + reach, positive.size), min(p_value, 1.0)
    )


def proportion(n_successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share with Wilson's score interval; NaN for n = 0."""
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    z = float(norm.ppf((1 + confidence) / 2))
    share = n_successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, max(0.0, middle - reach), min(1.0, middle + reach), n)


def dice(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Dice overlap of two boolean masks of one shape; 1 where both are empty."""
    if first.shape != second.shape:
        raise ValueError(f"masks have shapes {first.shape} and {second.shape}")
    a, b = first.astype(bool), second.astype(bool)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


@dataclass(frozen=True)
class BlandAltman:
    """Agreement of two measurements of the same things (Bland and Altman 1986)."""

    bias: Estimate
    lower_limit: Estimate
    upper_limit: Estimate


def bland_altman(measured: ArrayLike, reference: ArrayLike, confidence: float = CONFIDENCE) -> BlandAltman:
    """Bias and 95 % limits of agreement of ``measured - reference``, with their own intervals."""
    difference = np.asarray(measured, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    n = difference.size
    if n < 2:
        raise ValueError(f"limits of agreement need at least 2 pairs, got {n}")
    z = float(norm.ppf((1 + confidence) / 2))
    bias, spread = float(difference.mean()), float(difference.std(ddof=1))
    bias_reach = z * spread / math.sqrt(n)
    limit_reach = z * spread * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    lower, upper = bias - 1.96 * spread, bias + 1.96 * spread
    return BlandAltman(
        Estimate(bias, bias - bias_reach, bias + bias_reach, n),
        Estimate(lower, lower - limit_reach, lower + limit_reach, n),
        Estimate(upper, upper - limit_reach, upper + limit_reach, n),
    )


def _checked(is_positive: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], FloatArray]:
    positive = np.asarray(is_positive, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    if positive.ndim != 1 or positive.shape != values.shape:
        raise ValueError(f"labels have shape {positive.shape}, scores {values.shape}; both must be (n,)")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} scores are not finite")
    if positive.all() or not positive.any():
        raise ValueError(f"AUROC needs both classes, got {int(positive.sum())} positive of {positive.size}")
    return positive, values


def _delong_covariance(positive: NDArray[np.bool_], scores: FloatArray) -> FloatArray:
    """(k, k) covariance of k AUROCs from (k, n) scores, by midranks (Sun and Xu 2014)."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    everyone = rankdata(scores, axis=1)
    above_negatives = (everyone[:, positive] - rankdata(scores[:, positive], axis=1)) / n_negative
    below_positives = 1 - (everyone[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_positive
    return _covariance_of_mean(above_negatives) + _covariance_of_mean(below_positives)


def _covariance_of_mean(components: FloatArray) -> FloatArray:
    k, n = components.shape
    if n < 2:
        return np.zeros((k, k))
    return np.asarray(np.atleast_2d(np.cov(components)) / n)


def _logit_interval(area: float, error: float, confidence: float) -> tuple[float, float]:
    if error == 0 or area in {0.0, 1.0}:
        return area, area
    reach = float(norm.ppf((1 + confidence) / 2)) * error / (area * (1 - area))
    return float(expit(logit(area) - reach)), float(expit(logit(area) + reach))
