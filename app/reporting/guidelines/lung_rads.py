"""Lung-RADS v2022 for one nodule of a screening CT, by baseline rules and against an earlier CT.

American College of Radiology, Lung-RADS v2022, November 2022; Christensen J et al., Chest 2024;165:738-753. The ACR's
own table was not at hand: thresholds and volumes are those of v1.1 (NBK568579, Appendix A, Table 2), what v2022 changed
is from secondary sources, some of it from memory; docs/guidelines.md says which. To be checked against the ACR's
document before any use beyond research.
"""

from __future__ import annotations

from dataclasses import replace

from app.reporting.answers import Guideline, GuidelineAnswer, MissingInput, Ruling, Undecided, lacks
from app.reporting.clinical_context import ClinicalContext
from app.reporting.guidelines.lung_rads_apart import ruled_apart
from app.reporting.guidelines.lung_rads_categories import MANAGEMENT, T8, T10, Size, ruling
from app.reporting.guidelines.lung_rads_sizes import baseline, followed_up
from app.reporting.nodule_facts import (
    NoduleFacts,
    change_of,
    is_benign_looking,
    mean_diameter_0_1mm,
    missing_axes,
    solid_component_change_of,
    told,
)

LUNG_RADS = Guideline(
    "lung_rads_v2022",
    "American College of Radiology, Lung-RADS v2022; Christensen J et al., Chest 2024;165:738-753. Table as in "
    "secondary sources, not yet checked against the ACR's own.",
)
_KINDS = ("solid", "part_solid", "ground_glass")
_USED = (
    "kind", "long_axis_mm", "short_axis_mm", "solid_diameter_mm", "volume_mm3", "is_spiculated", "is_smooth",
    "is_juxtapleural", "shape", "has_benign_calcification", "has_fat", "is_proven_benign", "cyst_change",
)  # fmt: skip


def lung_rads(nodule: NoduleFacts, context: ClinicalContext) -> GuidelineAnswer:
    """Category of one nodule.

    Parameters
    ----------
    nodule
        Measured; ``change`` or ``earlier`` where there is an earlier CT.
    context
        ``setting`` must be screening. ``screening_exam`` says whether there is an earlier CT; where that is not told,
        baseline rules are used and the answer says so.
    """
    return LUNG_RADS.answer(_outcome(nodule, context), _used(nodule, context))


def screening_refusal(context: ClinicalContext) -> Undecided | None:
    """Why Lung-RADS does not apply, or cannot be known to; None where it does."""
    if context.setting is None:
        return Undecided("It is not told whether this is screening.", lacks(setting="Lung-RADS is for screening only."))
    if context.setting != "screening":
        return Undecided("Does not apply: Lung-RADS is for lung cancer screening only.")
    return None


def _outcome(nodule: NoduleFacts, context: ClinicalContext) -> Ruling | Undecided:
    refusal = screening_refusal(context)
    if refusal is None:
        return _in_screening(nodule, context)
    if context.setting is None:  # what else would be asked, too
        return replace(refusal, missing=(*refusal.missing, *_in_screening(nodule, context).missing))
    return refusal


def _in_screening(nodule: NoduleFacts, context: ClinicalContext) -> Ruling | Undecided:
    apart = _benign(nodule) or ruled_apart(nodule)
    if apart is not None:
        return _with_suspicion(apart, nodule)
    outcome = _by_kind(nodule, context)
    if isinstance(outcome, Undecided):
        return outcome
    if not _is_compared(nodule) and context.screening_exam is None:
        outcome = replace(
            outcome,
            missing=(*outcome.missing, *lacks(screening_exam="With an earlier CT other rules hold.")),
            notes=(*outcome.notes, "Baseline rules were used: it is not told whether there is an earlier CT."),
        )
    return _with_suspicion(_management_by_size(outcome, nodule), nodule)


def _by_kind(nodule: NoduleFacts, context: ClinicalContext) -> Ruling | Undecided:
    if nodule.kind is not None:
        return _by_size(nodule, context)
    possible = {kind: _by_size(nodule.model_copy(update={"kind": kind}), context) for kind in _KINDS}
    notes = [
        f"As {kind.replace('_', '-')} it would be {outcome.category}."
        for kind, outcome in possible.items()
        if isinstance(outcome, Ruling)
    ]
    missing = lacks(kind="Each kind has thresholds of its own.")
    for outcome in possible.values():
        missing += outcome.missing if isinstance(outcome, Undecided) else ()
    return Undecided("It is not told whether the nodule is solid, part-solid or ground glass.", missing, tuple(notes))


def _by_size(nodule: NoduleFacts, context: ClinicalContext) -> Ruling | Undecided:
    size = Size.of(nodule)
    if size is None:
        return Undecided("Neither both axes, nor a mean diameter, nor a volume is told.", missing_axes(nodule))
    juxtapleural = _juxtapleural(nodule, size)
    if isinstance(juxtapleural, Ruling):
        return juxtapleural
    if _is_compared(nodule):
        outcome = followed_up(nodule, size)
    elif context.screening_exam == "follow_up":
        outcome = Undecided(
            "At a follow-up the category depends on the earlier CT.",
            lacks(change="New, growing, slowly growing, stable or decreased.", earlier="The same nodule before."),
        )
    else:
        outcome = baseline(nodule, size)
    return replace(outcome, missing=(*outcome.missing, *juxtapleural))


def _is_compared(nodule: NoduleFacts) -> bool:
    return nodule.change is not None or nodule.earlier is not None


def _benign(nodule: NoduleFacts) -> Ruling | None:
    if nodule.is_proven_benign:
        return ruling("2", "lr-2-proven-benign", "A nodule that was proven benign.")
    if not is_benign_looking(nodule):
        return None
    outcome = ruling(
        "1",
        "lr-1-benign-features",
        "Complete, central, popcorn or concentric-ring calcification, or fat, is definitely benign.",
    )
    if nodule.has_benign_calcification or nodule.has_fat:
        return outcome
    return replace(outcome, notes=("Calcified as a whole, as told or measured; a reader has to confirm it.",))


def _juxtapleural(nodule: NoduleFacts, size: Size) -> Ruling | tuple[MissingInput, ...]:
    """Category 2 for what looks like a lymph node of the pleura; else what would have to be told for it."""
    small = not size.reaches(T10) and nodule.kind == "solid" and change_of(nodule) not in ("growing", "slowly_growing")
    if not small or nodule.is_juxtapleural is not True or nodule.is_spiculated:
        return ()
    if nodule.is_smooth and nodule.shape in ("oval", "lentiform", "triangular"):
        return ruling(
            "2",
            "lr-2-juxtapleural",
            "A solid juxtapleural nodule below 10 mm (524 mm3), smooth and oval, lentiform or triangular.",
        )
    why = "A smooth oval, lentiform or triangular juxtapleural nodule below 10 mm is category 2."
    missing = {name: why for name in ("is_smooth", "shape") if getattr(nodule, name) is None}
    return lacks(**missing) if nodule.is_smooth is not False and nodule.shape != "other" else ()


def _management_by_size(outcome: Ruling, nodule: NoduleFacts) -> Ruling:
    """PET/CT is named in 4A only where something solid measures 8 mm or more."""
    if outcome.category != "4A":
        return outcome
    solid = Size.of(nodule) if nodule.kind == "solid" else Size.of_solid_component(nodule)
    large = solid is not None and solid.reaches(T8)
    return replace(outcome, management=MANAGEMENT["4A, solid >= 8 mm" if large else "4A"])


def _with_suspicion(outcome: Ruling | Undecided, nodule: NoduleFacts) -> Ruling | Undecided:
    """3 or 4 with a suspicious feature is 4X."""
    if isinstance(outcome, Undecided) or outcome.category not in ("3", "4A", "4B"):
        return outcome
    features = [*nodule.suspicious_features, *(["spiculation"] if nodule.is_spiculated else [])]
    if features:
        sentence = f"Category {outcome.category} by {outcome.rule_id}, with {', '.join(sorted(features))}."
        suspicious = ruling("4X", "lr-4x-suspicious-features", sentence)
        # The first note of a ruling says how often its category is malignant: that of the lower one holds no more.
        return replace(suspicious, missing=outcome.missing, notes=(*suspicious.notes, *outcome.notes[1:]))
    if nodule.is_spiculated is None:
        why = f"Category {outcome.category} with spiculation is 4X."
        return replace(outcome, missing=(*outcome.missing, *lacks(is_spiculated=why)))
    return outcome


def _used(nodule: NoduleFacts, context: ClinicalContext) -> dict[str, object]:
    used = told(context, "setting", "screening_exam") | told(nodule, *_USED)
    derived = {
        "mean_diameter_mm": mean_diameter_0_1mm(nodule),
        "change": change_of(nodule),
        "solid_component_change": solid_component_change_of(nodule),
    }
    used |= {name: value for name, value in derived.items() if value is not None}
    if nodule.lesion != "nodule":
        used["lesion"] = nodule.lesion
    if nodule.suspicious_features:
        used["suspicious_features"] = list(nodule.suspicious_features)
    if nodule.earlier is not None:
        used["earlier"] = nodule.earlier.model_dump(exclude_none=True)
    return used
