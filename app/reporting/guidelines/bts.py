"""British Thoracic Society 2015: nodules of adults, found in whichever way.

Callister MEJ et al., Thorax 2015;70(Suppl 2):ii1-ii54. Sizes and the 3-month CT are from PMC6784443 and the
comparison of guidelines in Thorax (table 1 of 189438); the 10 % threshold of the Brock model, and what is done after
the CTs at 3 and 12 months, are partly from memory and to be checked against the guideline. The Herder model, which
follows PET/CT, is not implemented, nor are nodules that look like lymph nodes of a fissure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.reporting.answers import Guideline, GuidelineAnswer, MissingInput, Ruling, Undecided, lacks
from app.reporting.clinical_context import ClinicalContext
from app.reporting.growth import BENIGN_DAYS, SUSPICIOUS_DAYS, Growth
from app.reporting.nodule_facts import NoduleFacts, change_of, is_benign_looking, told
from app.reporting.risk import BrockRisk

BTS = Guideline(
    "bts_2015",
    "Callister MEJ et al., Thorax 2015;70(Suppl 2):ii1-ii54 (British Thoracic Society); partly by secondary sources.",
)
ADULT_YEARS = 18
BROCK_THRESHOLD = 0.10
_FOLLOW_UP_YEAR_DAYS = 270.0
"""From here on a CT counts as the one at 12 months. Our reading."""
_CT_3 = "CT after 3 months."
_WORK_UP = "Further work-up: PET/CT, biopsy or resection, by fitness and preference."


def bts(
    nodule: NoduleFacts, context: ClinicalContext, risks: Sequence[BrockRisk], growth: Growth | None
) -> GuidelineAnswer:
    """Recommendation for one nodule.

    Parameters
    ----------
    nodule
        The volume decides, the longest axis where no volume is told.
    context
        The patient must be an adult.
    risks
        Of the Brock models; that with spiculation is preferred where it decides.
    growth
        Since the earlier CT; None without one.
    """
    used = told(context, "age_years") | told(nodule, "kind", "volume_mm3", "long_axis_mm")
    outcome = _outcome(nodule, context, risks, growth)
    if growth is not None:
        used |= {"volume_change_fraction": growth.volume_change_fraction, "interval_days": growth.interval_days}
        used |= {} if growth.doubling_time_days is None else {"doubling_time_days": growth.doubling_time_days}
    return BTS.answer(outcome, used | _brock_used(outcome, risks))


def _outcome(
    nodule: NoduleFacts, context: ClinicalContext, risks: Sequence[BrockRisk], growth: Growth | None
) -> Ruling | Undecided:
    if context.age_years is not None and context.age_years < ADULT_YEARS:
        return Undecided("Does not apply: it is for patients of 18 or more.")
    if nodule.lesion != "nodule":
        return Undecided("Does not apply: it is for nodules of the lung.")
    missing = lacks(age_years="It is for adults.") if context.age_years is None else ()
    if is_benign_looking(nodule) and not missing:
        return Ruling("discharge", "bts-benign", "Benign calcification or fat.", "Discharge.")
    return _of_an_adult(nodule, risks, growth, missing)


def _of_an_adult(
    nodule: NoduleFacts, risks: Sequence[BrockRisk], growth: Growth | None, missing: tuple[MissingInput, ...]
) -> Ruling | Undecided:
    if nodule.volume_mm3 is None and nodule.long_axis_mm is None:
        missing += lacks(volume_mm3="The size decides.", long_axis_mm="The size decides, where no volume is told.")
    if nodule.kind is None:
        missing += lacks(kind="Solid and subsolid nodules have rules of their own.")
    if missing:
        return Undecided(f"Missing: {', '.join(item.name for item in missing)}.", missing)
    if not _reaches(nodule, 80, 5) and not _grows(nodule, growth):
        return _small(nodule)
    return _solid(nodule, risks, growth) if nodule.kind == "solid" else _subsolid(nodule, risks, growth)


def _grows(nodule: NoduleFacts, growth: Growth | None) -> bool:
    """By the volumes, else as it is told or as the diameters say."""
    if growth is not None:
        return (growth.doubling_time_days or 0.0) > 0
    return change_of(nodule) in ("growing", "slowly_growing")


def _small(nodule: NoduleFacts) -> Ruling:
    if change_of(nodule) == "new":
        sentence = "Below 80 mm3 (5 mm), but new since an earlier CT."
        return Ruling("surveillance", "bts-small-new", sentence, "Follow-up CT; the interval is left to the reader.")
    return Ruling("discharge", "bts-small", "Below 80 mm3 (5 mm).", "Discharge.")


def _reaches(nodule: NoduleFacts, volume_mm3: float, long_axis_mm: float) -> bool:
    if nodule.volume_mm3 is not None:
        return nodule.volume_mm3 >= volume_mm3
    return (nodule.long_axis_mm or 0.0) >= long_axis_mm


def _solid(nodule: NoduleFacts, risks: Sequence[BrockRisk], growth: Growth | None) -> Ruling | Undecided:
    if growth is not None:
        return _solid_followed(growth)
    if _grows(nodule, growth):
        return Undecided("It grows; the doubling time decides.", lacks(earlier="Volumes or diameters of both CTs."))
    if _reaches(nodule, 300, 8):
        return _by_risk(
            risks,
            Ruling("surveillance", "bts-solid-low-risk", "Solid, 300 mm3 (8 mm) or more, Brock below 10 %.", _CT_3),
            Ruling(
                "high_risk",
                "bts-solid-high-risk",
                "Solid, 300 mm3 (8 mm) or more, Brock 10 % or more.",
                "PET/CT, then the Herder model (not implemented here).",
            ),
        )
    if nodule.volume_mm3 is None and not _reaches(nodule, 80, 6):
        sentence = "Solid, 5 mm to below 6 mm by diameter alone."
        return Ruling("surveillance", "bts-solid-5-mm", sentence, "CT after 12 months.")
    sentence = "Solid, 80 to below 300 mm3, or 6 mm to below 8 mm."
    return Ruling("surveillance", "bts-solid-medium", sentence, _CT_3)


def _solid_followed(growth: Growth) -> Ruling:
    """By doubling time, at the first CT and at that of 12 months."""
    late = growth.interval_days >= _FOLLOW_UP_YEAR_DAYS
    days = growth.doubling_time_days
    if days is not None and 0 < days <= SUSPICIOUS_DAYS:
        sentence = "Volume up by 25 % or more, doubling in at most 400 days."
        return Ruling("growing", "bts-growing-fast", sentence, _WORK_UP)
    if not late:
        sentence = "At the first CT: volume change below 25 %, shrinking, or doubling in more than 400 days."
        return Ruling("surveillance", "bts-first-follow-up", sentence, "CT 12 months after the first.")
    if days is not None and 0 < days <= BENIGN_DAYS:
        sentence = "After a year: doubling in 400 to 600 days."
        return Ruling("growing", "bts-growing", sentence, "Consider biopsy or further CT surveillance, as preferred.")
    if days is not None and days > BENIGN_DAYS:
        sentence = "After a year: doubling in more than 600 days."
        return Ruling(
            "growing_slowly", "bts-growing-slowly", sentence, "Consider discharge or further CT surveillance."
        )
    if growth.measured_by == "volume":
        return Ruling("discharge", "bts-stable", "After a year: volume change below 25 %, or shrinking.", "Discharge.")
    sentence = "After a year: stable by diameter, which takes two years to be sure."
    return Ruling("surveillance", "bts-stable-diameter", sentence, "CT at 24 months; discharge if still stable.")


def _subsolid(nodule: NoduleFacts, risks: Sequence[BrockRisk], growth: Growth | None) -> Ruling | Undecided:
    # A new one has not been followed: for it this CT is the first.
    if growth is None and change_of(nodule) in (None, "new"):
        sentence = "Subsolid, 80 mm3 (5 mm) or more, without an earlier CT."
        return Ruling("surveillance", "bts-subsolid-first", sentence, f"{_CT_3} Discharge if it has gone.")
    if _grows(nodule, growth):
        return Ruling("growing", "bts-subsolid-growing", "Subsolid and growing.", _WORK_UP)
    return _by_risk(
        risks,
        Ruling(
            "surveillance",
            "bts-subsolid-low-risk",
            "Subsolid and stable, Brock below 10 %.",
            "CT 1, 2 and 4 years after the first.",
        ),
        Ruling(
            "high_risk",
            "bts-subsolid-high-risk",
            "Subsolid and stable, Brock 10 % or more.",
            "Discuss CT surveillance, biopsy or resection, by fitness and preference.",
        ),
    )


def _by_risk(risks: Sequence[BrockRisk], low: Ruling, high: Ruling) -> Ruling | Undecided:
    """The first model that is sure of its side of 10 %, be it with inputs missing."""
    for risk in risks:
        least, most = _ends(risk)
        if least is not None and most is not None and (most < BROCK_THRESHOLD or least >= BROCK_THRESHOLD):
            note = f"By {risk.model}" + (", whichever the missing inputs are." if risk.inputs_missing else ".")
            outcome = low if most < BROCK_THRESHOLD else high
            return replace(outcome, notes=(note,), missing=tuple(risk.inputs_missing))
    missing = {item.name: item for risk in risks for item in risk.inputs_missing}
    return Undecided("The Brock model decides, and lacks inputs.", tuple(missing.values()))


def _ends(risk: BrockRisk) -> tuple[float | None, float | None]:
    return (
        (risk.probability, risk.probability) if risk.probability is not None else risk.probability_range or (None, None)
    )


def _brock_used(outcome: Ruling | Undecided, risks: Sequence[BrockRisk]) -> dict[str, Any]:
    """Named only where the risk decided."""
    if not isinstance(outcome, Ruling) or not outcome.rule_id.endswith("-risk"):
        return {}
    return {f"{risk.model}_probability": risk.probability for risk in risks if risk.probability is not None}
