"""What risk, guidelines and the prior say, in words that PDF, SR and FHIR share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.findings import Nodule
from app.reporting.answers import GuidelineAnswer, GuidelineName
from app.reporting.assessment import Assessment, NoduleAssessment
from app.reporting.compared import Comparison
from app.reporting.material import Report
from app.reporting.risk import BrockRisk
from app.reporting.size_change import Interval, SizeChange

NAMES: dict[GuidelineName, str] = {
    "lung_rads_v2022": "Lung-RADS v2022", "fleischner_2017": "Fleischner 2017", "bts_2015": "BTS 2015",
}  # fmt: skip
_BROCK = {"brock_full_2a": "Brock 2a (without spiculation)", "brock_full_2b": "Brock 2b (with spiculation)"}
_ALONE = {
    "new": "new", "resolved": "resolved", "not_covered": "outside of the other scan",
    "below_threshold": "fainter in the other scan, below its operating point", "not_compared": "not compared",
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What became of a nodule since the prior."""

    status: str
    """`matched`, or one of `app.reporting.compared.Alone`."""
    growth: SizeChange | None = None


def change_of(comparison: Comparison | None, nodule_id: str) -> Change | None:
    """Of a nodule of the current scan; None without a prior."""
    if comparison is None:
        return None
    pair = next((found for found in comparison.pairs if found.current_id == nodule_id), None)
    if pair is not None:
        return Change("matched", pair.growth)
    lone = next((found for found in comparison.only_current if found.nodule_id == nodule_id), None)
    return Change(lone.status) if lone else None


def category_of(assessed: NoduleAssessment | None, guideline: GuidelineName) -> str | None:
    """A nodule's category by one guideline; None where none can be assigned."""
    answers = assessed.guidelines if assessed else []
    return next((answer.category for answer in answers if answer.guideline == guideline), None)


def category_words(answer: GuidelineAnswer) -> str:
    """Guideline and category, or why there is none."""
    reason = (answer.cannot_be_assigned or "").removesuffix(".")
    told = answer.category.replace("_", " ") if answer.category else f"cannot be assigned: {reason}"
    return f"{NAMES[answer.guideline]}: {told}"


def reason_words(answer: GuidelineAnswer) -> str:
    """Management, rule and what was not told, in sentences; empty where there is nothing to say."""
    # A reason names what it lacks: that is not said twice.
    reason = answer.cannot_be_assigned or ""
    missing = ", ".join(item.name for item in answer.inputs_missing if item.name not in reason)
    return " ".join(
        (
            *([answer.management] if answer.management else []),
            *([f"Rule {answer.rule.id}: {answer.rule.sentence}"] if answer.rule else []),
            *([f"Not told: {missing}."] if missing else []),
            *answer.notes,
        )
    )


def brock_words(risk: BrockRisk) -> str:
    """Model and probability, or what is missing."""
    missing = ", ".join(item.name for item in risk.inputs_missing)
    if risk.probability is not None:
        told = f"{100 * risk.probability:.1f} %"
    elif risk.probability_range:
        low, high = (100 * end for end in risk.probability_range)
        told = f"{low:.1f} to {high:.1f} %, by what is not told ({missing})"
    else:
        told = f"not computed. {risk.cannot_be_computed or ''}".removesuffix(".")
    return f"{_BROCK[risk.model]}: {told}"


def meaning_of_brock(assessment: Assessment) -> str | None:
    """What a Brock probability says; None without a nodule."""
    return f"Brock: {assessment.nodules[0].brock[0].means}" if assessment.nodules else None


def comparison_heading(comparison: Comparison) -> str:
    """Which prior it is, by the days between: its date is the patient's."""
    return "Compared with a prior" + ("" if comparison.days is None else f" of {comparison.days} days before")


def comparison_words(comparison: Comparison, nodules: Sequence[Nodule]) -> list[str]:
    """A sentence for each nodule of either scan; the failure alone where nothing could be compared."""
    if comparison.failure is not None:
        return [f"Nothing could be compared: {comparison.failure.message}"]
    lines = [
        f"{nodule.id}: {change_words(change)}" for nodule in nodules if (change := change_of(comparison, nodule.id))
    ]
    lines += [f"{lone.nodule_id} of the prior: {_ALONE[lone.status]}" for lone in comparison.only_prior]
    return lines + [notice.message for notice in comparison.notices]


def change_words(change: Change) -> str:
    """What became of a nodule, with the intervals."""
    growth = change.growth
    if growth is None:
        return _ALONE[change.status]
    low, high = growth.volume_change_interval_percent
    assumed = ", assumed" if growth.interval_is_assumed else ""
    told = (
        f"matched, {growth.by_volume} by volume: {growth.volume_change_percent:+.0f} % "
        f"(95 % interval {low:+.0f} to {high:+.0f}{assumed}); {growth.by_diameter.replace('_', ' ')} by diameter: "
        f"{growth.diameter_change_mm:+.1f} mm"
    )
    doubling = doubling_words(growth.doubling_time_days, growth.doubling_time_interval_days)
    return told + (f"; doubling time {doubling}" if doubling else "")


def doubling_words(days: float | None, interval: Interval | None) -> str:
    """Days with their interval; an open end is said to be one. Empty where there is none."""
    if days is None:
        return ""
    if interval is None:
        return f"{days:.0f} days"
    low, high = ("no bound" if end is None else f"{end:.0f}" for end in interval)
    return f"{days:.0f} days (95 % interval {low} to {high})"


def exam_words(assessment: Assessment) -> str:
    """The exam's category and what it asks for."""
    answer = assessment.lung_rads
    return " ".join((f"Exam, {category_words(answer)}.", *([answer.management] if answer.management else [])))


def sentences(report: Report) -> list[str]:
    """All of it as text: exam, each nodule, notes, and the comparison."""
    told: list[str] = []
    if report.assessment is not None:
        told.append(f"Exam, {category_words(report.assessment.lung_rads)}. {reason_words(report.assessment.lung_rads)}")
        for nodule in report.assessment.nodules:
            told += [f"{nodule.nodule_id}, {category_words(a)}. {reason_words(a)}".strip() for a in nodule.guidelines]
            told += [f"{nodule.nodule_id}, {brock_words(risk)}." for risk in nodule.brock]
        meaning = meaning_of_brock(report.assessment)
        told += [*([meaning] if meaning else []), *report.assessment.notes]
    if report.comparison is not None:
        told.append(f"{comparison_heading(report.comparison)}.")
        told += comparison_words(report.comparison, report.findings.nodules)
    return told
