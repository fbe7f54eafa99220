"""Figures against hand-computed values, brute force and what intervals promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from app.evaluation.estimates import area_under_roc, bootstrap, paired_bootstrap, percentile_interval, resamples
from app.evaluation.froc import FrocRules, Mark, froc
from app.evaluation.node21 import node21_score
from app.evaluation.reference import Annotation, Reference
from training.average_precision import ScanBoxes, average_precision, average_precision_estimate
from training.calibration import (
    brier_score,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
    reliability_bins,
)
from training.metrics import auroc, bland_altman, delong_test, dice, proportion


def two_groups(seed, n=400, shift=1.5):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    return positive, rng.normal(size=n) + shift * positive


@given(hnp.arrays(np.int8, st.integers(2, 40), elements=st.integers(0, 5)), st.integers(1, 39))
def test_area_under_roc_counts_pairs_with_half_for_ties(scores, n_positive):
    positive = np.arange(scores.size) < min(n_positive, scores.size - 1)
    pairs = np.sign(scores[positive][:, None].astype(int) - scores[~positive][None])
    assert area_under_roc(positive, scores) == pytest.approx(((pairs + 1) / 2).mean())


def test_area_under_roc_is_not_defined_without_both_classes():
    assert math.isnan(area_under_roc([True, True], [0.1, 0.2]))
    with pytest.raises(ValueError, match="needs both classes"):
        auroc([True, True], [0.1, 0.2])


@pytest.mark.parametrize("scores", [[0.1, math.nan], [0.1, math.inf], [0.1]])
def test_scores_that_cannot_be_ranked_are_refused(scores):
    with pytest.raises(ValueError, match=r"not finite|must be"):
        auroc([True, False], scores)


def test_delong_interval_agrees_with_resampling_and_with_the_area_of_scikit_learn():
    positive, scores = two_groups(0)
    by_formula = auroc(positive, scores)
    by_draws = auroc(positive, scores, np.arange(400), n_bootstraps=600)
    assert by_formula.value == by_draws.value == pytest.approx(roc_auc_score(positive, scores))
    assert by_formula.low == pytest.approx(by_draws.low, abs=0.01)
    assert by_formula.high == pytest.approx(by_draws.high, abs=0.01)
    assert by_formula.n == 400


def test_delong_variance_equals_its_definition():
    positive, scores = two_groups(3, n=60, shift=0.7)
    wins = (scores[positive][:, None] > scores[~positive][None]) + 0.5 * (
        scores[positive][:, None] == scores[~positive][None]
    )
    variance = wins.mean(axis=1).var(ddof=1) / positive.sum() + wins.mean(axis=0).var(ddof=1) / (~positive).sum()
    area = wins.mean()
    reach = 1.959964 * math.sqrt(variance) / (area * (1 - area))
    middle = math.log(area / (1 - area))
    estimate = auroc(positive, scores)
    assert estimate.low == pytest.approx(1 / (1 + math.exp(reach - middle)), abs=1e-6)
    assert estimate.high == pytest.approx(1 / (1 + math.exp(-reach - middle)), abs=1e-6)


def test_patients_with_repeated_cases_widen_the_interval():
    positive, scores = two_groups(1, n=80)
    repeated = np.repeat(np.arange(80), 10)
    alone = auroc(positive[repeated], scores[repeated], np.arange(800), n_bootstraps=200)
    by_patient = auroc(positive[repeated], scores[repeated], repeated, n_bootstraps=200)
    assert by_patient.high - by_patient.low > 2 * (alone.high - alone.low)


def test_perfect_separation_has_a_degenerate_interval():
    estimate = auroc([True, True, False, False], [4, 3, 2, 1])
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_delong_test_sees_a_difference_and_none_where_none_is():
    positive, scores = two_groups(5)
    noisy = scores + np.random.default_rng(6).normal(scale=2, size=400)
    worse = delong_test(positive, scores, noisy)
    assert worse.difference.low > 0
    assert worse.p_value < 0.01
    same = delong_test(positive, scores, scores * 3 - 1)
    assert (same.difference.value, same.p_value) == (0.0, 1.0)


def test_delong_test_changes_sign_with_the_order():
    positive, scores = two_groups(8)
    other = np.random.default_rng(2).normal(size=400)
    there, back = delong_test(positive, scores, other), delong_test(positive, other, scores)
    assert there.difference.value == -back.difference.value
    assert there.p_value == pytest.approx(back.p_value)


def test_resamples_draw_whole_groups():
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    for drawn in resamples(groups, 20, seed=0):
        sizes = {group: (groups[drawn] == group).sum() for group in "abc"}
        assert sizes["a"] % 3 == 0
        assert sizes["b"] % 2 == 0
        assert sizes["a"] / 3 + sizes["b"] / 2 + sizes["c"] == 3
        for _, counts in (np.unique(drawn[groups[drawn] == g], return_counts=True) for g in "abc"):
            assert len(set(counts.tolist())) <= 1


def test_bootstrap_of_a_mean_has_the_width_of_its_standard_error():
    values = np.random.default_rng(0).normal(size=500)
    estimate = bootstrap(lambda drawn: float(values[drawn].mean()), np.arange(500), n_bootstraps=800)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(500), rel=0.1)


def test_paired_bootstrap_uses_the_same_draw_for_both():
    values = np.random.default_rng(0).normal(size=100)
    methods = [values, values - 0.01]
    result = paired_bootstrap(
        lambda drawn, method: float(methods[method][drawn].mean()), np.arange(100), n_bootstraps=99
    )
    assert result.difference.low == pytest.approx(0.01)
    assert result.difference.high == pytest.approx(0.01)
    assert result.p_value == pytest.approx(2 / 100)


def test_percentiles_leave_undefined_draws_out():
    assert percentile_interval([math.nan, *range(1, 101)], 0.9) == (5.0, 95.0)
    assert all(map(math.isnan, percentile_interval([math.nan])))


def test_wilson_interval_of_a_known_share():
    estimate = proportion(8, 10)
    assert (estimate.low, estimate.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert math.isnan(proportion(0, 0).value)


def cube(*low, size=10.0):
    return [*low, *(value + size for value in low)]


def test_average_precision_by_hand():
    # Three nodules; found in order: hit, miss, hit. Precision 1 up to recall 1/3, then 2/3 up to 2/3, then nothing.
    scan = ScanBoxes(
        found=np.array([cube(0, 0, 0), cube(200, 0, 0), cube(50, 0, 0)], dtype=float),
        scores=np.array([0.9, 0.8, 0.7]),
        truth=np.array([cube(0, 0, 0), cube(50, 0, 0), cube(100, 0, 0)], dtype=float),
    )
    assert average_precision([scan]) == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)


@pytest.mark.parametrize(("shift", "hit"), [(8.0, 1.0), (8.3, 0.0)])
def test_average_precision_needs_the_stated_overlap(shift, hit):
    # Shifted by s along one axis IoU is (10 - s) / (10 + s): 0.111 at 8, 0.093 at 8.3.
    scan = ScanBoxes(np.array([cube(shift, 0, 0)]), np.array([0.5]), np.array([cube(0.0, 0, 0)]))
    assert average_precision([scan], 0.1) == hit


def test_a_second_box_on_one_nodule_is_a_false_positive():
    truth = np.array([cube(0.0, 0, 0), cube(90.0, 0, 0)])
    twice = ScanBoxes(np.array([cube(0.0, 0, 0), cube(1.0, 0, 0), cube(90.0, 0, 0)]), np.array([0.9, 0.8, 0.7]), truth)
    assert average_precision([twice]) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_average_precision_interval_holds_the_figure():
    perfect = ScanBoxes(np.array([cube(0.0, 0, 0)]), np.array([0.9]), np.array([cube(0.0, 0, 0)]))
    missed = ScanBoxes(np.zeros((0, 6)), np.zeros(0), np.array([cube(0.0, 0, 0)]))
    estimate = average_precision_estimate([perfect] * 6 + [missed] * 4, n_bootstraps=200)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 10
    assert math.isnan(average_precision([ScanBoxes(np.zeros((0, 6)), np.zeros(0), np.zeros((0, 6)))]))


def test_dice_by_hand():
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(first, second) == 1.0
    first[:2], second[1:3] = True, True
    assert dice(first, second) == 0.5
    with pytest.raises(ValueError, match="shapes"):
        dice(first, second[:2])


def test_bland_altman_by_hand():
    agreement = bland_altman([11.0, 12.0, 16.0], [10.0, 10.0, 13.0])
    assert agreement.bias.value == pytest.approx(2.0)
    assert agreement.lower_limit.value == pytest.approx(2 - 1.96)
    assert agreement.upper_limit.value == pytest.approx(2 + 1.96)
    assert agreement.bias.n == 3
    with pytest.raises(ValueError, match="at least 2"):
        bland_altman([1.0], [2.0])


def calibrated_cases(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.7, 1.3, size=n)
    return rng.random(n) < probability, probability


def test_calibrated_probabilities_have_a_small_error_and_overconfident_ones_a_large_one():
    positive, probability = calibrated_cases()
    odds = (probability / (1 - probability)) ** 3
    assert expected_calibration_error(positive, probability, n_bootstraps=5).value < 0.01
    assert expected_calibration_error(positive, odds / (1 + odds), n_bootstraps=5).value > 0.08


def test_expected_calibration_error_by_hand():
    # Bin 0: two cases predicted 0.05 and none positive; the last: two predicted 1.0, one positive.
    estimate = expected_calibration_error([False, False, True, False], [0.05, 0.05, 1.0, 1.0], n_bootstraps=20)
    assert estimate.value == pytest.approx((2 * 0.05 + 2 * 0.5) / 4)
    bins = reliability_bins([False, False, True, False], [0.05, 0.05, 1.0, 1.0])
    assert [(b.mean_predicted, b.observed.value, b.observed.n) for b in bins] == [(0.05, 0.0, 2), (1.0, 0.5, 2)]


def test_temperature_undoes_overconfidence():
    positive, probability = calibrated_cases()
    odds = (probability / (1 - probability)) ** 2.5
    overconfident = odds / (1 + odds)
    scaling = fit_temperature(positive, overconfident)
    assert scaling.temperature == pytest.approx(2.5, rel=0.05)
    np.testing.assert_allclose(scaling(overconfident), probability, atol=0.02)


def test_isotonic_scaling_rises_and_calibrates():
    positive, probability = calibrated_cases()
    scaling = fit_isotonic(positive, probability**2)
    np.testing.assert_allclose(scaling(np.array([0.04, 0.25, 0.64])), [0.2, 0.5, 0.8], atol=0.06)
    assert (np.diff(scaling(np.linspace(0, 1, 101))) >= 0).all()


def test_brier_score_by_hand_with_its_interval_by_patient():
    estimate = brier_score([True, False, False, False], [0.8, 0.4, 0.0, 0.0], ["a", "a", "b", "b"], n_bootstraps=100)
    assert estimate.value == pytest.approx((0.04 + 0.16) / 4)
    assert (estimate.low, estimate.high) == (0.0, pytest.approx(0.1))


@pytest.mark.parametrize("probability", [[1.2, 0.5], [-0.1, 0.5], [math.nan, 0.5], [0.5]])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match=r"0\.\.1|both must be"):
        brier_score([True, False], probability)


def test_node21_by_hand_with_both_readings_of_froc25():
    # Eight scans, nodules in the first four. Scan scores rank 15 of the 16 pairs right.
    nodules = {f"s{i}": (Annotation(f"s{i}", (0.0, 0.0, 0.0), 10.0),) for i in range(4)}
    reference = Reference(tuple(f"s{i}" for i in range(8)), nodules, {})
    hits = [Mark(f"s{i}", (0.0, 0.0, 0.0), p) for i, p in enumerate((0.95, 0.8, 0.7, 0.5))]
    false = [Mark("s4", (50.0, 0.0, 0.0), 0.6), Mark("s0", (50.0, 0.0, 0.0), 0.9)]
    score = node21_score(froc(reference, hits + false, FrocRules(n_bootstraps=0)), n_bootstraps=50)
    assert score.scan_auroc.value == pytest.approx(15 / 16)
    assert score.sensitivity_at_quarter_fp_per_scan.value == 1.0
    assert score.fp_per_scan_at_quarter_sensitivity.value == 0.0
    assert score.combined.value == pytest.approx(0.75 * 15 / 16 + 0.25)
    assert (score.combined.n, score.sensitivity_at_quarter_fp_per_scan.n) == (8, 4)
    assert score.combined.low <= score.combined.value <= score.combined.high
