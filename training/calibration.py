"""Calibration of probabilities: Brier, ECE, reliability bins, temperature and isotonic scaling.

Scaling is fitted on patients that were held out of training and applied to others; a figure of calibration is measured
on patients that neither the network nor the scaling has seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from app.evaluation.estimates import N_BOOTSTRAPS, Estimate, bootstrap
from training.metrics import proportion

FloatArray = NDArray[np.float64]

_SMALLEST = 1e-7


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases of one range of predicted probability."""

    mean_predicted: float
    observed: Estimate
    """Share that is positive, with Wilson's interval."""


@dataclass(frozen=True)
class Temperature:
    """Divide the log-odds by one number: order and AUROC stay as they are."""

    temperature: float

    def __call__(self, probability: ArrayLike) -> FloatArray:
        """(n,) probabilities -> (n,) calibrated probabilities."""
        return np.asarray(expit(_log_odds(probability) / self.temperature))


@dataclass(frozen=True)
class Isotonic:
    """A rising piecewise linear map through points, level beyond both ends."""

    predicted: tuple[float, ...]
    calibrated: tuple[float, ...]

    def __call__(self, probability: ArrayLike) -> FloatArray:
        """(n,) probabilities -> (n,) calibrated probabilities."""
        return np.asarray(np.interp(np.asarray(probability, dtype=np.float64), self.predicted, self.calibrated))


def fit_temperature(is_positive: ArrayLike, probability: ArrayLike) -> Temperature:
    """The temperature of smallest log loss (Guo et al. 2017), between 1/20 and 20."""
    positive, values = _checked(is_positive, probability)
    signed = np.where(positive, 1.0, -1.0) * _log_odds(values)

    def log_loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signed / np.exp(log_temperature)).mean())

    best = minimize_scalar(log_loss, bounds=(-np.log(20), np.log(20)), method="bounded", options={"xatol": 1e-6})
    return Temperature(float(np.exp(best.x)))


def fit_isotonic(is_positive: ArrayLike, probability: ArrayLike) -> Isotonic:
    """The rising map of smallest squared error (pool adjacent violators, scikit-learn)."""
    positive, values = _checked(is_positive, probability)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(values, positive.astype(np.float64))
    return Isotonic(tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_)))


def reliability_bins(is_positive: ArrayLike, probability: ArrayLike, n_bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Equal ranges of predicted probability, those without cases left out; 1 belongs to the last."""
    positive, values = _checked(is_positive, probability)
    bin_of_case = _bin_of_case(values, n_bins)
    return tuple(
        ReliabilityBin(float(values[inside].mean()), proportion(int(positive[inside].sum()), int(inside.sum())))
        for inside in (bin_of_case == index for index in range(n_bins))
        if inside.any()
    )


def expected_calibration_error(
    is_positive: ArrayLike,
    probability: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_bins: int = 10,
    n_bootstraps: int = N_BOOTSTRAPS,
    seed: int = 0,
) -> Estimate:
    """ECE over equal ranges, with an interval by resampling groups (cases, where none are given).

    ECE is biased upwards in small samples, so the interval of a well calibrated model may lie above its value.
    """
    positive, values = _checked(is_positive, probability)
    bin_of_case, gap = _bin_of_case(values, n_bins), values - positive

    def error(drawn: NDArray[np.intp]) -> float:
        return float(np.abs(np.bincount(bin_of_case[drawn], weights=gap[drawn])).sum() / drawn.size)

    return bootstrap(error, _groups(groups, positive.size), n_bootstraps=n_bootstraps, seed=seed)


def brier_score(
    is_positive: ArrayLike,
    probability: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_bootstraps: int = N_BOOTSTRAPS,
    seed: int = 0,
) -> Estimate:
    """Mean squared error of the probability, with an interval by resampling groups."""
    positive, values = _checked(is_positive, probability)
    squared = (values - positive) ** 2
    return bootstrap(
        lambda drawn: float(squared[drawn].mean()),
        _groups(groups, positive.size),
        n_bootstraps=n_bootstraps,
        seed=seed,
    )


def _groups(groups: ArrayLike | None, n: int) -> NDArray[np.generic]:
    return np.arange(n) if groups is None else np.asarray(groups)


def _bin_of_case(values: FloatArray, n_bins: int) -> NDArray[np.intp]:
    return np.minimum((values * n_bins).astype(np.intp), n_bins - 1)


def _log_odds(probability: ArrayLike) -> FloatArray:
    return np.asarray(logit(np.clip(np.asarray(probability, dtype=np.float64), _SMALLEST, 1 - _SMALLEST)))


def _checked(is_positive: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], FloatArray]:
    positive = np.asarray(is_positive, dtype=bool)
    values = np.asarray(probability, dtype=np.float64)
    if positive.ndim != 1 or positive.shape != values.shape or not positive.size:
        raise ValueError(f"labels have shape {positive.shape}, probabilities {values.shape}; both must be (n,), n > 0")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("probabilities must lie in 0..1")
    return positive, values
