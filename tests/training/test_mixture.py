"""The say of each stage and the operating points, on tables made by hand."""

import numpy as np
import pytest

from app.inference.characterisation import mixed_probability
from training.mixture import (
    SCORE_THRESHOLDS,
    CandidateTable,
    choose_score_threshold,
    choose_weight,
    mixed,
    sensitivity_above,
    threshold_at,
)


def table(nodules, false):
    return CandidateTable(
        np.asarray(nodules, dtype=float).reshape(-1, 2), np.asarray(false, dtype=float).reshape(-1, 2)
    )


def test_mixing_is_what_the_service_does():
    for weight in (0.0, 0.25, 1.0):
        ours = 1 / (1 + np.exp(-mixed(np.array([[0.9, 0.2]]), weight)[0]))
        assert ours == pytest.approx(mixed_probability(0.2, 0.9, weight), rel=1e-9)


def test_the_threshold_leaves_the_asked_number_of_false_marks():
    tables = [table([[0.9, 0.9]], [[0.1, p] for p in (0.1, 0.2, 0.3)]), table([[0.9, 0.15]], [[0.1, 0.4]])]
    for fp, left in ((0.5, 1), (1.0, 2)):
        threshold = threshold_at(tables, 0.0, fp)
        assert sum((mixed(t.false, 0.0) > threshold).sum() for t in tables) == left
    assert sensitivity_above(tables, 0.0, threshold_at(tables, 0.0, 0.5)) == 0.5


def test_a_nodule_without_a_candidate_is_missed_at_any_threshold():
    assert sensitivity_above([table([[np.nan, np.nan], [0.5, 0.5]], [[0.1, 0.1]])], 0.5, -50.0) == 0.5


def test_the_better_judge_gets_the_say():
    detector_knows = [table([[0.9, 0.5]] * 4, [[0.1, 0.6]] * 4)]
    characteriser_knows = [table([[0.5, 0.9]] * 4, [[0.6, 0.1]] * 4)]
    assert choose_weight(detector_knows, (0.0, 1.0)) == 1.0
    assert choose_weight(characteriser_knows, (0.0, 1.0)) == 0.0


def test_what_the_first_stage_does_not_pass_on_is_missed_or_gone():
    cut = table([[0.3, 0.9], [0.29, 0.8], [np.nan, np.nan]], [[0.31, 0.5], [0.1, 0.99]]).above(0.3)
    assert cut.nodules[0].tolist() == [0.3, 0.9]
    assert np.isnan(cut.nodules[1:]).all()
    assert cut.false.tolist() == [[0.31, 0.5]]


def test_the_cut_is_as_high_as_costs_next_to_nothing():
    false = [[0.02, 0.05]] * 4
    assert choose_score_threshold([table([[0.9, 0.9]] * 4, false)], 0.5) == max(SCORE_THRESHOLDS)
    assert choose_score_threshold([table([[0.9, 0.9], [0.11, 0.9]], false)], 0.5) == 0.1
    # one nodule of 500 is a loss that is tolerated, one of 100 is not
    assert choose_score_threshold([table([[0.9, 0.9]] * 499 + [[0.11, 0.9]], false)], 0.5) == max(SCORE_THRESHOLDS)
    assert choose_score_threshold([table([[0.9, 0.9]] * 99 + [[0.11, 0.9]], false)], 0.5) == 0.1


def test_a_cut_that_drops_only_false_marks_is_taken():
    """Fewer false marks move the threshold down, so a cut may find nodules that were outranked."""
    tables = [table([[0.9, 0.3]] * 4, [[0.06, 0.9]] * 40)]
    assert choose_score_threshold(tables, 0.0) == max(SCORE_THRESHOLDS)
