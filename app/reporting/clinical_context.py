"""What is known of the patient beside the scan; every field may be left out, and what is left out is never invented.

Age and sex are patient data: a context lives in requests, in a job's folder and in answers, never in the ledger or a
log.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator

from app.imaging.errors import OptionError

Told = StrictBool | None
"""Yes, no, or not told."""
Sex = Literal["female", "male"]


class InvalidContext(OptionError):
    """A clinical context, or a request for an assessment, that does not fit."""

    default_code = "context_invalid"


class Input(BaseModel):
    """Something that is told; an unknown field is refused, since a typing error must not count as not told."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Smoking(Input):
    """Smoking history. No formula here uses it; Fleischner 2017 counts it among what makes a patient high-risk."""

    status: Literal["never", "former", "current"] | None = Field(default=None, description="Smoking status.")
    pack_years: float | None = Field(default=None, ge=0, le=400, description="Packs a day times years.")
    quit_years: float | None = Field(default=None, ge=0, le=100, description="Years since the patient stopped.")

    @model_validator(mode="after")
    def _agree(self) -> Smoking:
        if self.status == "never" and (self.pack_years or self.quit_years is not None):
            raise ValueError("status never contradicts pack_years or quit_years")
        if self.status == "current" and self.quit_years is not None:
            raise ValueError("status current contradicts quit_years")
        return self


class ClinicalContext(Input):
    """The patient and why the CT was made."""

    age_years: float | None = Field(default=None, ge=0, le=120, description="Age at the CT, in years.")
    sex: Sex | None = Field(default=None, description="Sex, as the Brock model counts it.")
    family_history_lung_cancer: Told = Field(default=None, description="Lung cancer in the family.")
    emphysema: Told = Field(default=None, description="Emphysema, on this CT or known.")
    smoking: Smoking | None = Field(default=None, description="Smoking history.")
    setting: Literal["screening", "incidental"] | None = Field(
        default=None, description="Lung cancer screening (Lung-RADS), or a CT for another reason (Fleischner)."
    )
    screening_exam: Literal["baseline", "follow_up"] | None = Field(
        default=None, description="In screening: without an earlier CT, or with one."
    )
    incomplete_because: Literal["prior_being_located", "lungs_not_evaluable", "suspected_infection"] | None = Field(
        default=None, description="Why the exam as a whole cannot be judged yet: Lung-RADS 0."
    )
    known_cancer: Told = Field(default=None, description="Known or earlier cancer.")
    immunosuppressed: Told = Field(default=None, description="Immunosuppression.")
    risk_group: Literal["low", "high"] | None = Field(
        default=None, description="Fleischner's risk group of the patient, as whoever asks judges it."
    )
    from_headers: StrictBool = Field(
        default=False, description="Take age and sex, where they are not told, from PatientAge and PatientSex."
    )

    def canonical_json(self) -> bytes:
        """The same bytes for the same context, however it was written."""
        return self.model_dump_json(exclude_defaults=True).encode()


def _parsed(value: object) -> object:
    """A form sends text. The parser's own message may quote it, so it is not passed on."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


ContextField = Annotated[ClinicalContext, BeforeValidator(_parsed)]
"""A form field with the context as JSON."""


def told_from_json(text: str | bytes, kind: type[Input]) -> Any:  # noqa: ANN401 - of the kind asked for
    """Read what is told from a file.

    Raises
    ------
    InvalidContext
        Names each place that does not fit, never the value.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
    described = "; ".join(f"{place_of(fault)}: {advice_of(fault, kind)}" for fault in faults)
    raise InvalidContext(f"It does not fit: {described}.")


def place_of(fault: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Where a fault lies; a name that is not known may be anything, so it is left out."""
    known = fault["loc"][:-1] if fault["type"] == "extra_forbidden" else fault["loc"]
    return ".".join(map(str, known)) or "document"


def advice_of(fault: Any, kind: type[Input]) -> str:  # noqa: ANN401
    """What is wrong, without what was sent."""
    if fault["type"] == "extra_forbidden":
        return "an unknown field" + (f"; known are {', '.join(kind.model_fields)}" if len(fault["loc"]) == 1 else "")
    return "is not JSON" if fault["type"] == "json_invalid" else str(fault["msg"])
