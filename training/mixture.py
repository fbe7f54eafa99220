"""How much say each stage has in the final probability, and where the operating points lie.

Chosen on the other folds' networks, each in the lungs that it never saw, with inserted nodules of patients that
neither stage has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.evaluation.froc import FP_RATES
from app.imaging.lungs import segment_lungs
from app.imaging.preprocessing import preprocess, sample_crops
from app.imaging.volume import CtVolume
from app.inference.detection import detect
from app.inference.model_store import LoadedModel
from training.inserted_scans import TrueNodule
from training.lung_background import Finding

WEIGHTS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)
"""Of the detector."""
SCORE_THRESHOLDS = (0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
TOLERATED_LOSS = 0.003
"""Of sensitivity: every candidate that the first stage passes on costs the second as much as any other."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CandidateTable:
    """What both stages said in one scan.

    Parameters
    ----------
    nodules
        (n, 2) probabilities (detector, characteriser) of each true nodule's best candidate by either stage; NaN where
        there is none.
    false
        (m, 2) probabilities of the candidates in no nodule and no finding of the scan's own.
    """

    nodules: FloatArray
    false: FloatArray

    def above(self, score_threshold: float) -> CandidateTable:
        """What is left when the first stage passes on only candidates of this probability or more."""
        nodules = np.where(self.nodules[:, :1] >= score_threshold, self.nodules, np.nan)
        return CandidateTable(nodules, self.false[self.false[:, 0] >= score_threshold])


def tabulate(
    volume: CtVolume, truths: Sequence[TrueNodule], own: Iterable[Finding], model: LoadedModel
) -> CandidateTable:
    """Run detector and characteriser on one scan and sort the candidates by what they are."""
    prepared = preprocess(volume, segment_lungs(volume), model.manifest.preprocessing)
    candidates = detect(prepared, model)
    if not candidates:
        return CandidateTable(np.full((len(truths), 2), np.nan), np.empty((0, 2)))
    centers = np.asarray([c.center_lps_mm for c in candidates]).reshape(-1, 3)
    crops = sample_crops(volume, centers, model.manifest.second_stage.crop)
    second = model.characteriser({"crops": crops})["nodule_probability"].astype(np.float64)
    said = np.stack([np.asarray([c.probability for c in candidates]), second], axis=1)
    explained = np.zeros(len(centers), bool)
    nodules = np.full((len(truths), 2), np.nan)
    for row, truth in enumerate(truths):
        hit = np.linalg.norm(centers - truth.center_lps_mm, axis=1) < truth.diameter_mm / 2
        explained |= hit
        if hit.any():
            nodules[row] = said[hit][np.argmax(log_odds(said[hit]).sum(axis=1))]
    for finding in own:
        explained |= np.linalg.norm(centers - finding.center_lps_mm, axis=1) < finding.diameter_mm / 2
    return CandidateTable(nodules, said[~explained])


def log_odds(probability: FloatArray) -> FloatArray:
    """As the service mixes: probabilities are kept within 1e-6 of 0 and 1."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def mixed(said: FloatArray, weight: float) -> FloatArray:
    """(n, 2) probabilities (detector, characteriser) -> (n,) final log-odds."""
    return np.asarray(log_odds(said) @ (weight, 1 - weight))


def threshold_at(tables: Sequence[CandidateTable], weight: float, fp_per_scan: float) -> float:
    """Final log-odds above which ``fp_per_scan`` false candidates are left."""
    false = np.sort(np.concatenate([mixed(t.false, weight) for t in tables]))[::-1]
    allowed = int(fp_per_scan * len(tables))
    return float(false[allowed]) if allowed < len(false) else float("-inf")


def sensitivity_above(tables: Sequence[CandidateTable], weight: float, threshold: float) -> float:
    """Share of the nodules with final log-odds above the threshold; those without a candidate are missed."""
    said = np.concatenate([mixed(t.nodules, weight) for t in tables])
    return float((np.nan_to_num(said, nan=-np.inf) > threshold).mean())


def choose_weight(tables: Sequence[CandidateTable], weights: Sequence[float] = WEIGHTS) -> float:
    """The weight of largest mean sensitivity at LUNA16's seven false positive rates."""
    return weights[int(np.argmax([mean_sensitivity(tables, weight) for weight in weights]))]


def choose_score_threshold(tables: Sequence[CandidateTable], weight: float) -> float:
    """The highest cut of the first stage that costs no more than `TOLERATED_LOSS` of the mean sensitivity."""
    whole = mean_sensitivity(tables, weight)
    costs = [whole - mean_sensitivity([t.above(cut) for t in tables], weight) for cut in SCORE_THRESHOLDS]
    return max(cut for cut, cost in zip(SCORE_THRESHOLDS, costs, strict=True) if cost <= TOLERATED_LOSS)


def mean_sensitivity(tables: Sequence[CandidateTable], weight: float) -> float:
    """Mean over LUNA16's seven false positive rates."""
    return float(np.mean([sensitivity_above(tables, weight, threshold_at(tables, weight, rate)) for rate in FP_RATES]))
