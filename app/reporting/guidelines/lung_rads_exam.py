"""The Lung-RADS category of an exam: that of its most suspicious nodule."""

from __future__ import annotations

from collections.abc import Sequence

from app.reporting.answers import GuidelineAnswer, Ruling, Undecided
from app.reporting.clinical_context import ClinicalContext
from app.reporting.guidelines.lung_rads import LUNG_RADS, screening_refusal
from app.reporting.guidelines.lung_rads_categories import MANAGEMENT, RANK, ruling
from app.reporting.nodule_facts import told

_INCOMPLETE = {
    "prior_being_located": "An earlier CT is being fetched for comparison.",
    "lungs_not_evaluable": "Part of the lungs, or all, cannot be judged.",
    "suspected_infection": "Something looks like an infection or inflammation.",
}


def lung_rads_of_exam(nodules: Sequence[tuple[str, GuidelineAnswer]], context: ClinicalContext) -> GuidelineAnswer:
    """Category of the exam.

    Parameters
    ----------
    nodules
        Id and Lung-RADS answer of every nodule of the CT; none gives category 1.
    context
        Of the exam.
    """
    used = told(context, "setting", "screening_exam", "incomplete_because") | {"nodules": len(nodules)}
    return LUNG_RADS.answer(_outcome(nodules, context), used)


def _outcome(nodules: Sequence[tuple[str, GuidelineAnswer]], context: ClinicalContext) -> Ruling | Undecided:
    refusal = screening_refusal(context)
    if refusal is not None:
        return refusal
    if context.incomplete_because is not None:
        return Ruling("0", "lr-0-incomplete", _INCOMPLETE[context.incomplete_because], MANAGEMENT["0"])
    if not nodules:
        return ruling("1", "lr-1-no-nodule", "No nodule.")
    assigned = [(RANK[answer.category], name, answer) for name, answer in nodules if answer.category is not None]
    worst = max(assigned, key=lambda item: item[0], default=None)
    open_nodules = [(name, answer) for name, answer in nodules if answer.category is None]
    if open_nodules and (worst is None or worst[0] < RANK["4X"]):
        missing = tuple(item for _, answer in open_nodules for item in answer.inputs_missing)
        notes = () if worst is None else (f"It is at least {worst[2].category}, by {worst[1]}.",)
        names = ", ".join(name for name, _ in open_nodules)
        return Undecided(f"No category can be assigned to {names}.", missing, notes)
    assert worst is not None  # noqa: S101 - there are nodules, and none of them is open
    _, name, answer = worst
    return Ruling(
        answer.category or "",
        "lr-most-suspicious-nodule",
        f"The most suspicious nodule decides: {name}, by {answer.rule.id if answer.rule else ''}.",
        answer.management or "",
        tuple(item for _, each in nodules for item in each.inputs_missing),
        tuple(answer.notes),
    )
