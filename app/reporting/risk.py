"""The Brock (PanCan) models: how probable it is that a nodule is lung cancer.

McWilliams A et al., Probability of cancer in pulmonary nodules detected on first screening CT, N Engl J Med
2013;369:910-9: the full model without (2a) and with (2b) spiculation. Coefficients of 2b were checked against Table 2
of PMC6717521, of 2a only against a calculator (medicalalgorithms.com). That the diameter is the longest one is from
memory. Both, and the whole table against the paper itself, are to be checked before any use beyond research.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from app.reporting.answers import Answer, MissingInput
from app.reporting.clinical_context import ClinicalContext
from app.reporting.nodule_facts import NoduleFacts, is_benign_looking

BrockName = Literal["brock_full_2a", "brock_full_2b"]
MEANING = (
    "Probability that a nodule like this turned out to be lung cancer while the study followed its participants, "
    "smokers and former smokers in screening; how well it fits other patients is another question."
)
SOURCE = "McWilliams A et al., N Engl J Med 2013;369:910-919 (PanCan); coefficients as in PMC6717521, Table 2, for 2b."
STUDY_AGES = (50.0, 75.0)
LARGEST_NODULE_MM = 30.0
"""Beyond it a lesion is a mass."""


@dataclass(frozen=True)
class BrockModel:
    """Coefficients of one model; x = intercept + sum of terms, probability = 1 / (1 + exp(-x))."""

    name: BrockName
    intercept: float
    age: float
    """For each year above 62."""
    female: float
    family_history: float
    emphysema: float
    size: float
    """Times (d / 10 mm)^-0.5 - (4 / 10)^-0.5."""
    part_solid: float
    ground_glass: float
    upper_lobe: float
    count: float
    """For each nodule above 4."""
    spiculation: float | None


BROCK_2A = BrockModel(
    "brock_full_2a", -6.8071, 0.0321, 0.5635, 0.3013, 0.3462, -5.6693, 0.3395, -0.3055, 0.7116, -0.0803, None
)
BROCK_2B = BrockModel(
    "brock_full_2b", -6.7892, 0.0287, 0.6011, 0.2961, 0.2953, -5.3854, 0.3770, -0.1276, 0.6581, -0.0824, 0.7729
)
_AGE, _SIZE_MM, _COUNT = 62.0, 4.0, 4
_REFERENCES: Mapping[str, object] = {
    "age_years": _AGE, "sex": "male", "family_history_lung_cancer": False, "emphysema": False, "long_axis_mm": _SIZE_MM,
    "kind": "solid", "lobe": "middle or lower", "nodule_count": _COUNT, "is_spiculated": False,
}  # fmt: skip


class BrockRisk(Answer):
    """What one Brock model says to one nodule."""

    model: BrockName = Field(description="brock_full_2b counts spiculation, brock_full_2a does not.")
    probability: float | None = Field(
        ge=0, le=1, description="0 to 1, in the sense of `means`; null while an input is missing."
    )
    probability_range: tuple[float, float] | None = Field(
        description="Lowest and highest probability that the missing inputs leave open, 0 to 1; null where age, size "
        "or count is missing, since these have no ends."
    )
    means: str = Field(description="What the probability means.")
    inputs_used: dict[str, Any] = Field(description="What it rests on, with units in the names.")
    inputs_missing: list[MissingInput] = Field(description="What the formula lacks, and where its term is zero.")
    cannot_be_computed: str | None = Field(description="Why there is no probability; null where there is one.")
    notes: list[str] = Field(description="Where the figure is outside of what the model was made for.")
    source: str = Field(description="Where the model is published.")


def brock(model: BrockModel, nodule: NoduleFacts, context: ClinicalContext, nodule_count: int | None) -> BrockRisk:
    """Probability of cancer by one of the two full models.

    Parameters
    ----------
    model
        `BROCK_2A` or `BROCK_2B`.
    nodule
        Its longest axis in mm, kind, lobe and, for 2b, spiculation are used.
    context
        Age, sex, family history and emphysema are used.
    nodule_count
        Nodules on the same CT, this one included.

    Returns
    -------
    BrockRisk
        Without a probability, and with what is missing, where anything is.
    """
    inputs = _inputs(model, nodule, context, nodule_count)
    used = {name: value for name, value in inputs.items() if value is not None}
    missing = [
        MissingInput(name=name, why=f"A term of {model.name}.", formula_reference=_REFERENCES[name])
        for name, value in inputs.items()
        if value is None
    ]
    refusal = _not_applicable(nodule)
    low, high = (None, None) if refusal else _ends(model, inputs)
    if refusal is None and missing:
        refusal = f"Missing: {', '.join(item.name for item in missing)}."
    return BrockRisk(
        model=model.name,
        probability=None if refusal else low,
        probability_range=(low, high) if missing and low is not None and high is not None else None,
        means=MEANING,
        inputs_used=used,
        inputs_missing=missing,
        cannot_be_computed=refusal,
        notes=_notes(inputs),
        source=SOURCE,
    )


def brock_risks(nodule: NoduleFacts, context: ClinicalContext, nodule_count: int | None) -> list[BrockRisk]:
    """Both models, the one with spiculation first."""
    return [brock(model, nodule, context, nodule_count) for model in (BROCK_2B, BROCK_2A)]


def _inputs(model: BrockModel, nodule: NoduleFacts, context: ClinicalContext, count: int | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "age_years": context.age_years,
        "sex": context.sex,
        "family_history_lung_cancer": context.family_history_lung_cancer,
        "emphysema": context.emphysema,
        "long_axis_mm": nodule.long_axis_mm,
        "kind": nodule.kind,
        "lobe": nodule.lobe,
        "nodule_count": count or None,
    }
    return inputs if model.spiculation is None else {**inputs, "is_spiculated": nodule.is_spiculated}


def _not_applicable(nodule: NoduleFacts) -> str | None:
    if is_benign_looking(nodule):
        return "The model is for nodules without benign calcification or fat."
    return None if nodule.lesion == "nodule" else "The model is for nodules of the lung, not of airways or cysts."


def _ends(model: BrockModel, inputs: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Probabilities at both ends of what is open; None where there is no end."""
    if any(inputs[name] is None for name in ("age_years", "long_axis_mm", "nodule_count")):
        return None, None
    size = (inputs["long_axis_mm"] / 10) ** -0.5 - (_SIZE_MM / 10) ** -0.5
    x = model.intercept + model.age * (inputs["age_years"] - _AGE) + model.size * size
    low = high = x + model.count * (inputs["nodule_count"] - _COUNT)
    for told, terms in _choices(model, inputs):
        open_terms = list(terms.values()) if told is None else [terms[told]]
        low, high = low + min(open_terms), high + max(open_terms)
    return _logistic(low), _logistic(high)


def _choices(model: BrockModel, inputs: Mapping[str, Any]) -> list[tuple[Any, dict[Any, float]]]:
    """What was told, and the term of each possible answer."""
    lobes = {"upper": model.upper_lobe, "middle": 0.0, "lower": 0.0}
    kinds = {"solid": 0.0, "part_solid": model.part_solid, "ground_glass": model.ground_glass}
    choices: list[tuple[Any, dict[Any, float]]] = [
        (inputs["sex"], {"male": 0.0, "female": model.female}),
        (inputs["family_history_lung_cancer"], {False: 0.0, True: model.family_history}),
        (inputs["emphysema"], {False: 0.0, True: model.emphysema}),
        (inputs["kind"], kinds),
        (inputs["lobe"], lobes),
    ]
    if model.spiculation is not None:
        choices.append((inputs["is_spiculated"], {False: 0.0, True: model.spiculation}))
    return choices


def _logistic(x: float) -> float:
    if x > 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))  # does not overflow for what is far below 0


def _notes(inputs: Mapping[str, Any]) -> list[str]:
    notes = []
    age, size_mm = inputs["age_years"], inputs["long_axis_mm"]
    if age is not None and not STUDY_AGES[0] <= age <= STUDY_AGES[1]:
        notes.append("The patient's age lies outside of that of the study's participants (50 to 75 years).")
    if size_mm is not None and size_mm > LARGEST_NODULE_MM:
        notes.append("Over 30 mm: a mass, not a nodule; the model was not made for it.")
    return notes
