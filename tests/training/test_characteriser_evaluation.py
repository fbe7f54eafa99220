"""The second stage's figures: nobody is judged by a choice that saw them, and folds add up."""

import dataclasses

import numpy as np
import pytest

from training.characteriser_evaluation import (
    calibrated,
    cross_calibrated,
    fit_calibration,
    judge_nodules,
    judge_patches,
    nodule_figures,
    patch_figures,
    pooled,
    sensitivity_among_candidates,
)
from training.characteriser_scores import MASK_SHIFTS, NoduleScores, PatchScores
from training.config import DataConfig
from training.served import Calibration

OFTEN, WORST, BEST = 2, 0.1, 0.95
"""A shift's index, and two overlaps."""


def patch_scores(rng, patients=20, each=12, prefix="P"):
    n = patients * each
    is_nodule = np.arange(n) % 4 == 0
    logit = rng.normal(0, 1.5, n) + np.where(is_nodule, 1.0, -1.0)
    patient = np.array([f"{prefix}{i // each:03d}" for i in range(n)])
    return PatchScores(logit, is_nodule, np.where(is_nodule, np.arange(n), -1), patient, patient)


def nodule_scores(rng, n=60, dice=None, patient=None):
    rating = rng.choice([1.0, 2.5, 3.0, 3.5, 5.0], n)
    return NoduleScores(
        malignancy_logit=rng.normal(0, 1.5, n) + rating - 3,
        mean_rating=rating,
        readers=np.arange(n) % 4 + 1,
        dice=rng.uniform(0.5, 0.9, (n, len(MASK_SHIFTS))) if dice is None else dice,
        diameter_mm=np.tile(np.arange(len(MASK_SHIFTS), dtype=float), (n, 1)) + 5,
        reference_diameter_mm=rng.uniform(3, 20, n),
        patient_id=np.array([f"P{i // 3:03d}" for i in range(n)]) if patient is None else patient,
    )


@pytest.mark.parametrize("mine", [0, 7, 19])
def test_no_patient_is_judged_by_a_calibration_that_saw_it(mine):
    """What the data say of one patient moves the fit of others; its own probabilities stay."""
    scores = patch_scores(np.random.default_rng(0))
    of_patient = scores.patient_id == f"P{mine:03d}"
    before = cross_calibrated(scores.logit, scores.is_nodule, scores.patient_id)
    after = cross_calibrated(scores.logit, scores.is_nodule ^ of_patient, scores.patient_id)
    changed = before != after
    assert changed.any()
    assert not changed[of_patient].any()


def test_the_calibration_that_ships_is_of_all_patients():
    scores = patch_scores(np.random.default_rng(1))
    judged, calibration = judge_patches(scores)
    assert calibration == fit_calibration(scores.logit, scores.is_nodule)
    assert np.allclose(judged.log_odds, calibration.slope * scores.logit + calibration.intercept)
    assert not np.allclose(judged.probability, calibrated(scores.logit, calibration))


def test_calibration_undoes_a_wrong_scale():
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 2, 20_000)
    positive = rng.random(20_000) < 1 / (1 + np.exp(-truth))
    fitted = fit_calibration((truth + 1) * 3, positive)
    assert fitted.slope == pytest.approx(1 / 3, rel=0.05)
    assert fitted.intercept == pytest.approx(-1, abs=0.1)
    assert calibrated(np.zeros(1), Calibration(2.0, 0.0)) == pytest.approx(0.5)


def test_the_shift_of_a_mask_is_never_chosen_on_the_patient_it_is_measured_on():
    """One patient's many nodules want another shift than everyone else's: they do not get it."""
    rng = np.random.default_rng(3)
    patient = np.array(["P000"] * 40 + [f"P{i:03d}" for i in range(1, 21)])
    dice = np.full((60, len(MASK_SHIFTS)), WORST)
    dice[40:, OFTEN] = BEST
    dice[:40, -1] = BEST
    judged, _, shift = judge_nodules(DataConfig(), nodule_scores(rng, 60, dice, patient))
    assert (judged.dice[:40] == WORST).all()
    assert (judged.diameter_mm[:40] == OFTEN + 5).all()
    assert set(judged.dice[40:]) == {WORST, BEST}
    assert shift == MASK_SHIFTS[-1]


@pytest.mark.parametrize("mine", [0, 11])
def test_no_patient_s_malignancy_is_judged_by_a_calibration_that_saw_it(mine):
    scores = nodule_scores(np.random.default_rng(4))
    of_patient = scores.patient_id == f"P{mine:03d}"
    other = dataclasses.replace(scores, mean_rating=np.where(of_patient, 6 - scores.mean_rating, scores.mean_rating))
    before, after = (judge_nodules(DataConfig(), s)[0] for s in (scores, other))
    changed = before.rated & (before.probability != after.probability)
    assert changed.any()
    assert not changed[of_patient].any()


def test_nodules_rated_in_between_are_neither_and_are_left_out_of_malignancy():
    scores = nodule_scores(np.random.default_rng(5))
    judged, _, _ = judge_nodules(DataConfig(), scores)
    between = scores.mean_rating == 3.0
    assert between.any()
    assert np.array_equal(judged.rated, ~between)
    assert np.array_equal(np.isnan(judged.probability), between)
    assert np.array_equal(judged.malignant, scores.mean_rating > 3)
    assert nodule_figures(judged)["malignancy_auroc_all_readers"].n == (~between).sum()
    wider, _, _ = judge_nodules(DataConfig(benign_below=2.0, malignant_above=4.0), scores)
    assert np.array_equal(wider.rated, (scores.mean_rating < 2) | (scores.mean_rating > 4))


def test_pooled_folds_hold_every_case_once():
    rng = np.random.default_rng(6)
    first, second = (judge_patches(patch_scores(rng, prefix=p))[0] for p in "PQ")
    both = pooled([first, second])
    assert len(both.log_odds) == len(first.log_odds) + len(second.log_odds)
    for name, values in vars(both).items():
        assert np.array_equal(values, np.concatenate([getattr(first, name), getattr(second, name)]))
    assert patch_figures(both)["nodule_auroc"].n == len(both.is_nodule)
    nodules = judge_nodules(DataConfig(), nodule_scores(rng))[0]
    assert len(pooled([nodules, nodules]).dice) == 2 * len(nodules.dice)


def test_sensitivity_among_candidates_counts_nodules_and_scans_not_candidates():
    """Two scans, so two false ones are let through at 1 FP/scan; a nodule with two candidates counts once."""
    scores = PatchScores(
        logit=np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 10.0]),
        is_nodule=np.array([False, True, False, True, False, True, False, True]),
        nodule_key=np.array([-1, 1, -1, 2, -1, 3, -1, 1]),
        series_uid=np.array(["a", "a", "a", "a", "b", "b", "b", "b"]),
        patient_id=np.array(["a", "a", "a", "a", "b", "b", "b", "b"]),
    )
    judged, _ = judge_patches(scores)
    share, threshold = sensitivity_among_candidates(judged, 1.0)
    assert (share.value, share.n) == (pytest.approx(2 / 3), 3)
    assert (judged.log_odds[~judged.is_nodule] > threshold).sum() == 2


def test_a_diameter_counts_as_close_within_1_5_mm_and_only_under_15_mm():
    judged, _, _ = judge_nodules(DataConfig(), nodule_scores(np.random.default_rng(7)))
    reference = np.tile([4.0, 6.0, 10.0, 14.9, 15.0, 2.0], 10)
    error = np.tile([1.5, -1.5, 1.6, -1.6, 0.0, 0.0], 10)
    close = dataclasses.replace(judged, reference_diameter_mm=reference, diameter_mm=reference + error)
    share = nodule_figures(close)["diameter_within_1.5_mm_under_15_mm"]
    assert (share.value, share.n) == (0.5, 40)
