"""Volume change and doubling time of a nodule between two CTs.

VDT = days * ln 2 / ln(V2 / V1); with diameters, 3 ln(d2 / d1) in the denominator. A change of less than 25 % of the
volume is none (NELSON), and no doubling time is given for it. Below 400 days is suspicious, above 600 likely benign
(BTS 2015, NELSON; the cut-offs come from calculators that cite them and are to be checked against the guideline
itself).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from app.reporting.answers import Answer
from app.reporting.nodule_facts import NoduleFacts

SIGNIFICANT_CHANGE = 0.25
SUSPICIOUS_DAYS, BENIGN_DAYS = 400.0, 600.0
Reading = Literal["no_significant_change", "suspicious", "indeterminate", "likely_benign", "shrinking"]
SOURCE = (
    "Callister MEJ et al., Thorax 2015;70(Suppl 2):ii1-ii54 (BTS); Xu DM et al., Lung Cancer 2006;54:177-184 (NELSON)."
)


class Growth(Answer):
    """How a nodule has changed between two CTs."""

    measured_by: Literal["volume", "mean_diameter"] = Field(description="What was compared.")
    interval_days: float = Field(description="Days between the two CTs.")
    volume_change_fraction: float = Field(description="(V2 - V1) / V1; 0.25 is a quarter more.")
    doubling_time_days: float | None = Field(
        description="Days to twice the volume; negative: days to half. Null where the change is not significant."
    )
    doubling_time_interval_days: tuple[float | None, float | None] | None = Field(
        description="95 % interval, from the intervals of both volumes taken as independent. A null end is open: "
        "growth so slow that no bound can be given, none at all included. Null without both intervals, when "
        "shrinking or not significant."
    )
    is_significant: bool = Field(description="Whether the volume changed by 25 % or more.")
    reading: Reading = Field(
        description="suspicious below 400 days, indeterminate to 600, likely_benign above, shrinking, or "
        "no_significant_change."
    )
    source: str = Field(description="Where the thresholds are published.")


def volume_doubling_time_days(earlier_mm3: float, later_mm3: float, days: float) -> float | None:
    """Days in which the volume doubles at this rate; negative where it shrinks, None where it is the same.

    Raises
    ------
    ValueError
        A volume or the time is not positive.
    """
    if min(earlier_mm3, later_mm3, days) <= 0:
        raise ValueError(f"volumes and days must be positive, got {earlier_mm3}, {later_mm3}, {days}")
    # Subtracted, as the quotient of near volumes would round to 1.
    rate = math.log(later_mm3) - math.log(earlier_mm3)
    return days * math.log(2) / rate if rate else None


def doubling_time_from_diameters_days(earlier_mm: float, later_mm: float, days: float) -> float | None:
    """The same from diameters, of a nodule that keeps its shape."""
    if min(earlier_mm, later_mm, days) <= 0:
        raise ValueError(f"diameters and days must be positive, got {earlier_mm}, {later_mm}, {days}")
    rate = 3 * (math.log(later_mm) - math.log(earlier_mm))
    return days * math.log(2) / rate if rate else None


def growth_of(nodule: NoduleFacts) -> Growth | None:
    """Change since the earlier CT, by volumes, or by mean diameters where a volume is missing; None without either."""
    earlier = nodule.earlier
    if earlier is None:
        return None
    if nodule.volume_mm3 is not None and earlier.volume_mm3 is not None:
        rates = None
        if nodule.volume_interval_mm3 is not None and earlier.volume_interval_mm3 is not None:
            rates = log_ratio_interval(
                earlier.volume_mm3, earlier.volume_interval_mm3, nodule.volume_mm3, nodule.volume_interval_mm3
            )
        days = volume_doubling_time_days(earlier.volume_mm3, nodule.volume_mm3, earlier.interval_days)
        change = nodule.volume_mm3 / earlier.volume_mm3 - 1
        return _growth("volume", earlier.interval_days, change, days, rates)
    now_mm = _mean_mm(nodule)
    if now_mm is None or earlier.mean_diameter_mm is None:
        return None
    days = doubling_time_from_diameters_days(earlier.mean_diameter_mm, now_mm, earlier.interval_days)
    change = (now_mm / earlier.mean_diameter_mm) ** 3 - 1
    return _growth("mean_diameter", earlier.interval_days, change, days, None)


def log_ratio_interval(
    earlier: float, earlier_interval: tuple[float, float], later: float, later_interval: tuple[float, float]
) -> tuple[float, float]:
    """Interval of ln(later / earlier), as sure as the two it is made of, which are taken as independent.

    Method of variance estimates recovery: Zou GY, Donner A, Stat Med 2008;27:1693-1702, on logarithms.
    """
    before, now = math.log(earlier), math.log(later)
    before_low, before_high = (math.log(end) for end in earlier_interval)
    now_low, now_high = (math.log(end) for end in later_interval)
    rate = now - before
    return rate - math.hypot(now - now_low, before_high - before), rate + math.hypot(
        now_high - now, before - before_low
    )


def _growth(
    by: Literal["volume", "mean_diameter"],
    interval_days: float,
    change: float,
    doubling_days: float | None,
    rates: tuple[float, float] | None,
) -> Growth:
    # A part in 10^9: 1.25 times a volume may come out a little less.
    significant = abs(change) >= SIGNIFICANT_CHANGE - 1e-9
    shown = doubling_days if significant else None
    return Growth(
        measured_by=by,
        interval_days=interval_days,
        volume_change_fraction=change,
        doubling_time_days=shown,
        doubling_time_interval_days=_doubling_interval(interval_days, rates) if shown and shown > 0 else None,
        is_significant=significant,
        reading=_reading(shown),
        source=SOURCE,
    )


def _doubling_interval(
    interval_days: float, rates: tuple[float, float] | None
) -> tuple[float | None, float | None] | None:
    if rates is None:
        return None
    slowest, fastest = rates
    shortest = interval_days * math.log(2) / fastest if fastest > 0 else None
    return shortest, interval_days * math.log(2) / slowest if slowest > 0 else None


def _reading(doubling_days: float | None) -> Reading:
    if doubling_days is None:
        return "no_significant_change"
    if doubling_days < 0:
        return "shrinking"
    if doubling_days < SUSPICIOUS_DAYS:
        return "suspicious"
    return "indeterminate" if doubling_days <= BENIGN_DAYS else "likely_benign"


def _mean_mm(nodule: NoduleFacts) -> float | None:
    """As measured: a rounded diameter would move the doubling time."""
    if nodule.long_axis_mm is not None and nodule.short_axis_mm is not None:
        return (nodule.long_axis_mm + nodule.short_axis_mm) / 2
    return nodule.mean_diameter_mm
