from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.cli.demo import Truth, compare

TRUTH = Truth((10.0, -20.0, 30.0), 8.0)
unit = (
    st.tuples(*[st.floats(-1, 1)] * 3)
    .filter(lambda v: np.linalg.norm(v) > 0.1)
    .map(lambda v: np.array(v) / np.linalg.norm(v))
)


@given(direction=unit, fraction=st.floats(0, 0.999))
def test_closer_than_the_radius_is_a_hit(direction, fraction):
    score = compare([tuple(np.array(TRUTH.center_lps_mm) + direction * fraction * 4.0)], [TRUTH])
    assert score.hit == (True,)
    assert score.false_positives == 0


@given(direction=unit, fraction=st.floats(1.001, 10))
def test_further_than_the_radius_is_a_miss_and_a_false_positive(direction, fraction):
    score = compare([tuple(np.array(TRUTH.center_lps_mm) + direction * fraction * 4.0)], [TRUTH])
    assert score.hit == (False,)
    assert score.false_positives == 1


def test_exactly_at_the_radius_is_a_miss():
    assert compare([(14.0, -20.0, 30.0)], [TRUTH]).hit == (False,)


def test_a_second_mark_on_the_same_nodule_counts_neither_way():
    score = compare([TRUTH.center_lps_mm, (11.0, -20.0, 30.0)], [TRUTH])
    assert (score.hit, score.false_positives) == ((True,), 0)


def test_good_means_every_nodule_and_at_most_four_false_positives():
    other = Truth((100.0, 0.0, 0.0), 5.0)
    far = [(1000.0 + i, 0.0, 0.0) for i in range(5)]
    marks = [TRUTH.center_lps_mm, other.center_lps_mm]
    assert compare([*marks, *far[:4]], [TRUTH, other]).is_good
    assert not compare([*marks, *far], [TRUTH, other]).is_good
    assert not compare(marks[:1], [TRUTH, other]).is_good
