"""Fleischner Society 2017: nodules found by chance in adults of 35 or more without cancer or immunosuppression.

MacMahon H et al., Radiology 2017;284:228-243 (10.1148/radiol.2017161659). The table is read from Radiopaedia
(revision of 2022-11) and radiology.ae/fleischner; what a solid component of 6 mm or more means, from PMC6784443.
Typical perifissural nodules, and what is said of nodules on incomplete chest CTs, are not implemented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.reporting.answers import Guideline, GuidelineAnswer, MissingInput, Ruling, Undecided, lacks
from app.reporting.clinical_context import ClinicalContext
from app.reporting.nodule_facts import (
    NoduleFacts,
    half_up,
    is_benign_looking,
    mean_diameter_whole_mm,
    missing_axes,
    told,
)

FLEISCHNER = Guideline("fleischner_2017", "MacMahon H et al., Radiology 2017;284:228-243 (Fleischner Society).")
LEAST_AGE_YEARS = 35
SUSPICIOUS_SOLID_MM = 6
SizeClass = Literal["below_6_mm", "6_to_8_mm", "above_8_mm"]
_NOTHING = "No routine follow-up."
_ACT = "Consider CT after 3 months, PET/CT or tissue sampling."
_SOLID: dict[tuple[bool, SizeClass], tuple[str, str]] = {
    (False, "below_6_mm"): (_NOTHING, "CT after 12 months is optional."),
    (False, "6_to_8_mm"): (
        "CT after 6 to 12 months; then consider CT at 18 to 24 months.",
        "CT after 6 to 12 months; then CT at 18 to 24 months.",
    ),
    (False, "above_8_mm"): (_ACT, _ACT),
    (True, "below_6_mm"): (_NOTHING, "CT after 12 months is optional."),
    (True, "6_to_8_mm"): (
        "CT after 3 to 6 months; then consider CT at 18 to 24 months.",
        "CT after 3 to 6 months; then CT at 18 to 24 months.",
    ),
    (True, "above_8_mm"): (
        "CT after 3 to 6 months; then consider CT at 18 to 24 months.",
        "CT after 3 to 6 months; then CT at 18 to 24 months.",
    ),
}
"""By (multiple, size): management of a low-risk and of a high-risk patient."""
_SIZES: dict[SizeClass, str] = {
    "below_6_mm": "below 6 mm (100 mm3)", "6_to_8_mm": "6 to 8 mm (100 to 250 mm3)",
    "above_8_mm": "above 8 mm (250 mm3)",
}  # fmt: skip
_APPLIES = {
    "setting": "Fleischner 2017 is for incidental nodules only.",
    "age_years": "Fleischner 2017 is for patients of 35 years or more.",
    "known_cancer": "Fleischner 2017 is not for patients with cancer.",
    "immunosuppressed": "Fleischner 2017 is not for immunosuppressed patients.",
}
_USED = ("kind", "long_axis_mm", "short_axis_mm", "volume_mm3", "solid_diameter_mm")


@dataclass(frozen=True)
class _Case:
    """A nodule with what the table needs."""

    nodule: NoduleFacts
    context: ClinicalContext
    is_multiple: bool
    size: SizeClass

    @property
    def number(self) -> str:
        return "multiple" if self.is_multiple else "single"


def fleischner(nodule: NoduleFacts, context: ClinicalContext, same_family_count: int) -> GuidelineAnswer:
    """Recommendation for one nodule.

    Parameters
    ----------
    nodule
        Mean diameter to the nearest mm decides, the volume where no diameter is told.
    context
        ``setting`` must be incidental; age, known cancer and immunosuppression must be told. The risk group may be
        missing: then the management of both is given.
    same_family_count
        Nodules on the CT that are solid, or subsolid, as this one is; this one included.
    """
    used = told(context, "setting", "age_years", "known_cancer", "immunosuppressed", "risk_group")
    used |= told(nodule, *_USED) | {"nodules_of_its_family": same_family_count}
    if (mean := mean_diameter_whole_mm(nodule)) is not None:
        used["mean_diameter_mm"] = mean
    return FLEISCHNER.answer(_outcome(nodule, context, same_family_count), used)


def _outcome(nodule: NoduleFacts, context: ClinicalContext, same_family_count: int) -> Ruling | Undecided:
    refusal = _not_applicable(nodule, context)
    if refusal is not None:
        return refusal
    size = size_class(nodule)
    missing = lacks(**{name: why for name, why in _APPLIES.items() if getattr(context, name) is None})
    if size is None:
        missing += missing_axes(nodule)
    if nodule.kind is None:
        missing += lacks(kind="Solid and subsolid nodules have rules of their own.")
    if size is None or missing:
        return Undecided(f"Missing: {', '.join(item.name for item in missing)}.", missing)
    case = _Case(nodule, context, same_family_count > 1, size)
    return _solid(case) if nodule.kind == "solid" else _subsolid(case)


def size_class(nodule: NoduleFacts) -> SizeClass | None:
    """By whole mm, so 5.5 mm counts as 6 and 8.4 mm as 8; by volume where no diameter is told."""
    mean = mean_diameter_whole_mm(nodule)
    if mean is not None:
        return "below_6_mm" if mean < 6 else "6_to_8_mm" if mean <= 8 else "above_8_mm"
    if nodule.volume_mm3 is None:
        return None
    return "below_6_mm" if nodule.volume_mm3 < 100 else "6_to_8_mm" if nodule.volume_mm3 <= 250 else "above_8_mm"


def _not_applicable(nodule: NoduleFacts, context: ClinicalContext) -> Undecided | None:
    reasons = [
        reason
        for applies, reason in (
            (context.setting == "screening", "it is not for screening"),
            (context.age_years is not None and context.age_years < LEAST_AGE_YEARS, "it is for patients of 35 or more"),
            (context.known_cancer is True, "it is not for patients with cancer"),
            (context.immunosuppressed is True, "it is not for immunosuppressed patients"),
            (is_benign_looking(nodule), "it is not for nodules with benign calcification or fat"),
            (nodule.lesion != "nodule", "it is for nodules of the lung"),
        )
        if applies
    ]
    return Undecided(f"Does not apply: {'; '.join(reasons)}.") if reasons else None


def _solid(case: _Case) -> Ruling:
    low, high = _SOLID[case.is_multiple, case.size]
    group = case.context.risk_group
    management = low if group == "low" or low == high else high
    missing: tuple[MissingInput, ...] = ()
    if group is None and low != high:
        management = f"Low risk: {low} High risk: {high}"
        missing = lacks(risk_group="Low-risk and high-risk patients are followed differently.")
    patients = "any risk" if low == high else f"{group} risk" if group else "either risk"
    return Ruling(
        f"solid_{case.number}_{case.size}",
        f"fl-solid-{case.number}-{case.size.replace('_', '-')}",
        f"Solid, {case.number}, {_SIZES[case.size]}, {patients}.",
        management,
        missing,
        _risk_factors(case),
    )


def _subsolid(case: _Case) -> Ruling:
    small = case.size == "below_6_mm"
    size = "below_6_mm" if small else "6_mm_or_more"
    in_words = f"{'below' if small else 'of'} 6 mm (100 mm3){'' if small else ' or more'}"
    if case.is_multiple:
        management = (
            "CT after 3 to 6 months; if stable, consider CT at 2 and 4 years."
            if small
            else "CT after 3 to 6 months; then by the most suspicious nodule."
        )
        sentence = f"Subsolid, multiple, {in_words}."
        return Ruling(f"subsolid_multiple_{size}", f"fl-subsolid-multiple-{_dashed(size)}", sentence, management)
    if case.nodule.kind == "ground_glass":
        management = (
            _NOTHING
            if small
            else "CT after 6 to 12 months to see whether it stays; then CT every 2 years up to 5 years."
        )
        sentence = f"Ground glass, single, {in_words}."
        return Ruling(f"ground_glass_single_{size}", f"fl-ground-glass-single-{_dashed(size)}", sentence, management)
    if small:
        sentence = f"Part-solid, single, {in_words}."
        return Ruling(f"part_solid_single_{size}", f"fl-part-solid-single-{_dashed(size)}", sentence, _NOTHING)
    return _part_solid(case)


def _part_solid(case: _Case) -> Ruling:
    """Single, 6 mm or more: after the first CT the solid component decides."""
    yearly = "if unchanged, with a solid component below 6 mm, CT every year for 5 years"
    work_up = "with a solid component of 6 mm or more, or one that grows, PET/CT, biopsy or resection"
    solid_mm = case.nodule.solid_diameter_mm
    missing: tuple[MissingInput, ...] = ()
    if solid_mm is None:
        missing = lacks(solid_diameter_mm="From 6 mm on it is highly suspicious.")
        ending, part = f"{yearly}; {work_up}", "of unknown solid component"
    elif half_up(solid_mm, 0) < SUSPICIOUS_SOLID_MM:
        ending, part = (
            f"{yearly}; should the solid component reach 6 mm or grow, PET/CT, biopsy or resection",
            "below 6 mm",
        )
    else:
        ending, part = f"if it stays, {work_up}", "of 6 mm or more"
    part = part if solid_mm is None else f"with a solid component {part}"
    return Ruling(
        "part_solid_single_6_mm_or_more",
        "fl-part-solid-single-6-mm-or-more",
        f"Part-solid, single, of 6 mm (100 mm3) or more, {part}.",
        f"CT after 3 to 6 months to see whether it stays; {ending}.",
        missing,
    )


def _risk_factors(case: _Case) -> tuple[str, ...]:
    """What was told that the guideline counts towards high risk; weighing it is left to the reader."""
    smoking = case.context.smoking
    smoker = smoking is not None and (smoking.status in ("former", "current") or bool(smoking.pack_years))
    factors = [
        name
        for name, present in (
            ("smoking", smoker),
            ("emphysema", case.context.emphysema),
            ("lung cancer in the family", case.context.family_history_lung_cancer),
            ("upper lobe", case.nodule.lobe == "upper"),
            ("spiculation", case.nodule.is_spiculated),
        )
        if present
    ]
    return (f"Told, and counting towards high risk: {', '.join(factors)}.",) if factors else ()


def _dashed(name: str) -> str:
    return name.replace("_", "-")
