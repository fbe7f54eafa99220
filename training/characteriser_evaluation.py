"""The second stage on patients it has never seen: real candidates and real nodules, read as the service reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from app.imaging.preprocessing import CropSpec
from app.imaging.volume import Grid
from app.inference.findings import NoduleMask
from app.inference.measurements import axes_mm
from training.calibration import expected_calibration_error
from training.config import TrainingConfig
from training.crop_augmentation import middle
from training.crops import CandidatePatches
from training.metrics import Estimate, area_under_roc, auroc, bootstrap, dice, proportion
from training.nodule_stacks import READERS, NoduleStacks
from training.served import Calibration, ServedCharacteriser
from training.splits import Split

BATCH = 128
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PatchScores:
    """Candidate patches of the held-out patients."""

    logit: FloatArray
    is_nodule: NDArray[np.bool_]
    nodule_key: NDArray[np.int64]
    series_uid: NDArray[np.str_]
    patient_id: NDArray[np.str_]


@dataclass(frozen=True)
class NoduleScores:
    """Nodules of the held-out patients."""

    malignancy_logit: FloatArray
    mean_rating: FloatArray
    readers: NDArray[np.int64]
    dice: FloatArray
    diameter_mm: FloatArray
    """From the network's mask."""
    reference_diameter_mm: FloatArray
    """From the majority outline, by the same rule."""
    patient_id: NDArray[np.str_]


def score_patches(
    config: TrainingConfig, network: ServedCharacteriser, patches: CandidatePatches, split: Split, fold: int
) -> PatchScores:
    """Logits of all candidates whose patient lies in ``fold``."""
    rows = np.flatnonzero(np.isin(patches.patient_id, split.patients(fold)))
    logits = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            crops = torch.from_numpy(patches.crops[rows[start : start + BATCH]][:, None])
            logits.append(network.logits(middle(crops, config.crop.size_px).float() / 255).nodule.numpy())
    return PatchScores(
        np.concatenate(logits).astype(np.float64),
        patches.is_nodule[rows],
        patches.nodule_key[rows],
        patches.series_uid[rows],
        patches.patient_id[rows],
    )


def score_nodules(
    config: TrainingConfig, network: ServedCharacteriser, stacks: NoduleStacks, split: Split, fold: int
) -> NoduleScores:
    """Malignancy through the middle of each nodule and the mask on each of its slices."""
    rows = np.flatnonzero(np.isin(stacks.patient_id, split.patients(fold)))
    results = [_score_nodule(config.crop, network, stacks, int(n)) for n in rows]
    malignancy, overlap, diameter, reference = (np.asarray(column) for column in zip(*results, strict=True))
    return NoduleScores(
        malignancy,
        stacks.rating("Malignancy")[rows].astype(np.float64),
        stacks.rating("NumAnnotations")[rows].astype(np.int64),
        overlap,
        diameter,
        reference,
        stacks.patient_id[rows],
    )


def _score_nodule(
    crop: CropSpec, network: ServedCharacteriser, stacks: NoduleStacks, n: int
) -> tuple[float, float, float, float]:
    first, count, spacing = int(stacks.first_slice[n]), int(stacks.slice_count[n]), float(stacks.slice_spacing_mm[n])
    steps = np.floor((count - 1) / 2 + np.asarray(crop.slice_offsets_mm) / spacing + 0.5)
    through_middle = first + np.clip(steps, 0, count - 1).astype(int)
    every_slice = slice(first, first + count)
    with torch.no_grad():
        crops = middle(torch.from_numpy(stacks.crops[through_middle][None]), crop.size_px).float() / 255
        malignancy = float(network.logits(crops).malignancy)
        stack = middle(torch.from_numpy(stacks.crops[every_slice][:, None]), crop.size_px).float() / 255
        found = network.logits(stack).mask[:, 0].numpy() >= 0
    share = middle(torch.from_numpy(stacks.reader_fraction[every_slice]), crop.size_px).numpy() / 255
    outlined = share * READERS / stacks.rating("NumAnnotations")[n] >= 0.499
    grid = Grid.from_spacing((count, crop.size_px, crop.size_px), (spacing, crop.spacing_mm, crop.spacing_mm))
    sizes = [axes_mm(NoduleMask(_largest(m), grid)).mean_mm if m.any() else 0.0 for m in (found, outlined)]
    return malignancy, dice(found, outlined), sizes[0], sizes[1]


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part, as the service keeps one."""
    labels, _ = ndimage.label(mask)
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))


def fit_calibration(logit: FloatArray, is_positive: NDArray[np.bool_]) -> Calibration:
    """Platt scaling: slope and intercept of smallest log loss."""
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(logit[:, None], is_positive)
    return Calibration(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))


def calibrated(logit: FloatArray, calibration: Calibration) -> FloatArray:
    """Probability of each logit."""
    return np.asarray(1 / (1 + np.exp(-(logit * calibration.slope + calibration.intercept))))


def cross_calibrated(logit: FloatArray, is_positive: NDArray[np.bool_], patient: NDArray[np.str_]) -> FloatArray:
    """Probabilities calibrated on the other half of the patients: none is judged by a fit that saw it."""
    names = np.unique(patient)
    half = np.isin(patient, names[np.random.default_rng(0).permutation(len(names))[: len(names) // 2]])
    probability = np.empty_like(logit)
    for part in (half, ~half):
        probability[part] = calibrated(logit[part], fit_calibration(logit[~part], is_positive[~part]))
    return probability


def sensitivity_among_candidates(scores: PatchScores, fp_per_scan: float) -> tuple[Estimate, float]:
    """Share of nodules with a candidate above the threshold that leaves ``fp_per_scan`` false ones, and its logit."""
    false = np.sort(scores.logit[~scores.is_nodule])[::-1]
    allowed = int(fp_per_scan * len(np.unique(scores.series_uid)))
    threshold = float(false[min(allowed, len(false) - 1)])
    hit = scores.is_nodule & (scores.logit > threshold)
    total = len(np.unique(scores.nodule_key[scores.is_nodule]))
    return proportion(len(np.unique(scores.nodule_key[hit])), total), threshold


def patch_figures(scores: PatchScores) -> dict[str, Estimate]:
    """Nodule against non-nodule."""
    probability = cross_calibrated(scores.logit, scores.is_nodule, scores.patient_id)
    return {
        "nodule_auroc": auroc(scores.is_nodule, scores.logit, scores.patient_id),
        "sensitivity_at_1_fp_per_scan_among_candidates": sensitivity_among_candidates(scores, 1.0)[0],
        "sensitivity_at_0.25_fp_per_scan_among_candidates": sensitivity_among_candidates(scores, 0.25)[0],
        "nodule_ece": expected_calibration_error(scores.is_nodule, probability, scores.patient_id),
    }


def nodule_figures(config: TrainingConfig, scores: NoduleScores) -> dict[str, Estimate]:
    """Malignancy against the readers' mean rating, and the mask against their majority outline."""
    rated = (scores.mean_rating < config.data.benign_below) | (scores.mean_rating > config.data.malignant_above)
    malignant = scores.mean_rating > config.data.malignant_above
    several = scores.readers >= 3
    probability = cross_calibrated(scores.malignancy_logit[rated], malignant[rated], scores.patient_id[rated])
    small = (scores.reference_diameter_mm < 15) & (scores.reference_diameter_mm >= 3)
    close = np.abs(scores.diameter_mm - scores.reference_diameter_mm) <= 1.5
    return {
        "malignancy_auroc_all_readers": _auroc(malignant, scores, rated),
        "malignancy_auroc_3_or_4_readers": _auroc(malignant, scores, rated & several),
        "malignancy_ece": expected_calibration_error(malignant[rated], probability, scores.patient_id[rated]),
        "mask_dice_all": _mean(scores.dice, scores.patient_id),
        "mask_dice_3_or_4_readers": _mean(scores.dice[several], scores.patient_id[several]),
        "diameter_within_1.5_mm_under_15_mm": proportion(int((close & small).sum()), int(small.sum())),
    }


def _auroc(malignant: NDArray[np.bool_], scores: NoduleScores, chosen: NDArray[np.bool_]) -> Estimate:
    logit, positive = scores.malignancy_logit[chosen], malignant[chosen]
    return bootstrap(lambda drawn: area_under_roc(positive[drawn], logit[drawn]), scores.patient_id[chosen])


def _mean(values: FloatArray, groups: NDArray[np.str_]) -> Estimate:
    return bootstrap(lambda drawn: float(values[drawn].mean()), groups)
