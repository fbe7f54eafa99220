"""Risk and guidelines for the nodules of one CT, as told or as found in a scan; needs no model and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from app.imaging.patient_attributes import PatientAttributes
from app.inference.findings import DISCLAIMER, Findings, Nodule
from app.reporting.answers import Answer, GuidelineAnswer
from app.reporting.clinical_context import ClinicalContext, Input
from app.reporting.compared import ComparedFindings, Comparison
from app.reporting.growth import Growth, growth_of
from app.reporting.guidelines.bts import bts
from app.reporting.guidelines.fleischner import fleischner
from app.reporting.guidelines.lung_rads import lung_rads
from app.reporting.guidelines.lung_rads_exam import lung_rads_of_exam
from app.reporting.nodule_facts import Change, EarlierNodule, NoduleFacts
from app.reporting.risk import BrockRisk, brock_risks

_CHANGES: Mapping[str, Change | None] = {
    "new": "new", "growing": "growing", "slowly_growing": "slowly_growing", "stable": "stable",
    "shrinking": "decreased", "unknown": None,
}  # fmt: skip
HeaderInput = Literal["age_years", "sex"]
_FINDING_NOTE = "Nodules below the operating point are neither assessed nor counted."
_KIND_NOTE = (
    "The kind of each nodule is the model's, which calls most part-solid ones solid; a reader has to look before a "
    "category is used."
)
_SIGN_NOTE = "Measured calcification or fat does not make a nodule benign here: {} assessed by size."


class RiskRequest(Input):
    """Nodules of one CT and what is known of the patient."""

    context: ClinicalContext = Field(default_factory=ClinicalContext, description="The patient and the exam.")
    nodules: list[NoduleFacts] = Field(max_length=200, description="Every nodule of the CT that is to be assessed.")
    nodule_count: int | None = Field(
        default=None, ge=0, le=10_000, description="Nodules on the CT, where there are more than are described."
    )

    @model_validator(mode="after")
    def _agree(self) -> RiskRequest:
        if self.nodule_count is not None and self.nodule_count < len(self.nodules):
            raise ValueError("nodule_count must not be less than the number of nodules")
        if len({nodule.id for nodule in self.nodules}) < len(self.nodules):
            raise ValueError("each nodule needs an id of its own")
        if self.context.from_headers:
            raise ValueError("from_headers needs a scan; tell age_years and sex")
        return self


class NoduleAssessment(Answer):
    """Risk, growth and guidelines for one nodule."""

    nodule_id: str = Field(description="The nodule.")
    brock: list[BrockRisk] = Field(description="Both full models, that with spiculation (2b) first.")
    growth: Growth | None = Field(description="Change since the earlier CT; null where none is told.")
    guidelines: list[GuidelineAnswer] = Field(description="Lung-RADS, Fleischner and BTS, whether they apply or not.")


class Assessment(Answer):
    """Risk and guidelines for the nodules of one CT. It supports a reader's judgement and replaces none."""

    disclaimer: str = Field(description="What it must not be used for.")
    context: dict[str, Any] | None = Field(description="What was known of patient and exam; null where nothing was.")
    inputs_from_headers: list[HeaderInput] = Field(
        description="Which of it was read from PatientAge and PatientSex, because the context said so."
    )
    nodule_count: int = Field(description="Nodules on the CT, as the formulas count them.")
    lung_rads: GuidelineAnswer = Field(description="Lung-RADS category of the exam: its most suspicious nodule.")
    nodules: list[NoduleAssessment] = Field(description="Every nodule, in the order given.")
    notes: list[str] = Field(description="What a reader has to know beside it.")


def assess(request: RiskRequest) -> Assessment:
    """Assess nodules that are told."""
    return _assess(request.nodules, request.context, request.nodule_count)


def assess_findings(findings: Findings, context: ClinicalContext | None = None) -> Assessment:
    """Assess what was found in a scan, by falling probability; without a context the answer says what is missing.

    Parameters
    ----------
    findings
        What `app.inference.pipeline.analyse` returned.
    context
        Where its ``from_headers`` is set, age and sex that it lacks are taken from the scan.
    """
    known, from_headers = with_headers(context or ClinicalContext(), findings.patient)
    comparison = findings.comparison if isinstance(findings, ComparedFindings) else None
    nodules = [
        facts_of(nodule, comparison) for nodule in sorted(findings.nodules, key=lambda nodule: -nodule.probability)
    ]
    assessment = _assess(nodules, known, None)
    return assessment.model_copy(
        update={"inputs_from_headers": from_headers, "notes": [*assessment.notes, *_scan_notes(findings.nodules)]}
    )


def _scan_notes(nodules: Sequence[Nodule]) -> list[str]:
    """What a category from measurements alone rests on."""
    notes = [_FINDING_NOTE]
    if any(nodule.kind is not None for nodule in nodules):
        notes.append(_KIND_NOTE)
    signs = [nodule.id for nodule in nodules if nodule.signs or nodule.kind == "calcified"]
    if signs:
        notes.append(_SIGN_NOTE.format(f"{', '.join(signs)} {'is' if len(signs) == 1 else 'are'}"))
    return notes


def with_headers(
    context: ClinicalContext, patient: PatientAttributes | None
) -> tuple[ClinicalContext, list[HeaderInput]]:
    """The context with age and sex from the headers where it asks for them and does not tell them, and which came."""
    if not context.from_headers or patient is None:
        return context, []
    names: tuple[HeaderInput, ...] = ("age_years", "sex")
    found = [n for n in names if getattr(context, n) is None and getattr(patient, n) is not None]
    return context.model_copy(update={name: getattr(patient, name) for name in found}), found


def facts_of(nodule: Nodule, comparison: Comparison | None = None) -> NoduleFacts:
    """What is known of a nodule of a scan; what was not measured is missing, shape and smoothness always.

    Parameters
    ----------
    nodule
        Of the current scan.
    comparison
        With a prior: gives how the nodule changed, and its earlier size. Its earlier category is never guessed.
    """
    location = nodule.location
    facts = {
        "id": nodule.id,
        # Measured calcification is no benign pattern: size decides, until a reader has told what it is.
        "kind": "solid" if nodule.kind == "calcified" else nodule.kind,
        "long_axis_mm": _measured(nodule.long_axis_mm, 3),
        "short_axis_mm": _measured(nodule.short_axis_mm, 3),
        "solid_diameter_mm": None if nodule.solid_diameter_mm is None else round(nodule.solid_diameter_mm, 3),
        "volume_mm3": _measured(nodule.volume_mm3, 1),
        "volume_interval_mm3": _measured_interval(nodule.volume_interval_mm3),
        "lobe": location.lobe if location else None,
        "is_spiculated": nodule.is_spiculated,
        "is_juxtapleural": location.is_juxtapleural if location else None,
        **({} if comparison is None else _history(nodule, comparison)),
    }
    # Not validated: an interval or a size that the door would refuse must not lose a whole analysis.
    return NoduleFacts.model_construct(**facts)


def _history(nodule: Nodule, comparison: Comparison) -> dict[str, Any]:
    """What the comparison says of a nodule; nothing where it could not tell."""
    status = next(found for found in comparison.statuses if found.nodule_id == nodule.id)
    pair = next((found for found in comparison.pairs if found.current_id == nodule.id), None)
    history: dict[str, Any] = {"change": _CHANGES[status.status]}
    if pair is None or not comparison.days:
        return history
    before = next(found for found in comparison.prior_nodules if found.id == pair.prior_id)
    solid = before.solid_diameter_mm
    history["earlier"] = EarlierNodule.model_construct(
        interval_days=float(comparison.days),
        mean_diameter_mm=_measured(before.diameter_mm, 3),
        solid_diameter_mm=None if solid is None else round(solid, 3),
        volume_mm3=_measured(before.volume_mm3, 1),
        volume_interval_mm3=_measured_interval(before.volume_interval_mm3),
    )
    return history


def _measured_interval(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (round(interval[0], 1), round(interval[1], 1))


def _measured(value: float | None, digits: int) -> float | None:
    """As the answer shows it, so that it can be followed from the answer; nothing has no size."""
    return None if value is None else round(value, digits) or None


def _assess(nodules: Sequence[NoduleFacts], context: ClinicalContext, told_count: int | None) -> Assessment:
    count = len(nodules) if told_count is None else told_count
    assessed = [_assess_nodule(nodule, nodules, context, count) for nodule in nodules]
    screening = [(nodule.nodule_id, nodule.guidelines[0]) for nodule in assessed]
    notes = []
    if count > len(nodules):
        notes.append(
            f"{count - len(nodules)} of {count} nodules are not described; the exam's category is of the others."
        )
    return Assessment(
        disclaimer=DISCLAIMER,
        context=context.model_dump(exclude_defaults=True, mode="json") or None,
        inputs_from_headers=[],
        nodule_count=count,
        lung_rads=lung_rads_of_exam(screening, context),
        nodules=assessed,
        notes=notes,
    )


def _assess_nodule(
    nodule: NoduleFacts, nodules: Sequence[NoduleFacts], context: ClinicalContext, count: int
) -> NoduleAssessment:
    risks, growth = brock_risks(nodule, context, count), growth_of(nodule)
    is_solid = nodule.kind == "solid"
    # Of those that are not described the kind is unknown: they count as more of the same.
    family = sum((other.kind == "solid") == is_solid for other in nodules) + count - len(nodules)
    return NoduleAssessment(
        nodule_id=nodule.id,
        brock=risks,
        growth=growth,
        guidelines=[
            lung_rads(nodule, context),
            fleischner(nodule, context, family),
            bts(nodule, context, risks, growth),
        ],
    )
