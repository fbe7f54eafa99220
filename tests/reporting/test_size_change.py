"""Formulas of growth, on published vectors and at every threshold from both sides."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reporting.growth import doubling_time_from_diameters_days, volume_doubling_time_days
from app.reporting.size_change import (
    Size,
    diameter_change_mm,
    diameter_rule,
    size_change,
    volume_rule,
)

volumes = st.floats(10.0, 20_000.0)


def sphere(diameter_mm: float, relative: float | None = None) -> Size:
    volume = math.pi / 6 * diameter_mm**3
    interval = None if relative is None else (volume * (1 - relative), volume * (1 + relative))
    return Size(volume, diameter_mm, interval)


def test_published_vector():
    assert doubling_time_from_diameters_days(6.0, 8.0, 90) == pytest.approx(72.28, abs=0.005)
    assert volume_doubling_time_days(100.0, 200.0, 90) == pytest.approx(90.0)
    assert volume_doubling_time_days(200.0, 100.0, 90) == pytest.approx(-90.0)
    assert volume_doubling_time_days(100.0, 100.0, 90) is None


@pytest.mark.parametrize("faulty", [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, -3.0)])
def test_what_is_not_positive_has_no_doubling_time(faulty):
    with pytest.raises(ValueError, match="positive"):
        volume_doubling_time_days(*faulty)


@given(volumes, st.floats(0.1, 8.0), st.integers(1, 4000))
def test_after_a_doubling_time_the_volume_has_doubled(earlier, ratio, days):
    doubling = volume_doubling_time_days(earlier, earlier * ratio, days)
    if doubling is not None:
        assert 2 ** (days / doubling) == pytest.approx(ratio, rel=1e-9)


@pytest.mark.parametrize(
    ("later", "rule"), [(124.9, "stable"), (125.0, "grown"), (75.1, "stable"), (75.0, "shrunk"), (100.0, "stable")]
)
def test_a_quarter_of_the_volume_is_a_change(later, rule):
    assert volume_rule(100.0, later) == rule


@pytest.mark.parametrize(
    ("earlier", "later", "days", "rule"),
    [
        (6.0, 7.5, 365, "stable"),
        (6.0, 7.6, 365, "growing"),
        (6.0, 7.6, 30, "growing"),
        (6.04, 7.55, 365, "growing"),  # 6.0 and 7.6 as they are read
        (6.0, 7.6, None, "unknown"),
        (6.0, 7.5, None, "stable"),
        (6.0, 8.0, 487, "slowly_growing"),  # 2.0 mm: 1.5 mm a year is reached in 487 days
        (6.0, 8.0, 486, "growing"),
        (6.0, 4.5, 365, "stable"),
        (6.0, 4.4, 365, "shrinking"),
        (6.0, 7.6, 0, "growing"),
    ],
)
def test_more_than_a_millimetre_and_a_half_within_a_year(earlier, later, days, rule):
    assert diameter_rule(earlier, later, days) == rule


def test_diameters_are_read_to_a_tenth():
    assert diameter_change_mm(6.049, 7.55) == 1.6
    assert diameter_change_mm(7.55, 6.049) == -1.6


def test_growth_within_its_interval():
    found = size_change(sphere(8.0, 0.1), sphere(10.0, 0.1), 90)
    assert found.volume_change_percent == pytest.approx(95.3, abs=0.1)
    low, high = found.volume_change_interval_percent
    assert 50 < low < 95.3 < high < 140
    assert (found.by_volume, found.by_diameter, found.is_beyond_uncertainty) == ("grown", "growing", True)
    assert found.doubling_time_days == pytest.approx(90 * math.log(2) / math.log(1000 / 512))
    fast, slow = found.doubling_time_interval_days
    assert fast < found.doubling_time_days < slow
    assert (found.interval_is_assumed, found.missing) == (False, ())


def test_an_uncertain_change_has_no_bound_to_its_doubling_time():
    grown, shrunk = (
        size_change(sphere(5.0, 0.4), sphere(5.5, 0.4), 90),
        size_change(sphere(5.5, 0.4), sphere(4.9, 0.4), 90),
    )
    assert not grown.is_beyond_uncertainty
    assert grown.doubling_time_interval_days[0] > 0
    assert grown.doubling_time_interval_days[1] is None
    assert shrunk.doubling_time_interval_days[0] is None
    assert shrunk.doubling_time_interval_days[1] < 0


def test_without_measured_intervals_a_quarter_is_just_beyond_uncertainty():
    """The assumption is the rule's own: two scans of an unchanged nodule differ by 25 % at most."""
    assert not size_change(Size(100.0, 6.0), Size(124.0, 6.4), 90).is_beyond_uncertainty
    found = size_change(Size(100.0, 6.0), Size(126.0, 6.5), 90)
    assert found.is_beyond_uncertainty
    assert found.interval_is_assumed


@pytest.mark.parametrize("days", [None, 0])
def test_no_doubling_time_without_days(days):
    found = size_change(sphere(6.0), sphere(9.0), days)
    assert (found.doubling_time_days, found.doubling_time_interval_days) == (None, None)
    assert found.missing == (("days_between",) if days is None else ())
    assert found.by_volume == "grown"


def test_no_doubling_time_of_what_is_stable():
    assert size_change(Size(100.0, 6.0), Size(110.0, 6.1), 90).doubling_time_days is None


@given(volumes, volumes, st.floats(0.01, 0.6), st.integers(1, 3000))
def test_the_interval_holds_the_change(earlier, later, relative, days):
    sizes = [Size(v, 5.0, (v * (1 - relative), v * (1 + relative))) for v in (earlier, later)]
    found = size_change(*sizes, days)
    low, high = found.volume_change_interval_percent
    assert low <= found.volume_change_percent <= high
    if found.doubling_time_days is not None:
        fast, slow = found.doubling_time_interval_days
        assert fast is None or fast <= found.doubling_time_days
        assert slow is None or slow >= found.doubling_time_days
