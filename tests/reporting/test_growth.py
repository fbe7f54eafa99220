"""Doubling times, their thresholds from both sides, and their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.reporting.growth import (
    doubling_time_from_diameters_days,
    growth_of,
    log_ratio_interval,
    volume_doubling_time_days,
)
from tests.reporting.told import nodule

volumes = st.floats(1, 1e5)
days = st.floats(1, 3650)


def grown(volume_mm3: float, earlier_mm3: float, interval_days: float, **earlier: Any) -> Any:
    interval = earlier.pop("now_interval", None)
    before = {"interval_days": interval_days, "volume_mm3": earlier_mm3, **earlier}
    found = growth_of(nodule(volume_mm3=volume_mm3, volume_interval_mm3=interval, earlier=before))
    assert found is not None
    return found


def test_known_figures() -> None:
    assert doubling_time_from_diameters_days(6, 8, 90) == pytest.approx(72.28, abs=0.005)
    assert volume_doubling_time_days(100, 200, 90) == pytest.approx(90)
    assert volume_doubling_time_days(200, 100, 90) == pytest.approx(-90)
    assert volume_doubling_time_days(100, 100, 90) is None


@given(st.floats(1, 50), st.floats(1, 50), days)
def test_diameters_are_volumes_of_spheres(before: float, now: float, interval: float) -> None:
    by_diameter = doubling_time_from_diameters_days(before, now, interval)
    by_volume = volume_doubling_time_days(before**3, now**3, interval)
    assume(by_diameter is not None)
    assert by_volume == pytest.approx(by_diameter, rel=1e-6)


@given(volumes, st.floats(1.26, 100), days)
def test_after_a_doubling_time_the_volume_is_twice(before: float, factor: float, interval: float) -> None:
    found = grown(before * factor, before, interval)
    assert before * 2 ** (interval / found.doubling_time_days) == pytest.approx(before * factor, rel=1e-9)


@given(volumes, st.floats(1.01, 50), st.floats(1.01, 2), days)
def test_faster_growth_doubles_sooner(before: float, factor: float, more: float, interval: float) -> None:
    slow, fast = (volume_doubling_time_days(before, before * f, interval) for f in (factor, factor * more))
    assert slow is not None
    assert fast is not None
    assert 0 < fast < slow


@pytest.mark.parametrize(
    ("now", "significant", "reading"),
    [
        (124.9, False, "no_significant_change"), (125.0, True, "suspicious"), (75.1, False, "no_significant_change"),
        (75.0, True, "shrinking"), (100.0, False, "no_significant_change"),
    ],
)  # fmt: skip
def test_a_quarter_is_the_least_that_counts(now: float, significant: bool, reading: str) -> None:
    found = grown(now, 100.0, 90)
    assert (found.is_significant, found.reading) == (significant, reading)
    assert (found.doubling_time_days is not None) == significant


@given(volumes)
def test_a_quarter_more_of_any_volume_counts(volume: float) -> None:
    assert grown(volume * 1.25, volume, 90).is_significant


@pytest.mark.parametrize(
    ("doubling", "reading"),
    [
        (399.9, "suspicious"), (400.1, "indeterminate"), (599.9, "indeterminate"), (600.1, "likely_benign"),
    ],
)  # fmt: skip
def test_thresholds_of_the_doubling_time(doubling: float, reading: str) -> None:
    found = grown(200.0, 100.0, doubling)
    assert (found.doubling_time_days, found.reading) == (pytest.approx(doubling), reading)


def test_diameters_where_a_volume_is_missing() -> None:
    found = growth_of(nodule(mm=8, volume_mm3=268, earlier={"interval_days": 90, "mean_diameter_mm": 6}))
    assert found is not None
    assert (found.measured_by, found.doubling_time_days) == ("mean_diameter", pytest.approx(72.28, abs=0.005))
    assert found.volume_change_fraction == pytest.approx((8 / 6) ** 3 - 1)
    assert growth_of(nodule(mm=8)) is None
    assert growth_of(nodule(earlier={"interval_days": 90, "mean_diameter_mm": 6})) is None


def test_the_interval_holds_the_doubling_time_and_may_be_open() -> None:
    sure = grown(200.0, 100.0, 90, volume_interval_mm3=(95, 105), now_interval=(190, 210))
    low, high = sure.doubling_time_interval_days
    assert 75 < low < 90 < high < 110
    exact = grown(200.0, 100.0, 90, volume_interval_mm3=(100, 100), now_interval=(200, 200))
    assert exact.doubling_time_interval_days == pytest.approx((90, 90))
    unsure = grown(200.0, 100.0, 90, volume_interval_mm3=(40, 260), now_interval=(80, 500))
    low, high = unsure.doubling_time_interval_days
    assert low < 90
    assert high is None
    assert grown(200.0, 100.0, 90).doubling_time_interval_days is None
    shrunk = grown(50.0, 100.0, 90, volume_interval_mm3=(95, 105), now_interval=(45, 55))
    assert shrunk.doubling_time_interval_days is None


def test_the_interval_covers_what_it_says() -> None:
    """Log-normal errors of 10 % and 20 %: a 95 % interval of each volume gives one of 95 % of the growth."""
    random = np.random.default_rng(7)
    truth, runs, hits = math.log(2.0), 4000, 0
    for first, second in random.normal(size=(runs, 2)):
        before, now = 100 * math.exp(0.1 * first), 200 * math.exp(0.2 * second)
        around = [(v * math.exp(-1.96 * s), v * math.exp(1.96 * s)) for v, s in ((before, 0.1), (now, 0.2))]
        low, high = log_ratio_interval(before, around[0], now, around[1])
        hits += low <= truth <= high
    assert hits / runs == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, -1, 1)])
def test_what_is_not_positive_is_refused(wrong: tuple[float, float, float]) -> None:
    for function in (volume_doubling_time_days, doubling_time_from_diameters_days):
        with pytest.raises(ValueError, match="positive"):
            function(*wrong)
