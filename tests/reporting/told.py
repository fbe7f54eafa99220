"""Nodules and contexts in a line."""

from __future__ import annotations

from typing import Any

from app.reporting.clinical_context import ClinicalContext
from app.reporting.nodule_facts import NoduleFacts

SCREENING = ClinicalContext(setting="screening", screening_exam="baseline")
FOLLOW_UP = ClinicalContext(setting="screening", screening_exam="follow_up")
INCIDENTAL = ClinicalContext(setting="incidental", age_years=60, known_cancer=False, immunosuppressed=False)


def nodule(**facts: Any) -> NoduleFacts:
    """Solid and not spiculated unless it says otherwise; ``mm`` is short for both axes."""
    mm = facts.pop("mm", None)
    axes = {} if mm is None else {"long_axis_mm": mm, "short_axis_mm": mm}
    return NoduleFacts.model_validate({"kind": "solid", "is_spiculated": False, **axes, **facts})


def context(base: ClinicalContext, **changes: Any) -> ClinicalContext:
    return ClinicalContext.model_validate({**base.model_dump(exclude_defaults=True), **changes})


def names(missing: Any) -> set[str]:
    return {item.name for item in missing}
