"""The comparison of two scans as clients see it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import Field

from app.api.figures import Answer, CubicMillimetres, Days, Millimetres, Notice, Percent, Point, Probability
from app.inference.findings import Findings
from app.reporting import compared as made


class RegistrationQuality(Answer):
    """How well the lungs of both scans could be laid over each other."""

    usable: bool = Field(description="Whether nodules were compared by it; where not, `failure` says why.")
    failure: Notice | None = Field(description="Which figure was too low; null where it is usable.")
    lung_overlap: Probability = Field(description="Dice coefficient of the lungs where both scans cover them, 0 to 1.")
    covered_share: Probability = Field(description="Share of the current lungs that the prior scan covers, 0 to 1.")
    landmarks: int = Field(description="Places with structure that were looked for in the prior scan.")
    agreement: Probability = Field(description="Share of them that were found where expected, 0 to 1; no probability.")
    median_error_mm: Millimetres = Field(description="Median distance of those from where expected, in mm.")
    error_mm: Millimetres = Field(description="Distance that 90 % of those stay within, in mm.")


class PriorNodule(Answer):
    """A nodule of the prior scan, analysed by the same model at the same operating point."""

    id: str = Field(description="Identifier within the prior's nodules.")
    probability: Probability = Field(description="That this is a nodule, 0 to 1.")
    diameter_mm: Millimetres = Field(description="Mean of long and short axis, in mm.")
    volume_mm3: CubicMillimetres | None = Field(description="Volume, in mm3; null where the model draws no outline.")
    center_lps_mm: Point = Field(description="Centre (x, y, z) in LPS mm of the prior scan.")


class NoduleGrowth(Answer):
    """How a nodule changed."""

    volume_change_percent: Percent = Field(description="Change of the volume, in % of the prior's.")
    volume_change_interval_percent: tuple[Percent, Percent] = Field(description="95 % interval of that, in %.")
    interval_is_assumed: bool = Field(
        description="True: the error of the volumes was not measured; that two scans of an unchanged nodule differ by "
        "25 % at most in 95 % of cases was assumed."
    )
    by_volume: Literal["grown", "shrunk", "stable"] = Field(description="25 % or more either way is a change (NELSON).")
    is_beyond_uncertainty: bool = Field(description="Whether the interval leaves out that nothing changed.")
    diameter_change_mm: Millimetres = Field(description="Change of the mean diameter, each rounded to 0.1 mm, in mm.")
    by_diameter: Literal["growing", "slowly_growing", "stable", "shrinking", "unknown"] = Field(
        description="Lung-RADS v2022: growing is more than 1.5 mm within 12 months; slowly_growing more than that over "
        "a longer time; unknown without the days between."
    )
    doubling_time_days: Days | None = Field(
        description="Volume doubling time in days, negative while it shrinks; null where the volume is stable by the "
        "rule, or the days between are not known or 0."
    )
    doubling_time_interval_days: tuple[Days | None, Days | None] | None = Field(
        description="95 % interval in days; an end is null where there is no bound, since no change cannot be left out."
    )


class MatchedNodule(Answer):
    """One nodule in both scans."""

    current_id: str = Field(description="Of `nodules`.")
    prior_id: str = Field(description="Of `comparison.prior_nodules`.")
    distance_mm: Millimetres = Field(description="Between both places once the scans are laid over each other, in mm.")
    gate_mm: Millimetres = Field(description="How far apart they might have been, in mm.")
    growth: NoduleGrowth = Field(description="What changed.")


class LoneNodule(Answer):
    """A nodule that only one of the scans reports."""

    nodule_id: str = Field(description="Of `nodules`, or of `comparison.prior_nodules` in `only_prior`.")
    status: Literal["new", "resolved", "not_covered", "below_threshold", "not_compared"] = Field(
        description="new or resolved: the other scan covers the place and shows no candidate there; not_covered: it "
        "lies outside the other scan, or at its edge; below_threshold: the other scan shows a candidate there, less "
        "probable than its operating point asks; not_compared: the scans could not be laid over each other."
    )
    other_center_lps_mm: Point | None = Field(description="Where it would lie in the other scan, LPS mm.")
    faint_probability: Probability | None = Field(
        description="That the candidate of the other scan there is a nodule, 0 to 1; null where there is none."
    )


class PriorStatus(Answer):
    """What Lung-RADS v2022 asks of a nodule once there is a prior."""

    nodule_id: str = Field(description="Of `nodules`.")
    status: Literal["new", "growing", "slowly_growing", "stable", "shrinking", "unknown"] = Field(
        description="By mean diameter; unknown where `missing` names what would tell."
    )
    diameter_change_mm: Millimetres | None = Field(description="Change of the mean diameter, in mm.")
    diameter_change_mm_per_year: Millimetres | None = Field(description="The same per 12 months, in mm.")
    prior_diameter_mm: Millimetres | None = Field(description="Mean diameter in the prior scan, in mm.")
    missing: tuple[str, ...] = Field(description="Inputs that were not there.")


class Comparison(Answer):
    """The current scan against an earlier one of the same patient."""

    days_between: int | None = Field(description="Days from the prior to the current scan; null without both dates.")
    registration: RegistrationQuality = Field(description="What the comparison rests on.")
    prior_nodules: tuple[PriorNodule, ...] = Field(description="Nodules of the prior scan.")
    matched: tuple[MatchedNodule, ...] = Field(description="Nodules of both scans.")
    only_current: tuple[LoneNodule, ...] = Field(description="Nodules that only the current scan reports.")
    only_prior: tuple[LoneNodule, ...] = Field(description="Nodules that only the prior scan reports.")
    lung_rads_inputs: tuple[PriorStatus, ...] = Field(description="Of each current nodule, for Lung-RADS with a prior.")
    notices: tuple[Notice, ...] = Field(description="What could not be made sure of.")
    missing: tuple[str, ...] = Field(description="Inputs that were not there: days_between, volume_interval.")
    rule: str = Field(description="How nodules are matched and changes judged, in words.")


def comparison_of(findings: Findings) -> Comparison | None:
    """The public form of the comparison in the findings; None where nothing was compared."""
    comparison = findings.comparison if isinstance(findings, made.ComparedFindings) else None
    if comparison is None:
        return None
    failure = None if comparison.failure is None else Notice.model_validate(comparison.failure)
    return Comparison(
        days_between=comparison.days,
        registration=RegistrationQuality(usable=failure is None, failure=failure, **asdict(comparison.quality)),
        prior_nodules=tuple(PriorNodule.model_validate(nodule) for nodule in comparison.prior_nodules),
        matched=tuple(MatchedNodule.model_validate(pair) for pair in comparison.pairs),
        only_current=tuple(LoneNodule.model_validate(nodule) for nodule in comparison.only_current),
        only_prior=tuple(LoneNodule.model_validate(nodule) for nodule in comparison.only_prior),
        lung_rads_inputs=tuple(PriorStatus.model_validate(status) for status in comparison.statuses),
        notices=tuple(Notice.model_validate(notice) for notice in comparison.notices),
        missing=comparison.missing,
        rule=comparison.rule,
    )
