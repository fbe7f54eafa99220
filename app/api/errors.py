"""What the HTTP layer itself refuses; `app.api.problem_kinds` says how each is answered."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from app.imaging.errors import LungNoduleError, OptionError


class FieldFault(BaseModel):
    """One part of the request that does not fit."""

    field: str = Field(description="Where it is: the form field, or the path of the parameter.")
    message: str = Field(description="What is wrong and what would fit; never the value that was sent.")


class InvalidFields(OptionError):
    """Form fields that are unknown or do not fit."""

    default_code = "invalid_option"

    def __init__(self, message: str, faults: Sequence[FieldFault]) -> None:
        super().__init__(message)
        self.faults = list(faults)


class EmptyUpload(LungNoduleError):
    """No file, or only empty ones."""

    default_code = "empty_upload"


class NotFound(LungNoduleError):
    """What the path names does not exist."""

    default_code = "not_found"


class InvalidParameter(LungNoduleError):
    """A parameter that does not fit the scan or the job it is about."""

    default_code = "invalid_parameter"


class NotReady(LungNoduleError):
    """The service cannot take work now."""

    default_code = "not_ready"


class AnalysisTimeout(LungNoduleError):
    """The analysis took longer than the service allows."""

    default_code = "analysis_timeout"
