"""Figures with their interval and their n: AUROC, shares, Dice, agreement, paired comparisons.

Every interval is a 95 % interval unless the caller says otherwise. Where cases of one patient are not independent the
unit that is resampled is the patient: pass ``groups``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from app.evaluation.estimates import CONFIDENCE, N_BOOTSTRAPS, Estimate, PairedDifference, area_under_roc, bootstrap

FloatArray = NDArray[np.float64]


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
