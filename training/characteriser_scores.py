"""The second stage on patients it has never seen: real candidates and real nodules, read as the service reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.preprocessing import CropSpec
from app.imaging.volume import Grid
from app.inference.findings import NoduleMask
from app.inference.measurements import axes_mm
from training.config import TrainingConfig
from training.crop_augmentation import middle
from training.crops import CandidatePatches
from training.metrics import dice
from training.nodule_stacks import READERS, NoduleStacks
from training.served import ServedCharacteriser
from training.splits import Split

BATCH = 128
MASK_SHIFTS = (-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9)
"""Tried on the log-odds of the mask: where along the blurred edge readers draw their line is to be calibrated."""
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
    """Nodules of the held-out patients.

    Parameters
    ----------
    dice, diameter_mm
        (n, shifts): of the network's mask, its log-odds shifted by each of `MASK_SHIFTS`.
    reference_diameter_mm
        From the majority outline, by the same rule.
    """

    malignancy_logit: FloatArray
    mean_rating: FloatArray
    readers: NDArray[np.int64]
    dice: FloatArray
    diameter_mm: FloatArray
    reference_diameter_mm: FloatArray
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
) -> tuple[float, list[float], list[float], float]:
    first, count, spacing = int(stacks.first_slice[n]), int(stacks.slice_count[n]), float(stacks.slice_spacing_mm[n])
    steps = np.floor((count - 1) / 2 + np.asarray(crop.slice_offsets_mm) / spacing + 0.5)
    through_middle = first + np.clip(steps, 0, count - 1).astype(int)
    every_slice = slice(first, first + count)
    with torch.no_grad():
        crops = middle(torch.from_numpy(stacks.crops[through_middle][None]), crop.size_px).float() / 255
        malignancy = float(network.logits(crops).malignancy)
        stack = middle(torch.from_numpy(stacks.crops[every_slice][:, None]), crop.size_px).float() / 255
        mask_logit = network.logits(stack).mask[:, 0].numpy()
    share = middle(torch.from_numpy(stacks.reader_fraction[every_slice]), crop.size_px).numpy() / 255
    outlined = share * READERS / stacks.rating("NumAnnotations")[n] >= 0.499
    grid = Grid.from_spacing((count, crop.size_px, crop.size_px), (spacing, crop.spacing_mm, crop.spacing_mm))
    found = [mask_logit + shift >= 0 for shift in MASK_SHIFTS]
    sizes = [_diameter_mm(mask, grid) for mask in (*found, outlined)]
    return malignancy, [dice(mask, outlined) for mask in found], sizes[:-1], sizes[-1]


def _diameter_mm(mask: NDArray[np.bool_], grid: Grid) -> float:
    """Mean of long and short axis of the largest connected part, which is what the service keeps; 0 for none."""
    if not mask.any():
        return 0.0
    labels, _ = ndimage.label(mask)
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    return axes_mm(NoduleMask(np.asarray(largest), grid)).mean_mm
