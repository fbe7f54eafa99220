"""Figures of the second stage on held-out patients, of one fold or pooled over folds.

What a figure is measured on has chosen nothing in it: calibration and the mask's shift are cross-fitted, each half of
a fold's patients judged by what the other half chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from app.evaluation.estimates import Estimate, area_under_roc, bootstrap
from training.calibration import expected_calibration_error
from training.characteriser_scores import MASK_SHIFTS, NoduleScores, PatchScores
from training.config import DataConfig
from training.metrics import auroc, proportion
from training.served import Calibration

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class JudgedPatches:
    """Candidate patches with what the network of their fold says of them.

    Parameters
    ----------
    log_odds
        By the calibration that ships with the fold's network: what candidates are ranked by.
    probability
        By a calibration that never saw the patient.
    """

    log_odds: FloatArray
    probability: FloatArray
    is_nodule: BoolArray
    nodule_key: NDArray[np.int64]
    series_uid: NDArray[np.str_]
    patient_id: NDArray[np.str_]


@dataclass(frozen=True)
class JudgedNodules:
    """Nodules with what the network of their fold says of them; ``log_odds`` and ``probability`` are of malignancy."""

    log_odds: FloatArray
    probability: FloatArray
    malignant: BoolArray
    rated: BoolArray
    """False where the mean rating says neither benign nor malignant."""
    readers: NDArray[np.int64]
    dice: FloatArray
    diameter_mm: FloatArray
    reference_diameter_mm: FloatArray
    patient_id: NDArray[np.str_]


_Judged = TypeVar("_Judged", JudgedPatches, JudgedNodules)


def judge_patches(scores: PatchScores) -> tuple[JudgedPatches, Calibration]:
    """One fold's candidates, and the calibration to ship."""
    calibration = fit_calibration(scores.logit, scores.is_nodule)
    return JudgedPatches(
        scores.logit * calibration.slope + calibration.intercept,
        cross_calibrated(scores.logit, scores.is_nodule, scores.patient_id),
        scores.is_nodule,
        scores.nodule_key,
        scores.series_uid,
        scores.patient_id,
    ), calibration


def judge_nodules(data: DataConfig, scores: NoduleScores) -> tuple[JudgedNodules, Calibration, float]:
    """One fold's nodules, the calibration of malignancy and the shift of the mask's log-odds to ship."""
    rated = (scores.mean_rating < data.benign_below) | (scores.mean_rating > data.malignant_above)
    malignant = scores.mean_rating > data.malignant_above
    calibration = fit_calibration(scores.malignancy_logit[rated], malignant[rated])
    probability = np.full(len(rated), np.nan)
    probability[rated] = cross_calibrated(scores.malignancy_logit[rated], malignant[rated], scores.patient_id[rated])
    chosen = _cross_chosen_shift(scores)
    every = np.arange(len(rated))
    return (
        JudgedNodules(
            scores.malignancy_logit * calibration.slope + calibration.intercept,
            probability,
            malignant,
            rated,
            scores.readers,
            scores.dice[every, chosen],
            scores.diameter_mm[every, chosen],
            scores.reference_diameter_mm,
            scores.patient_id,
        ),
        calibration,
        MASK_SHIFTS[_best_shift(scores.dice)],
    )


def pooled(folds: Sequence[_Judged]) -> _Judged:
    """All folds as one."""
    kind = type(folds[0])
    return kind(**{f.name: np.concatenate([getattr(fold, f.name) for fold in folds]) for f in fields(kind)})


def fit_calibration(logit: FloatArray, is_positive: BoolArray) -> Calibration:
    """Platt scaling: slope and intercept of smallest log loss."""
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(logit[:, None], is_positive)
    return Calibration(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))


def calibrated(logit: FloatArray, calibration: Calibration) -> FloatArray:
    """Probability of each logit."""
    return np.asarray(1 / (1 + np.exp(-(logit * calibration.slope + calibration.intercept))))


def cross_calibrated(logit: FloatArray, is_positive: BoolArray, patient: NDArray[np.str_]) -> FloatArray:
    """Probabilities calibrated on the other half of the patients: none is judged by a fit that saw it."""
    half = _half_of_patients(patient)
    probability = np.empty_like(logit)
    for part in (half, ~half):
        probability[part] = calibrated(logit[part], fit_calibration(logit[~part], is_positive[~part]))
    return probability


def _half_of_patients(patient: NDArray[np.str_]) -> BoolArray:
    names = np.unique(patient)
    return np.isin(patient, names[np.random.default_rng(0).permutation(len(names))[: len(names) // 2]])


def _best_shift(overlap: FloatArray) -> int:
    return int(np.argmax(overlap.mean(axis=0)))


def _cross_chosen_shift(scores: NoduleScores) -> NDArray[np.intp]:
    """For each nodule, the shift of largest mean Dice in the other half of the patients."""
    half = _half_of_patients(scores.patient_id)
    return np.where(half, _best_shift(scores.dice[~half]), _best_shift(scores.dice[half]))


def sensitivity_among_candidates(judged: JudgedPatches, fp_per_scan: float) -> tuple[Estimate, float]:
    """Share of nodules with a candidate above the threshold leaving ``fp_per_scan`` false ones, and its log-odds."""
    false = np.sort(judged.log_odds[~judged.is_nodule])[::-1]
    allowed = int(fp_per_scan * len(np.unique(judged.series_uid)))
    threshold = float(false[min(allowed, len(false) - 1)])
    hit = judged.is_nodule & (judged.log_odds > threshold)
    total = len(np.unique(judged.nodule_key[judged.is_nodule]))
    return proportion(len(np.unique(judged.nodule_key[hit])), total), threshold


def patch_figures(judged: JudgedPatches) -> dict[str, Estimate]:
    """Nodule against non-nodule."""
    return {
        "nodule_auroc": auroc(judged.is_nodule, judged.log_odds, judged.patient_id),
        "sensitivity_at_1_fp_per_scan_among_candidates": sensitivity_among_candidates(judged, 1.0)[0],
        "sensitivity_at_0.25_fp_per_scan_among_candidates": sensitivity_among_candidates(judged, 0.25)[0],
        "nodule_ece": expected_calibration_error(judged.is_nodule, judged.probability, judged.patient_id),
    }


def nodule_figures(judged: JudgedNodules) -> dict[str, Estimate]:
    """Malignancy against the readers' mean rating, and the mask against their majority outline."""
    rated, several = judged.rated, judged.readers >= 3
    small = (judged.reference_diameter_mm < 15) & (judged.reference_diameter_mm >= 3)
    close = np.abs(judged.diameter_mm - judged.reference_diameter_mm) <= 1.5
    bias = judged.diameter_mm - judged.reference_diameter_mm
    figures = {
        "malignancy_auroc_all_readers": _auroc(judged, rated),
        "malignancy_auroc_3_or_4_readers": _auroc(judged, rated & several),
        "malignancy_ece": expected_calibration_error(
            judged.malignant[rated], judged.probability[rated], judged.patient_id[rated]
        ),
        "mask_dice_all": _mean(judged.dice, judged.patient_id),
        "mask_dice_3_or_4_readers": _mean(judged.dice[several], judged.patient_id[several]),
        "diameter_bias_mm": _mean(bias, judged.patient_id),
    }
    for name, chosen in (("", small), ("_3_or_4_readers", small & several)):
        hits = proportion(int((close & chosen).sum()), int(chosen.sum()))
        figures[f"diameter_within_1.5_mm_under_15_mm{name}"] = hits
    return figures


def _auroc(judged: JudgedNodules, chosen: BoolArray) -> Estimate:
    log_odds, positive = judged.log_odds[chosen], judged.malignant[chosen]
    return bootstrap(lambda drawn: area_under_roc(positive[drawn], log_odds[drawn]), judged.patient_id[chosen])


def _mean(values: FloatArray, groups: NDArray[np.str_]) -> Estimate:
    return bootstrap(lambda drawn: float(values[drawn].mean()), groups)
