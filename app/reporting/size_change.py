"""How a nodule changed between two scans: pure formulas of sizes and days.

Two rules are in use and may disagree, so both are named: by volume, a change of 25 % or more (NELSON; what is less lies
within what two scans of an unchanged nodule differ by), and by mean diameter, more than 1.5 mm within 12 months
(Lung-RADS v2022). `app.reporting.growth` has the formula of the doubling time for sizes that are told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from app.reporting.growth import SIGNIFICANT_CHANGE
from app.reporting.nodule_facts import GROWTH_MM

VolumeChange = Literal["grown", "shrunk", "stable"]
DiameterChange = Literal["growing", "slowly_growing", "stable", "shrinking", "unknown"]
Interval = tuple[float | None, float | None]

YEAR_DAYS = 365.25
_WITHIN_A_YEAR_DAYS = 366
ASSUMED_LOG_ERROR = math.log(1 + SIGNIFICANT_CHANGE) / math.sqrt(2)
"""Half-width of the 95 % interval of a volume's logarithm where none was measured: such that two measurements of an
unchanged nodule differ by 25 % at most, in 95 of 100 cases."""


@dataclass(frozen=True)
class Size:
    """A nodule as one scan shows it."""

    volume_mm3: float
    diameter_mm: float
    """Mean of long and short axis."""
    volume_interval_mm3: tuple[float, float] | None = None
    """95 % interval; None where it was not measured."""


@dataclass(frozen=True)
class SizeChange:
    """Change of one nodule between two scans."""

    days: int | None
    volume_change_percent: float
    volume_change_interval_percent: tuple[float, float]
    """95 %."""
    interval_is_assumed: bool
    """The interval of a volume was not measured; `ASSUMED_LOG_ERROR` was taken."""
    by_volume: VolumeChange
    is_beyond_uncertainty: bool
    """The interval of the change leaves out no change."""
    diameter_change_mm: float
    by_diameter: DiameterChange
    doubling_time_days: float | None
    """Negative while it shrinks; None where it is not to be told, and ``missing`` or ``by_volume`` say why."""
    doubling_time_interval_days: Interval | None
    """95 %; an end is None where the interval of the change reaches no change: then there is no bound."""
    missing: tuple[str, ...] = ()
    """Inputs that were not there."""


@dataclass(frozen=True)
class PriorStatus:
    """What Lung-RADS v2022 asks of a nodule once there is a prior."""

    nodule_id: str
    status: Literal["new", "growing", "slowly_growing", "stable", "shrinking", "unknown"]
    days: int | None
    diameter_change_mm: float | None
    diameter_change_mm_per_year: float | None
    prior_diameter_mm: float | None
    missing: tuple[str, ...] = ()


def size_change(earlier: Size, later: Size, days: int | None) -> SizeChange:
    """Change between two scans by both rules, with its uncertainty.

    Parameters
    ----------
    earlier, later
        The nodule in each; volumes above 0.
    days
        Between the scans, not negative; None where a date is missing.

    Returns
    -------
    SizeChange
        A doubling time only where the volume changed by 25 % or more and the days are known and not 0.
    """
    change = math.log(later.volume_mm3 / earlier.volume_mm3)
    below = math.hypot(_log_error(later, -1), _log_error(earlier, +1))
    above = math.hypot(_log_error(later, +1), _log_error(earlier, -1))
    low, high = change - below, change + above
    by_volume = volume_rule(earlier.volume_mm3, later.volume_mm3)
    is_told = days is not None and days > 0 and by_volume != "stable"
    return SizeChange(
        days=days,
        volume_change_percent=100 * math.expm1(change),
        volume_change_interval_percent=(100 * math.expm1(low), 100 * math.expm1(high)),
        interval_is_assumed=earlier.volume_interval_mm3 is None or later.volume_interval_mm3 is None,
        by_volume=by_volume,
        is_beyond_uncertainty=low > 0 or high < 0,
        diameter_change_mm=diameter_change_mm(earlier.diameter_mm, later.diameter_mm),
        by_diameter=diameter_rule(earlier.diameter_mm, later.diameter_mm, days),
        doubling_time_days=_doubling_time(change, days) if is_told and days else None,
        doubling_time_interval_days=_doubling_interval(change, low, high, days) if is_told and days else None,
        missing=("days_between",) if days is None else (),
    )


def volume_rule(earlier_mm3: float, later_mm3: float) -> VolumeChange:
    """NELSON's rule: 25 % or more either way is a change."""
    share = later_mm3 / earlier_mm3 - 1
    if share >= SIGNIFICANT_CHANGE:
        return "grown"
    return "shrunk" if share <= -SIGNIFICANT_CHANGE else "stable"


def diameter_change_mm(earlier_mm: float, later_mm: float) -> float:
    """Change of the mean diameter, from diameters rounded to one decimal as Lung-RADS reads them."""
    return round(_one_decimal(later_mm) - _one_decimal(earlier_mm), 1)


def diameter_rule(earlier_mm: float, later_mm: float, days: int | None) -> DiameterChange:
    """Lung-RADS v2022: more than 1.5 mm within 12 months is growth.

    Over more than 12 months what counts is the mean rate; an increase of more than 1.5 mm at a lower rate is slow
    growth. Whether less than that is slow growth only a third scan can tell: it is called stable. An increase without
    a known interval is unknown.
    """
    change = diameter_change_mm(earlier_mm, later_mm)
    if change < -GROWTH_MM:
        return "shrinking"
    if change <= GROWTH_MM:
        return "stable"
    if days is None:
        return "unknown"
    if days <= _WITHIN_A_YEAR_DAYS or change * YEAR_DAYS / days > GROWTH_MM:
        return "growing"
    return "slowly_growing"


def _one_decimal(mm: float) -> float:
    """Half up, as a person rounds."""
    return math.floor(mm * 10 + 0.5) / 10


def _log_error(size: Size, side: int) -> float:
    """Distance from the volume's logarithm to that end of its interval."""
    if size.volume_interval_mm3 is None:
        return ASSUMED_LOG_ERROR
    low, high = size.volume_interval_mm3
    end = low if side < 0 else high
    return abs(math.log(max(end, 1e-3) / size.volume_mm3))


def _doubling_time(change: float, days: float) -> float | None:
    return None if change == 0 else days * math.log(2) / change


def _doubling_interval(change: float, low: float, high: float, days: float) -> Interval:
    """A faster change is a shorter time; the far end has no bound where no change cannot be left out."""
    if change > 0:
        return _doubling_time(high, days), _doubling_time(low, days) if low > 0 else None
    return _doubling_time(high, days) if high < 0 else None, _doubling_time(low, days)
