"""What a comparison with an earlier scan says, as plain records; `app.reporting.comparison` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.imaging.acceptance import Notice
from app.imaging.alignment import AlignmentQuality
from app.inference.findings import Findings, Nodule, Point
from app.reporting.nodule_matching import GATE_MM, GATE_PER_DIAMETER, GATE_PER_ERROR
from app.reporting.size_change import PriorStatus, SizeChange

RULE = (
    f"Same nodule: centres within {GATE_MM:g} mm + {GATE_PER_ERROR:g} x the error of the registration there "
    f"+ {GATE_PER_DIAMETER:g} x the larger diameter, least total cost. Volume: 25 % or more either way is a change "
    "(NELSON). Diameter: more than 1.5 mm within 12 months is growth (Lung-RADS v2022). Doubling time only with a "
    "change of volume by that rule. New or resolved only where the other scan covers the place and shows no fainter "
    "candidate there."
)
"""In words, for whoever reads the answer."""

Alone = Literal["new", "resolved", "not_covered", "below_threshold", "not_compared"]


@dataclass(frozen=True)
class NodulePair:
    """One nodule in both scans."""

    current_id: str
    prior_id: str
    distance_mm: float
    """Between its two places once the scans are laid over each other."""
    gate_mm: float
    growth: SizeChange


@dataclass(frozen=True)
class LoneNodule:
    """A nodule that was reported in one of the scans only."""

    nodule_id: str
    status: Alone
    """``new`` or ``resolved``; ``not_covered`` by the other scan; ``below_threshold`` there; ``not_compared``."""
    other_center_lps_mm: Point | None
    """Where it would lie in the other scan; None without a registration."""
    faint_probability: float | None = None
    """Of the candidate that the other scan shows there, below its operating point."""


@dataclass(frozen=True)
class ToPrior:
    """The affine nearest to the registration, for pictures that are scrolled together."""

    affine: tuple[tuple[float, float, float, float], ...]
    """Four rows; patient LPS mm of the current scan to those of the prior."""
    residual_mm: float
    """The distance from the registration that 90 % of the lung stay within."""


@dataclass(frozen=True)
class Comparison:
    """The answer about two scans."""

    days: int | None
    """From the prior to the current scan."""
    quality: AlignmentQuality
    failure: Notice | None
    """Why the scans could not be laid over each other; then nothing is paired."""
    prior_nodules: tuple[Nodule, ...]
    pairs: tuple[NodulePair, ...]
    only_current: tuple[LoneNodule, ...]
    only_prior: tuple[LoneNodule, ...]
    statuses: tuple[PriorStatus, ...]
    """For Lung-RADS, one for each current nodule."""
    notices: tuple[Notice, ...]
    missing: tuple[str, ...]
    rule: str = RULE
    to_prior: ToPrior | None = None
    """None without a registration, and in what was stored before it was kept."""


@dataclass(frozen=True)
class ComparedFindings(Findings):
    """Findings of a scan that was compared with an earlier one."""

    comparison: Comparison | None = None
